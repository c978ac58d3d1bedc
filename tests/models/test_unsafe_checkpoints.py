"""A file of weights is only read as tensors: code in it never runs, damage and other files are one line."""

import functools
import io
import os
import pickle
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest
import safetensors.torch
import torch

import convit
from convit import create_model, load_weights
from convit.models import checkpoints
from tests.helpers import refused, tiny_model
from tests.models.checkpoint_files import classifier, not_loaded, saved, training_state


class Call:
    """Runs a function when it is unpickled."""

    def __init__(self, function: Callable[..., object], *args: object) -> None:
        self.call = function, args

    def __reduce__(self) -> Any:
        return self.call


def nested(marker: Path) -> Call:
    """A pickle within a pickle, through one of PyTorch's own functions."""
    buffer = io.BytesIO()
    torch.save(Call(os.mkdir, str(marker)), buffer)
    return Call(torch.storage._load_from_bytes, buffer.getvalue())


PAYLOADS: dict[str, Callable[[Path], Any]] = {
    "mkdir": lambda marker: Call(os.mkdir, str(marker)),
    "system": lambda marker: Call(os.system, f"touch '{marker}'"),
    "eval": lambda marker: Call(eval, f"open({str(marker)!r}, 'w').close()"),
    "exec": lambda marker: Call(exec, f"import os; os.mkdir({str(marker)!r})"),
    "open": lambda marker: Call(open, str(marker), "w"),
    "getattr": lambda marker: Call(Path.touch, marker),
    "nested": nested,
}
PLACES: dict[str, Callable[[Any], Any]] = {
    "alone": lambda payload: payload,
    "among the weights": lambda payload: tiny_model().state_dict() | {"norm.bias": payload},
    "under model": lambda payload: {"model": tiny_model().state_dict() | {"x": payload}, **training_state()},
    "beside the weights": lambda payload: {"model": tiny_model().state_dict(), "epoch": payload},
    "in the arguments": lambda payload: {"model": tiny_model().state_dict(), "args": Namespace(lr=payload)},
    "deep": lambda payload: {"model": tiny_model().state_dict(), "optimizer": [({"state": [payload]},)]},
}
WRITERS: dict[str, Callable[[Any, Path], object]] = {
    "zip": torch.save,
    "legacy": lambda content, path: torch.save(content, path, _use_new_zipfile_serialization=False),
    "pickle": lambda content, path: path.write_bytes(pickle.dumps(content)),
    "pickle 2": lambda content, path: path.write_bytes(pickle.dumps(content, protocol=2)),
    "pickle 0": lambda content, path: path.write_bytes(pickle.dumps(content, protocol=0)),
}
CASES = [(payload, "among the weights", writer) for payload in PAYLOADS for writer in WRITERS]
CASES += [("mkdir", place, writer) for place in PLACES for writer in WRITERS]


@pytest.mark.parametrize(("payload", "place", "writer"), sorted(set(CASES)))
def test_code_in_a_file_never_runs(payload: str, place: str, writer: str, tmp_path: Path) -> None:
    marker, path = tmp_path / "marker", tmp_path / "weights.pth"
    WRITERS[writer](PLACES[place](PAYLOADS[payload](marker)), path)
    for options in ({}, {"partial": True}, {"new_head": True, "ema": False}):
        not_loaded(tiny_model(), path, "weights.pth: ", **options)
    message = refused(lambda: create_model("convit_micro_patch4_32", checkpoint_path=path), "weights.pth: ")
    if writer in ("zip", "legacy"):
        assert "refused, it carries code or objects" in message
    assert not marker.exists()
    try:  # the code is real: a reader that trusts the file runs it
        torch.load(path, weights_only=False)
    except (RuntimeError, pickle.UnpicklingError):
        assert writer.startswith("pickle")  # not PyTorch's, but what is in it has run by now
    assert marker.exists()


@pytest.mark.parametrize("writer", WRITERS)
def test_code_under_the_name_of_a_safe_format(writer: str, tmp_path: Path) -> None:
    marker, path = tmp_path / "marker", tmp_path / "model.safetensors"
    WRITERS[writer]({"model": Call(os.mkdir, str(marker))}, path)
    for name in (path, tmp_path):
        not_loaded(tiny_model(), name, "model.safetensors: not a whole .safetensors file")
    assert not marker.exists()


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (tiny_model(), "convit.models.convit.ConViT"),
        (torch.nn.ReLU(), "torch.nn.modules.activation.ReLU"),
        (Call(os.system, "true"), f"{os.name}.system"),
        (functools.partial(print, 3), "functools.partial"),
        (io.StringIO("a"), "_io.StringIO"),
    ],
    ids=["a model", "a layer", "a call", "partial", "a stream"],
)
def test_refused_by_the_name_of_what_it_is_or_calls(value: object, name: str, tmp_path: Path) -> None:
    for content in (value, {"model": value}, {"model": tiny_model().state_dict(), "ema": value}):
        path = saved(content, tmp_path / "a.pth")
        not_loaded(tiny_model(), path, "a.pth: ", f"it carries code or objects ({name}", "state_dict()")


# -- damaged files -----------------------------------------------------------------------------------------------------

