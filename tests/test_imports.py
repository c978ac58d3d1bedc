"""The import rule of the design: what each part of the package may import, read from its source with ``ast``."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import convit

PACKAGE = Path(convit.__file__).parent

# Each part and the parts that it may import, besides itself, errors and choices, which all may. A part is a module or a
# folder right under convit/; a file with a row of its own is held to that row instead of its folder's.
MODEL = {"grid", "ops", "layers", "models"}
TOOLS = {
    *("answers", "calibration", "classifier", "classifier_config", "classifier_folder", "classifier_loading"),
    *("data", "device", "hub", "model_card", *MODEL),
}
OPTIONS = {"options", "options_file"}
EXPORTS = {"export", "export_verification", "export_web", "export_space"}
PARTS_OF_THE_TOP = {"training", "analysis", "benchmark", "checks", *EXPORTS}
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "choices": set(),
    "options": set(),
    "options_file": {"options", "files"},
    "preprocess": set(),
    "prediction": set(),
    "calibration": {"files"},
    "answers": {"calibration", "prediction"},
    "intervals": set(),
    "events": set(),
    "files": set(),
    "device": set(),
    "lock": set(),
    "grid": set(),
    "ops": {"grid"},
    "layers": {"grid", "ops"},
    "hub": set(),
    "models": {"grid", "ops", "layers", "hub", "files"},
    "timm_names": {"models"},
    "data": {"hub", "events", "files", "preprocess"},
    "model_card": {"calibration", "intervals"},
    "classifier_folder": {"files", "hub"},
    "figures": {"files"},
    "pages": {"files"},
    "classifier_config": {"calibration", "classifier_folder", "data", "files", "model_card", "models", "prediction"},
    "classifier": {
        *("answers", "calibration", "classifier_config", "classifier_folder", "model_card", "prediction"),
        *("data", "device", "files", "hub", *MODEL),
    },
    "classifier_loading": {"calibration", "classifier", "classifier_config", "classifier_folder", "hub", *MODEL},
    # Training, analysis, export and benchmark stand side by side, and do not import each other.
    "training": {"figures", "intervals", "lock", "pages", *OPTIONS, "events", "files", *TOOLS},
    "analysis": {"figures", "files", "pages", "prediction", *TOOLS},
    "export_verification": {*TOOLS},
    "export": {"export_verification", "files", *TOOLS},
    "benchmark": {"events", "files", *TOOLS},
    # Each of these stands on one or two of them.
    "export_web": {"export", "files", "pages", *TOOLS},
    "export_space": {"export_web", "files", *TOOLS},
    "checks": {"events", "files", "options", "pages", "training", *TOOLS},
    "entry": {"training", "analysis", "events"},
    "experiments": {"entry", "figures", "intervals", "lock", *OPTIONS, "events", "files", *TOOLS, *PARTS_OF_THE_TOP},
    "cli": {
        *("entry", "experiments", "figures", "intervals", "options", "prediction", "preprocess", "events", "files"),
        *TOOLS,
        *PARTS_OF_THE_TOP,
    },
    "__main__": {"cli"},
    # The public names. The root module is `convit` here.
    "convit": {"entry", "prediction", "timm_names", *TOOLS, *PARTS_OF_THE_TOP},
}

# Libraries that are heavy or not everywhere, and the only modules that may import them.
ONLY_IN = {
    "triton": {"convit.ops.triton"},
    "matplotlib": {
        *("convit.figures", "convit.training.plots", "convit.training.reliability_plot"),
        *("convit.analysis.plots", "convit.analysis.map_plot", "convit.experiments.curves"),
    },
}


def module_name(file: Path) -> str:
    """``convit.ops.naive`` for ``src/convit/ops/naive.py``."""
    return ".".join(("convit", *file.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")


def part_of(module: str) -> str:
    """The row of the table that a module belongs to."""
    return [*module.split("."), "convit"][1] if module != "convit" else "convit"


def imports_of(source: str, module: str, is_package: bool = False) -> Iterator[tuple[int, str]]:
    """Line and full name of everything imported, also inside functions: ``from a import b`` gives ``a.b``."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = [node.module] if node.module else []
            if node.level:
                above = module.split(".")
                base = above[: len(above) - node.level + is_package] + base
            yield from ((node.lineno, ".".join((*base, alias.name))) for alias in node.names)


