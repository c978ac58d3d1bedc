"""``import convit``: the public names, what is imported for them, and the models in timm's registry."""

import subprocess
import sys
from types import ModuleType

import pytest

import convit
import convit.training

OURS = "timm.is_model('convit_nano_patch4_32') and timm.is_model('convit_tiny')"


def passes(code: str) -> None:
    """Runs Python code in a process of its own."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("module", "name"), [(m, name) for m in (convit, convit.training) for name in m.__all__])
def test_every_public_name_is_there(module: ModuleType, name: str) -> None:
    found = getattr(module, name)
    assert found.__name__ == name or name == "GPSA"
    assert found.__module__.startswith("convit.")


def test_every_public_name_is_listed() -> None:
    assert set(convit.__all__) <= set(dir(convit))


@pytest.mark.parametrize("module", [convit, convit.training])
def test_no_other_name_is(module: ModuleType) -> None:
    with pytest.raises(AttributeError, match=rf"module '{module.__name__}' has no attribute 'trian'"):
        _ = module.trian


def test_all_of_them_by_a_star() -> None:
    passes("from convit import *; GPSA, Classifier, ConViT, create_model, inspect, load, train; assert list_models()")


def test_import_takes_nothing_heavy() -> None:
    heavy = {"torch", "torchvision", "timm", "numpy", "PIL", "matplotlib", "rich", "huggingface_hub", "msgspec"}
    passes(f"import sys, convit; loaded = {heavy} & set(sys.modules); assert not loaded, loaded")


def test_names_of_models_take_no_pytorch() -> None:
    passes("import sys, convit; assert convit.list_models() and 'torch' not in sys.modules")


def test_a_model_takes_neither_plots_nor_training() -> None:
    heavy = {"matplotlib", "rich", "convit.training", "convit.analysis", "convit.data"}
    passes(
        "import sys, convit; convit.create_model('convit_nano_patch4_32'); "
        f"loaded = {heavy} & set(sys.modules); assert not loaded, loaded"
    )


def test_modules_are_attributes() -> None:
    passes("import convit; assert convit.models.convit.ConViT is convit.ConViT and convit.layers.Block")


@pytest.mark.parametrize(
    "code",
    [
        "import convit, timm",
        "import timm, convit",
        "import convit; from timm.models import create_model; import timm",
        "import timm.layers, convit, timm",
        "import convit.layers, timm",  # which imports timm in the middle of its own import
        "from convit import GPSA; import timm",
        "from convit.models.variants import create_model; import timm",
        "import convit, importlib.util as u; assert u.find_spec('timm') and u.find_spec('timm'); import timm",
        "import convit.cli.options.train, timm",
    ],
)
def test_timm_has_the_names_in_every_order(code: str) -> None:
    passes(f"{code}; assert {OURS}; timm.create_model('convit_nano_patch4_32', num_classes=2)")


def test_timm_is_imported_as_without_us() -> None:
    passes(
        "import sys, inspect, convit; before = list(sys.meta_path); import timm; "
        "assert type(timm.__loader__) is type(timm.models.__loader__) is type(timm.__spec__.loader); "
        "assert inspect.getsource(timm) and len(sys.meta_path) == len(before) - 1"
    )


def test_timm_that_fails_to_import_can_be_imported_later() -> None:
    passes(
        "import sys, convit; sys.modules['timm.layers'] = None\n"
        "try:\n    import timm\nexcept ImportError:\n    pass\nelse:\n    raise SystemExit('it should fail')\n"
        f"del sys.modules['timm.layers']; import timm; assert {OURS}"
    )


def test_timm_lists_them_beside_its_own() -> None:
    passes(
        "import convit, timm; names = timm.list_models(module='convit'); assert set(convit.list_models()) < set(names)"
    )
