"""The markup of a page that needs no other file: a template filled with parts, under a policy that forbids requests.

Names of classes and files come from users, and a page may be sent on: :func:`text` is the one way into its markup.
"""

import base64
import hashlib
import html
import io
import re
from collections.abc import Mapping
from importlib.resources import files as resources

from PIL import Image

from convit.files import printable


def part(name: str) -> str:
    """A file of ``report_page/``, as text."""
    return (resources("convit.training") / "report_page" / name).read_text(encoding="utf-8")


def filled(template: str, parts: Mapping[str, str]) -> str:
    """The template with every ``{{name}}`` replaced by the part of this name; parts are not looked into."""
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], template)


def policy(style: str) -> str:
    """The content security policy of a page: pictures that it contains and this one style, no script, no request."""
    code = base64.b64encode(hashlib.sha256(style.encode("utf-8")).digest()).decode("ascii")
    return f"default-src 'none'; img-src data:; style-src 'sha256-{code}'; base-uri 'none'; form-action 'none'"


def text(value: object) -> str:
    r"""A text from a user as it stands in markup, as itself; control characters and what is no text as their escapes.

    >>> text('<b>a & "b"\x1b')
    '&lt;b&gt;a &amp; &quot;b&quot;\\x1b'
    """
    return html.escape(printable(str(value)))


def picture_uri(picture: Image.Image, kind: str = "PNG") -> str:
    """A picture as an address that contains it; ``kind`` is Pillow's name of the format, PNG or JPEG."""
    buffer = io.BytesIO()
    picture.save(buffer, kind)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