def violations(source: str, module: str, is_package: bool = False) -> list[str]:
    """One line for each import that the rule forbids."""
    part, found = part_of(module), []
    if part not in ALLOWED:
        return [f"{module}: {part} has no row in the table of tests/test_imports.py; give it one"]
    for line, name in imports_of(source, module, is_package):
        where = f"{module}, line {line}: imports {name}"
        library = name.split(".")[0]
        if library in ONLY_IN and module not in ONLY_IN[library]:
            found.append(f"{where}, which only {', '.join(sorted(ONLY_IN[library]))} may")
        if library == "convit":
            # `from convit import GPSA` is an import of the root module, `from convit import ops` is one of ops.
            target = part_of(name) if part_of(name) in ALLOWED else "convit"
            if target not in {part, "errors", "choices", *ALLOWED[part]}:
                found.append(f"{where}, but {part} may import {sorted(ALLOWED[part]) or 'nothing'}")
    return found


@pytest.mark.parametrize("file", sorted(PACKAGE.rglob("*.py")), ids=module_name)
def test_imports_keep_the_rule(file: Path) -> None:
    found = violations(file.read_text(encoding="utf-8"), module_name(file), file.name == "__init__.py")
    assert not found, "\n".join(found)


def test_table_has_no_circle() -> None:
    """The parts can be put in an order in which each imports only earlier ones; the root, made of all, is last."""
    left = {part: allowed - {"convit"} for part, allowed in ALLOWED.items() if part != "convit"}
    while left:
        ready = {part for part, allowed in left.items() if not allowed & left.keys()}
        assert ready, f"these import each other: {sorted(left)}"
        left = {part: allowed for part, allowed in left.items() if part not in ready}


@pytest.mark.parametrize("folder", sorted(folder.parent.name for folder in PACKAGE.glob("*/__init__.py")))
def test_no_circle_of_modules(folder: str) -> None:
    """No two modules of a folder import each other, directly or in a circle; also not inside functions."""
    files = {module_name(file): file for file in sorted((PACKAGE / folder).rglob("*.py"))}
    left: dict[str, set[str]] = {}
    for module, file in files.items():
        names = {name for _, name in imports_of(file.read_text(encoding="utf-8"), module, file.name == "__init__.py")}
        if file.name == "__init__.py":  # it gives the names of its modules, and none of them asks it for one
            names = {name for name in names if not name.startswith(f"{module}.")}
        left[module] = {at for name in names if (at := _module_of(name, files)) not in (None, module)}  # type: ignore[misc]
    while left:
        ready = {module for module, needed in left.items() if not needed & left.keys()}
        assert ready, f"these import each other: {sorted(left)}"
        left = {module: needed for module, needed in left.items() if module not in ready}


def _module_of(name: str, files: dict[str, Path]) -> str | None:
    """The module that gives a name that is imported."""
    return next((m for m in (name, name.rpartition(".")[0]) if m in files), None)


FORBIDDEN = [
    ("convit.grid", "from convit.ops import naive"),
    ("convit.ops.naive", "import convit.layers.attention"),
    ("convit.layers.block", "def late():\n    from convit.models import ConViT"),
    ("convit.layers.block", "from convit import models"),
    ("convit.layers.block", "from convit import GPSA"),
    ("convit.layers.block", "import convit"),
    ("convit.layers.block", "from ..models.convit import ConViT"),
    ("convit.layers.block", "from .. import models"),
    ("convit.data.sources", "from convit.grid import Grid"),
    ("convit.data.sources", "from convit.classifier import Classifier"),
    ("convit.models.convit", "from convit.data import open_source"),
    ("convit.training.engine", "from convit.analysis.capture import capture"),
    ("convit.analysis.page", "if True:\n    from convit.training import engine"),
    ("convit.export", "from convit.benchmark import measure"),
    ("convit.experiments.table1", "from convit.cli import main"),
    ("convit.errors", "from convit.grid import Grid"),
    ("convit.ops.factorized", "import triton.language as tl"),
    ("convit.analysis.metrics", "from matplotlib import pyplot"),
    ("convit.newcomer", "import math"),
]


@pytest.mark.parametrize(("module", "source"), FORBIDDEN)
def test_forbidden_imports_are_found(module: str, source: str) -> None:
    found = violations(source, module)
    assert len(found) == 1
    assert found[0].startswith(module)


def test_relative_imports_are_resolved() -> None:
    assert list(imports_of("from . import naive", "convit.ops", is_package=True)) == [(1, "convit.ops.naive")]
    assert list(imports_of("from . import naive", "convit.ops.triton")) == [(1, "convit.ops.naive")]
    assert list(imports_of("from ..grid import Grid", "convit.ops.triton")) == [(1, "convit.grid.Grid")]
