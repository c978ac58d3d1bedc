"""Pages that are one HTML file: their parts, and the document made of them.

``attention/`` is the view of pictures and what every head looks at; ``convit inspect`` fills it with values that were
computed. ``classifier/`` is the model in JavaScript, which fills the same view in the browser.

A page makes no requests: its policy (CSP) forbids every request, and every script and style but its own.
"""

import base64
import hashlib
import html
import json
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files as resources
from typing import Any

SHELL = "attention/page.html"
"""The document that all pages have in common."""


def document(
    *,
    title: str,
    scripts: Sequence[str],
    styles: Sequence[str],
    data: Any,
    intro: str,
    payload: str,
    policy: Mapping[str, str] | None = None,
) -> str:
    """A whole HTML document.

    Args:
        title: shown as plain text, whatever is in it.
        scripts, styles: names of files in this folder, such as ``attention/values.js``; they become one script and one
            style.
        data: JSON values that the script finds in the element ``data``.
        intro: name of the file with what stands above the view.
        payload: elements with more data, such as maps or weights.
        policy: what the page may do besides, as directives of its policy: ``{"img-src": "blob:"}``.
    """
    style, script = "\n".join(map(part, styles)), "\n".join(map(part, scripts))
    rules = {
        "default-src": "'none'",
        "img-src": "data:",
        "style-src": _hash(style),
        "script-src": _hash(script),
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    for name, more in (policy or {}).items():
        rules[name] = f"{rules[name]} {more}" if name in rules else more
    parts = {
        "title": html.escape(title.encode("utf-8", "replace").decode("utf-8")),  # a file's name may not be Unicode
        "policy": "; ".join(f"{name} {value}" for name, value in rules.items()),
        "style": style,
        "intro": part(intro),
        "data": json_text(data),
        "payload": payload,
        "script": script,
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], part(SHELL))


def part(name: str) -> str:
    """The text of a file of this folder."""
    return resources("convit.pages").joinpath(*name.split("/")).read_text(encoding="utf-8")


def json_text(value: Any) -> str:
    """JSON that is ASCII and cannot end the script element that holds it."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def data_element(name: str, content: bytes) -> str:
    """An element with the id ``name`` that holds bytes in base64; a browser does not run it."""
    return f'<script type="application/octet-stream" id="{name}">{base64.b64encode(content).decode("ascii")}</script>'


def _hash(text: str) -> str:
    """How a policy names the one script, or style, that may be in the page."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode('utf-8')).digest()).decode('ascii')}'"
