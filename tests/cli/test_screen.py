"""What a run tells, as a person sees it: lines in a pipe, a bar on a terminal."""

import io
import os

import pytest

from convit.cli.console import Console
from convit.cli.experiment import GridScreen
from convit.cli.screen import Screen
from convit.events import Advanced, EpochEnded, PassBegan, Said

RECORD = {
    "epoch": 2,
    "train_loss": 1.25,
    "val_loss": 1.5,
    "val_images": 8,
    "val_top1": 62.5,
    "images_per_second": 1234.5,
}


def test_lines_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    with Screen() as screen:
        for event in (Said("[bold]a[/bold] " + "x" * 200), PassBegan("epoch 2", 8), Advanced(4, 1.25), Advanced(4)):
            screen(event)
        screen(EpochEnded(RECORD, 10))
        screen(EpochEnded({**RECORD, "val_top5": 100.0}, 10))
    got = capsys.readouterr()
    assert got.err == ""
    assert got.out.splitlines() == [
        "[bold]a[/bold] " + "x" * 200,
        "epoch  2/10  loss 1.250 (val 1.500)  top-1  62.5% (30.6 to 86.3)  1,234 images/s",
        "epoch  2/10  loss 1.250 (val 1.500)  top-1  62.5% (30.6 to 86.3)  top-5 100.0%  1,234 images/s",
    ]


def test_results_stay_alone_on_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    with Screen(stderr=True) as screen:
        screen(Said("a note"))
    assert capsys.readouterr() == ("", "a note\n")


@pytest.mark.parametrize("kind", [Screen, GridScreen])
@pytest.mark.parametrize("how", ["a closed pipe", "a full disk"])
def test_work_goes_on_without_a_screen(
    kind: type[Screen | GridScreen], how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if how == "a closed pipe":
        reader, writer = os.pipe()
        os.close(reader)
    else:
        writer = os.open("/dev/full", os.O_WRONLY)
    with os.fdopen(writer, "w") as stream:
        monkeypatch.setattr("sys.stdout", stream)
        monkeypatch.setattr("sys.stderr", stream)
        with kind() as screen:
            for _ in range(3):
                screen(Said("nobody reads this"))
        stream.flush()


def test_a_bar_on_a_terminal() -> None:
    drawn = io.StringIO()
    screen = Screen()
    screen.console = screen.bar.live.console = Console(file=drawn, force_terminal=True, width=120, color_system=None)
    screen.bar.disable = False
    with screen:
        screen(PassBegan("checking [x] images", 8, done=2))
        screen(Advanced(4, 0.5))
        screen.bar.refresh()
        assert "checking [x] images" in drawn.getvalue()
        assert "6/8" in drawn.getvalue()
        assert "loss 0.500" in drawn.getvalue()
        screen(PassBegan("the next", 3))
        assert [task.description for task in screen.bar.tasks] == ["the next"]
    assert screen.bar.tasks == []