LENGTHS = [0, 1, 2, 7, 8, 9, 64, 1000, 0.25, 0.5, 0.75, 0.99, -1000, -64, -8, -1]
WHOLE: dict[str, Callable[[Path], object]] = {
    "a.safetensors": lambda path: safetensors.torch.save_file(tiny_model().state_dict(), path),
    "zip.pth": lambda path: saved(tiny_model().state_dict(), path),
    "legacy.pth": lambda path: saved(tiny_model().state_dict(), path, _use_new_zipfile_serialization=False),
    "checkpoint.pth": lambda path: saved({"model": tiny_model().state_dict(), **training_state()}, path),
}


@pytest.mark.parametrize("name", WHOLE)
def test_a_truncated_file(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    WHOLE[name](path)
    content = path.read_bytes()
    load_weights(model := tiny_model(), path)
    for length in LENGTHS:
        end = int(length * len(content)) if isinstance(length, float) else length
        path.write_bytes(content[:end])
        for options in ({}, {"partial": True}):
            not_loaded(model, path, f"{name}: ", **options)


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin", ".pth.tar", ".safetensors", "", ".zip"])
@pytest.mark.parametrize(
    "content", [b"", b"weights\n", b"\0" * 999, b"PK\x03\x04" + b"\0" * 99, b"\x80\x02.", b"\xff" * 99, b"<html>\n" * 9]
)
def test_a_file_of_something_else(content: bytes, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"file{suffix}"
    path.write_bytes(content)
    not_loaded(tiny_model(), path, str(path), "expected" if suffix != ".safetensors" else "not a whole .safetensors")


NOT_WEIGHTS: dict[str, Any] = {
    "a list": [1, 2],
    "a tensor": torch.ones(3),
    "a number": 3,
    "nothing": None,
    "an empty dict": {},
    "arguments": Namespace(lr=1),
    "an optimiser": torch.optim.SGD(tiny_model().parameters(), lr=1).state_dict(),
    "weights two levels down": {"run": {"model": tiny_model().state_dict()}},
    "text among the weights": tiny_model().state_dict() | {"note": "text"},
    "an entry of two lines": {"two\nlines": 1},
    "an empty model": {"model": {}},
    "a model of numbers": {"model": {"norm.weight": 3}},
    "numbered tensors": {0: torch.ones(2), 1: torch.ones(2)},
}


@pytest.mark.parametrize("what", NOT_WEIGHTS)
def test_a_file_that_pytorch_saved_of_something_else(what: str, tmp_path: Path) -> None:
    not_loaded(tiny_model(), saved(NOT_WEIGHTS[what], tmp_path / "a.pth"), "a.pth: no weights in it", "expected")


def test_a_small_file_of_a_huge_tensor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tensor may repeat its bytes: a few of them in the file stand for terabytes, and resizing those never ends."""

    def endless(*args: Any, **kwargs: Any) -> NoReturn:
        raise SystemError("began to resize it")

    monkeypatch.setattr(checkpoints, "resample_abs_pos_embed", endless)
    positions = torch.zeros(1, 1, 36).expand(1, 10**10, 36)
    path = saved(tiny_model().state_dict() | {"pos_embed": positions}, tmp_path / "a.pth")
    assert path.stat().st_size < 10**6
    not_loaded(tiny_model(), path, "a.pth: ")


def test_no_file(tmp_path: Path) -> None:
    model = tiny_model()
    not_loaded(model, tmp_path / "none.pth", f"{tmp_path / 'none.pth'}: no such file")
    not_loaded(model, str(tmp_path / "none.safetensors"), "no such file")
    not_loaded(model, tmp_path, f"{tmp_path}: no model.safetensors in it", "run folder")
    (tmp_path / "model.safetensors").mkdir()
    not_loaded(model, tmp_path, "no model.safetensors in it")
    not_loaded(model, tmp_path / "model.safetensors", "no model.safetensors in it")
    (tmp_path / "dangling.pth").symlink_to(tmp_path / "gone")
    not_loaded(model, tmp_path / "dangling.pth", "no such file")
    not_loaded(model, "a\0b", "no such file")
    refused(lambda: create_model("convit_micro_patch4_32", checkpoint_path=tmp_path / "none.pth"), "no such file")


def test_a_name_that_is_too_long() -> None:
    not_loaded(tiny_model(), "x" * 5000)


def test_a_folder_whose_weights_are_another_models(tmp_path: Path) -> None:
    model = convit.create_model("convit_micro_patch4_32", num_classes=3)
    classifier(model, "convit_micro_patch4_32").save(tmp_path)
    not_loaded(tiny_model(), tmp_path, str(tmp_path), "the file: width 144, 4 blocks, 3 with positions")


def test_reading_leaves_nothing_allowed(tmp_path: Path) -> None:
    """What is allowed for one file, an ``argparse.Namespace``, is not allowed for the next reader."""
    path = saved({"model": tiny_model().state_dict(), **training_state()}, tmp_path / "a.pth")
    before = set(torch.serialization.get_safe_globals())
    load_weights(tiny_model(), path)
    assert set(torch.serialization.get_safe_globals()) == before
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)
