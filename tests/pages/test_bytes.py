"""Bytes in a page come out of it as they went in."""

import gzip
import random
from pathlib import Path

from convit.pages import NOT_LETTERS, letters
from tests.helpers import bytes_of
from tests.pages.node import needs_node, run


def contents() -> list[bytes]:
    """Of every length to 40, all bytes, and random ones."""
    some = random.Random(0)
    return [
        *(bytes(some.randbytes(length)) for length in range(41)),
        bytes(range(256)) * 7,
        b"<\r\n\0" * 99,
        random.Random(2).randbytes(1_000_003),
    ]


def test_letters_hold_what_was_put_in_and_no_mark_of_markup() -> None:
    for content in contents():
        text = letters(content)
        assert bytes_of(text) == content
        assert not set(text) & {chr(code) for code in NOT_LETTERS}
        assert len(text) == -(-8 * len(content) // 7)


def test_a_text_of_any_bytes_is_less_than_a_fifth_longer() -> None:
    content = random.Random(1).randbytes(100_000)
    assert len(letters(content).encode()) < 1.2 * len(content)


@needs_node
def test_a_page_reads_them(tmp_path: Path) -> None:
    texts = [letters(gzip.compress(content)) for content in contents()]
    code = "const out = []; for (const text of given.texts) out.push([...await unpacked(text)]); return out;"
    assert run(["attention/bytes.js"], code, tmp_path, {"texts": texts}) == [list(content) for content in contents()]
