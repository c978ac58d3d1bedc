"""Good values, documents, bytes and tensors, changed by seed into what nobody expects."""

import copy
import json
import math
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch


def deep(kind: Callable[[Any], Any], levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = kind(value)
    return value


ODD: list[Any] = [
    *(None, True, False, 0, -1, 1, 2, 3, 10**9, -(10**9), 2**31, 2**53, 2**63, 10**300, 10**4000),
    *(0.0, -0.5, 0.5, 1e-320, 1e-9, 1e300, -1e300, math.nan, math.inf, -math.inf),
    *("", "a", "0", "null", "x" * 5000, "a\nb", "\x1b[2J", "\x00", "é", "../../etc/passwd", "/", "~", "\udcff"),
    *([], {}, [[]], [{}], {"": 0}, {"a": {"b": {"c": []}}}, [1, 2, 3], ["a", "b"], [None] * 3, list(range(999))),
    *(deep(lambda v: [v], 80), deep(lambda v: {"a": v}, 80)),
]


def places(value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every value within a value."""
    yield above
    if isinstance(value, dict):
        for key in value:
            yield from places(value[key], (*above, key))
    elif isinstance(value, list):
        for i in range(min(len(value), 4)):
            yield from places(value[i], (*above, i))


def mutated(value: Any, draw: random.Random) -> Any:
    """One to three of its values changed, left out, doubled or moved."""
    value = copy.deepcopy(value)
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        ways = [place for place in places(value) if place]
        if not ways:
            return draw.choice(ODD)
        *path, last = draw.choice(ways)
        inner = value
        for step in path:
            inner = inner[step]
        how = draw.randrange(8)
        if how == 0:
            del inner[last]
        elif how == 1 and isinstance(inner, dict):
            inner[draw.choice(("unknown", "", "x\ny", "__class__"))] = inner[last]
        elif how == 2 and isinstance(inner, list):
            inner.insert(0, copy.deepcopy(inner[last]))
        elif how == 3 and isinstance(inner[last], int | float) and not isinstance(inner[last], bool):
            inner[last] = draw.choice((inner[last] * -1, inner[last] + 1, inner[last] * 1000, float(inner[last])))
        elif how == 4:
            inner[last] = draw.choice(([inner[last]], {"a": inner[last]}, str(inner[last])))
        elif how == 5 and isinstance(inner, dict) and len(inner) > 1:
            other = draw.choice(list(inner))
            inner[last], inner[other] = inner[other], inner[last]
        else:
            inner[last] = copy.deepcopy(draw.choice(ODD))
    return value


def as_json(value: Any) -> bytes:
    sys.set_int_max_str_digits(0)
    try:
        return json.dumps(value).encode()
    finally:
        sys.set_int_max_str_digits(4300)


def damaged(content: bytes, draw: random.Random) -> bytes:
    """Bytes flipped, cut, doubled, in another encoding, or others altogether."""
    at = draw.randrange(len(content) + 1)
    how = draw.randrange(9)
    if how == 0:
        return content[:at]
    if how == 1:
        return content[:at] + content[at + draw.randrange(1, 9) :]
    if how == 2:
        return content + content[at:]
    if how == 3:
        return content[:at] + draw.randbytes(draw.randrange(1, 9)) + content[at:]
    if how == 4:
        return content.decode("utf-8", "replace").encode(draw.choice(("utf-16", "utf-32", "utf-8-sig", "utf-7")))
    if how == 5:
        return draw.choice((b"", b"\0" * 99, b"\xff" * 99, b"PK\x03\x04", b"[" * 10**5, b'{"a":' * 10**5, b"\x80\x02."))
    flipped = bytearray(content)
    for _ in range(draw.choice((1, 1, 8, 64))):
        flipped[draw.randrange(len(flipped))] ^= 1 << draw.randrange(8)
    return bytes(flipped)


def changed_json(content: bytes, draw: random.Random) -> bytes:
    """A JSON document with other values in it, a name twice, or as bytes."""
    how = draw.randrange(8)
    if how == 0:
        return damaged(content, draw)
    if how == 1:
        text = content.decode()
        at = text.index('"')
        return (text[:at] + text[at : text.index(":")] + ":1," + text[at:]).encode()
    return as_json(mutated(json.loads(content), draw))


def odd_tensor(tensor: torch.Tensor, draw: random.Random) -> Any:
    flat = tensor.reshape(-1)
    return draw.choice(
        (
            lambda: tensor.to(draw.choice((torch.int8, torch.bool, torch.complex64, torch.float16, torch.float64))),
            lambda: flat[: len(flat) // 2].clone(),
            lambda: flat[:0].clone(),
            lambda: flat[:1].clone().expand(10**9),
            lambda: torch.full_like(tensor, draw.choice((math.nan, math.inf, 1e38))),
            lambda: tensor.to("meta"),
            lambda: tensor.to_sparse(),
            lambda: torch.quantize_per_tensor(tensor.float(), 0.1, 0, torch.qint8),
            lambda: torch.nested.nested_tensor([flat, flat[:1]]),
            lambda: flat.unsqueeze(0),
            lambda: torch.tensor(1.0),
            lambda: draw.choice(ODD[:40]),
            lambda: [tensor],
            lambda: np.float64(3),
        )
    )()


def is_ordinary(value: Any) -> bool:
    """Whether it is a tensor that can be made into another, and that safetensors can write."""
    odd = not isinstance(value, torch.Tensor) or value.is_nested or value.is_quantized or value.is_meta
    return not odd and value.layout == torch.strided and value.is_contiguous() and value.numel() > 0


def odd_weights(file: Path, draw: random.Random) -> dict[Any, Any]:
    """The tensors of a file of weights, some of them changed or under other names."""
    weights: dict[Any, Any] = dict(safetensors.torch.load_file(file))
    for _ in range(draw.choice((0, 1, 1, 2, 20))):
        name = draw.choice(list(weights))
        if draw.random() < 0.2:
            weights[draw.choice(("unknown", "", "two\nlines", 3, None))] = weights.pop(name)
        elif is_ordinary(weights[name]):
            weights[name] = odd_tensor(weights[name], draw)
    return weights
