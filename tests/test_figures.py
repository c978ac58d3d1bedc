"""What all pictures share: saved whole or not at all, and the lines of a run's history put together."""

import io
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest
from PIL import Image

from convit import figures
from convit.errors import InputError


def figure() -> figures.Picture:
    made, (axes,) = figures.new_figure(2, 1)
    figures.label(axes, "a title", "x", "y")
    return made


def test_saved_in_the_format_of_the_suffix(tmp_path: Path) -> None:
    figures.save(figure(), tmp_path / "a.png")
    figures.save(figure(), str(tmp_path / "b.pdf"))
    assert Image.open(tmp_path / "a.png").size == (2 * figures.DPI, figures.DPI)
    assert (tmp_path / "b.pdf").read_bytes().startswith(b"%PDF")
    assert {path.name for path in tmp_path.iterdir()} == {"a.png", "b.pdf"}


def test_a_notebook_shows_it() -> None:
    made, _ = figures.new_figure(2, 1)
    assert Image.open(io.BytesIO(made._repr_png_())).size == (2 * figures.DPI, figures.DPI)


def test_a_failed_picture_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures.save(figure(), tmp_path / "a.png")
    before = (tmp_path / "a.png").read_bytes()

    def half(self: Any, stream: IO[bytes], **_: Any) -> None:
        stream.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(figures.Picture, "savefig", half)
    with pytest.raises(OSError, match="No space"):
        figures.save(figure(), tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_epochs_without_the_value_are_left_out() -> None:
    history = [{"epoch": 3}, {"epoch": 4, "gates": []}, {"epoch": 5, "gates": [[0.5, 0.25]]}]
    epochs, values = figures.by_epoch(history, "gates", "")
    assert epochs == [5]
    np.testing.assert_array_equal(values, [[[0.5, 0.25]]])


@pytest.mark.parametrize(
    ("history", "message"),
    [
        ([], "got 0 epochs without gates, expected some with it; train one"),
        ([{"epoch": 1}, {"epoch": 2}], "got 2 epochs without gates, expected some with it; train one"),
        ([{"epoch": 1, "gates": [[1], [1, 2]]}], "do not fit together"),
        ([{"epoch": 1, "gates": [[1]]}, {"epoch": 2, "gates": [[1], [1]]}], "do not fit together"),
        ([{"gates": [[1]]}], "do not fit together"),
        ([{"epoch": 1, "gates": [["a"]]}], "do not fit together"),
        ([{"epoch": 1, "gates": [1, 2]}], r"of shape \(2,\) in each epoch, expected \(layers, heads\)"),
    ],
)
def test_no_history_to_draw(history: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(InputError, match=f"history: .*{message}"):
        figures.by_epoch(history, "gates", "train one")
