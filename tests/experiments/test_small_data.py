"""Models at equal minutes: lengths of runs by hand from given costs; and the study from end to end."""

import json
from pathlib import Path

import pytest

from convit.errors import InputError
from convit.experiments.costs import Cost, at_equal_minutes, costs, whole_epochs
from convit.experiments.settings import Settings
from convit.training.options import Asked
from tests.cli.command import Shell
from tests.experiments.made import MICRO


def cost(times_convit: float, convit_epochs: int = 10, images: int = 1000) -> Cost:
    return Cost(
        milliseconds=times_convit,
        convit_milliseconds=1.0,
        times_convit=times_convit,
        convit_epochs=convit_epochs,
        images=images,
        batch_size=32,
        lr=1.4e-3,
        augmentation={"rand_augment": "", "mixup": 0.0, "cutmix": 0.0, "mix_prob": 0.0},
        machine="",
    )


@pytest.mark.parametrize(
    ("times", "epochs", "part"), [(1.0, 10, 1.0), (0.8, 12, 1.0), (3.0, 3, 1.0), (10.0, 1, 1.0), (40.0, 1, 0.25)]
)
def test_as_many_epochs_as_take_as_long(times: float, epochs: int, part: float) -> None:
    assert whole_epochs(cost(times).epochs) == (epochs, part)


def test_the_options_of_a_rival() -> None:
    asked = Asked(data="d", epochs=10, fraction=0.5)
    made = at_equal_minutes(asked, cost(0.5), 2.0)
    assert (made.epochs, made.fraction, made.batch_size, made.lr) == (20, 0.5, 32, 2.8e-3)
    made = at_equal_minutes(asked, cost(40.0), 1.0)  # a quarter of its images, once
    assert (made.epochs, made.fraction) == (1, 0.125)
    made = at_equal_minutes(asked, cost(1000.0), 1.0)
    assert made.fraction == 0.5 * 2 * 32 / 1000  # two batches
    assert at_equal_minutes(Asked(data="d"), cost(1.0), 1.0).fraction is None


def test_damaged_costs(tmp_path: Path) -> None:
    asked = Settings(
        name="small-data", data="digits", models=(MICRO,), seeds=(0,), fractions=(1.0,), rows=("convit",), rates=(1.0,)
    )
    (tmp_path / "costs.json").write_text(json.dumps({f"{MICRO}, fraction 1: convit": {"milliseconds": 1}}))
    with pytest.raises(InputError, match=r"costs\.json: not readable .*; delete it to measure again"):
        costs(asked, tmp_path, lambda said: None)


def test_the_study_on_the_digits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shell, out = Shell(capsys, monkeypatch), tmp_path / "x"
    command = ("experiment", "small-data", "digits", "--out", out, "--models", "convit_nano_patch4_16")
    command += ("--image-size", 8, "--classes", 2, "--fractions", 0.2, "--epochs", 1, "--batch-size", 8, "--seeds", 0)
    command += ("--workers", 0, "--rows", "convit", "cnn", "--jobs", 2)
    got = shell(*command)
    assert got.status == 0, got
    assert "measuring a training step of convit, cnn (8 images)" in got.err
    assert "20%: cnn takes " in got.err
    assert "| 20% of each class | parameters |" in got.out
    for name in ("minutes.png", "accuracy.png", "table.md", "results.csv"):
        assert (out / name).is_file()

    convit, cnn = json.loads((out / "results.json").read_text())["results"]
    of_cnn = json.loads((out / "costs.json").read_text())["convit_nano_patch4_16, fraction 0.2: cnn"]
    assert convit["epochs"] == of_cnn["convit_epochs"] == 5
    assert cnn["epochs"] == max(1, round(5 / of_cnn["times_convit"]))
    assert (cnn["parameters"], cnn["config"]["model"]) == (307_618, "cnn")  # of two classes
    assert cnn["flops"] < 48e6 / 15  # of a 16th of the pixels
    assert cnn["shown"] % (cnn["epochs"] * 8) == 0
    assert (convit["split"], cnn["split"], convit["config"]["lr"]) == ("test", "test", cnn["config"]["lr"])
    assert "of it: " not in (out / "log.txt").read_text()

    again = shell(*command)
    assert (again.status, again.out) == (0, got.out)
    assert "measuring" not in again.err
    assert "2 runs, 2 of them complete before" in again.err
    shell.refuses(*command, "--rates", 1, 2, says=("its settings skip-test is False, got True", "another --out"))
