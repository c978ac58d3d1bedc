"""The markup of pages that need no other file: templates filled with parts, under a policy that forbids requests.

Names of classes and files come from users, and a page may be sent on: :func:`text` is the one way into its markup.
"""

import base64
import hashlib
import html
import io
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files as resources

from PIL import Image

from convit.files import printable

COARSE = 64
"""Pictures up to this side are shown as they are, pixel by pixel."""


def part(name: str) -> str:
    """The text of a file of ``pages/``, such as ``report/page.css``."""
    return resources("convit.pages").joinpath(*name.split("/")).read_text(encoding="utf-8")


def document(
    title: str, styles: Sequence[str], body: str, script: str = "", more: Mapping[str, str] | None = None
) -> str:
    """A whole HTML document.

    Args:
        title: of the window, as markup.
        styles: names of files of ``pages/``; they become one style, after the colours that all pages have in common.
        body: its markup, the ``script`` in it.
        script: the one script that the policy allows; empty for none.
        more: what it may do besides, as for :func:`policy`.
    """
    style = "\n".join(map(part, ("common/colours.css", *styles)))
    parts = {"title": title, "policy": policy(style, script, more), "style": style, "body": body.rstrip("\n")}
    return filled(part("common/document.html"), parts)


def filled(template: str, parts: Mapping[str, str]) -> str:
    """The template with every ``{{name}}`` replaced by the part of this name; parts are not looked into."""
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], template)


def policy(style: str, script: str = "", more: Mapping[str, str] | None = None) -> str:
    """The content security policy (CSP) of a page: pictures that it contains, and no request.

    Args:
        style: the one style that may be in it.
        script: the one script; empty for none.
        more: what it may do besides, by directive: ``{"img-src": "blob:"}``.
    """
    rules = {"default-src": "'none'", "img-src": "data:", "style-src": _hash(style)}
    rules |= {"script-src": _hash(script)} if script else {}
    rules |= {"base-uri": "'none'", "form-action": "'none'"}
    for name, value in (more or {}).items():
        rules[name] = f"{rules[name]} {value}" if name in rules else value
    return "; ".join(f"{name} {value}" for name, value in rules.items())


def text(value: object) -> str:
    r"""A text from a user as it stands in markup, as itself; control characters and what is no text as their escapes.

    >>> text('<b>a & "b"\x1b')
    '&lt;b&gt;a &amp; &quot;b&quot;\\x1b'
    """
    return html.escape(printable(str(value)))


def picture_uri(picture: Image.Image, kind: str = "PNG", quality: int = 75) -> str:
    """A picture as an address that contains it; ``kind`` is Pillow's name of the format, PNG or JPEG."""
    buffer = io.BytesIO()
    picture.save(buffer, kind, quality=quality)  # which PNG takes no notice of
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def thumbnail_uri(picture: Image.Image, side: int) -> tuple[str, bool]:
    """A small picture as an address that contains it, and whether a page has to show it pixel by pixel.

    Args:
        picture: of any size; of up to :data:`COARSE` pixels a side it stays as it is.
        side: of a larger one, the pixels of the longer side at most.
    """
    if max(picture.size) <= COARSE:
        return picture_uri(picture), True
    ratio = min(1.0, side / max(picture.size))
    width, height = (max(1, round(length * ratio)) for length in picture.size)
    small = picture.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=2.0)
    return picture_uri(small, "JPEG", quality=80), False


def _hash(code: str) -> str:
    """How a policy names the one script, or style, that may be in the page."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(code.encode('utf-8')).digest()).decode('ascii')}'"
