"""Pages that are one HTML file: their parts, and the document made of them.

``attention/`` is the view of pictures and what every head looks at; ``convit inspect`` fills it with values that were
computed. ``classifier/`` is the model in JavaScript, which fills the same view in the browser. ``report/`` and
``check/`` are the pages of a training and of ``convit check``, which have no script. ``common/`` is in all of them.

A page makes no requests: its policy (CSP) forbids every request, and every script and style but its own.
"""

import html
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from convit.pages import markup
from convit.pages.markup import filled, part

BODY = "attention/body.html"
"""What the pages with a view of heads have in common."""
NOT_LETTERS = tuple(b"\0\n\r<")
"""Characters that :func:`letters` avoids: NUL is replaced by browsers, ends of lines by them and by programs that copy
texts, and ``<`` could end the element."""
_AT_ONCE = 7 << 16
"""Bytes; seven are eight characters."""


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
    """A page with the view of pictures and heads, a whole HTML document.

    Args:
        title: shown as plain text, whatever is in it.
        scripts, styles: names of files in this folder, such as ``attention/values.js``; they become one script and one
            style.
        data: JSON values that the script finds in the element ``data``.
        intro: name of the file with what stands above the view.
        payload: elements with more data, such as maps or weights.
        policy: what the page may do besides, as directives of its policy: ``{"img-src": "blob:"}``.
    """
    script = "\n".join(map(part, scripts))
    title = html.escape(title.encode("utf-8", "replace").decode("utf-8"))  # a file's name may not be Unicode
    parts = {"intro": part(intro), "data": json_text(data), "payload": payload, "script": script}
    return markup.document(title, styles, filled(part(BODY), parts), script, policy)


def json_text(value: Any) -> str:
    """JSON that is ASCII and cannot end the script element that holds it."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def data_element(name: str, content: bytes) -> str:
    """An element with the id ``name`` that holds bytes as :func:`letters`; a browser does not run it."""
    return f'<script type="application/octet-stream" id="{name}">{letters(content)}</script>'


def letters(content: bytes) -> str:
    r"""Bytes as a text with seven of their bits in each character; base64 has six.

    The first bits are in the first character, and the last is filled up with zeros. A value that a browser would not
    give back as it is, or that could end the element, is 128 more: a reader takes the lowest seven bits of each.

    >>> letters(b"\xff\x00\x01")
    '\x7f@\x80\x10'
    """
    return "".join(_letters(content[at : at + _AT_ONCE]) for at in range(0, len(content), _AT_ONCE))


def _letters(content: bytes) -> str:
    bits = np.unpackbits(np.frombuffer(content, np.uint8))
    rows = np.pad(bits, (0, -len(bits) % 7)).reshape(-1, 7)
    seven = np.packbits(np.pad(rows, ((0, 0), (1, 0))), axis=1)
    return (seven + 128 * np.isin(seven, NOT_LETTERS).astype(np.uint8)).tobytes().decode("latin-1")
