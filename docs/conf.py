"""How Sphinx makes the site of this folder: ``make docs``."""

import importlib.metadata
import re
from pathlib import Path

from sphinx.application import Sphinx

project = "ConViT made practical"
author = "the authors of convit"
release = importlib.metadata.version("convit")
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["results/**/*.md"]
html_theme = "furo"
html_title = project
myst_heading_anchors = 4
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
python_use_unqualified_type_names = True
napoleon_use_rtype = False

_HERE = Path(__file__).parent
_OUTSIDE = re.compile(r"(?<!!)\[([^\]]+)\]\((?!https?:|#)(?:\.\./|results/|(?!docs/)[\w.]+/|[A-Z]+\.)[^)]*\)")
"""A link to a file or folder that the site does not have."""


def _prepared(app: Sphinx, name: str, content: list[str]) -> None:
    """Begins with the README, whose links are seen from its own folder, and leaves out links to what is not here."""
    if name == "index":
        readme = (_HERE.parent / "README.md").read_text(encoding="utf-8")
        content[0] = f"{readme}\n{content[0]}"
    content[0] = _OUTSIDE.sub(r"\1", content[0]).replace("](docs/", "](")


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("source-read", _prepared)
