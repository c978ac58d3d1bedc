"""An experiment from its settings to its report, with runs that :mod:`tests.experiments.made_cell` makes."""

import csv
import json
import os
import shutil
import signal
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from convit.errors import InputError
from convit.events import Said
from convit.experiments import folder as folder_module
from convit.experiments import grid
from convit.experiments.grid import Standing, StoppedGrid
from convit.experiments.run import Outcome, run_experiment
from convit.experiments.settings import Name, Settings
from convit.experiments.studies import STUDIES
from tests.cli.command import photos
from tests.experiments.made import MICRO, PROGRAM, save_classifier

GRIDS: dict[str, tuple[dict[str, Any], int, set[str]]] = {
    "sample-efficiency": ({"fractions": (0.5, 1.0)}, 4, {"accuracy", "curves"}),
    "ablation": ({"rows": ("a", "e", "psa")}, 3, {"curves", "gating"}),
    "locality": ({"layers": (0, 2), "strengths": (0.1, 1.0)}, 3, {"locality"}),
    "masking": ({"layers": (1, 3)}, 2, set()),
    "dynamics": ({}, 2, {"non_locality_convit", "non_locality_twin", "gates"}),
    "distillation": ({"teacher": "resnet18"}, 4, {"non_locality_convit", "non_locality_convit_distilled"}),
    "models": ({}, 2, set()),
    "design": ({"rows": ("as-it-is", "twin"), "fractions": (1.0,)}, 2, {"differences"}),
    "small-data": ({"rows": ("convit", "cnn"), "fractions": (1.0,)}, 2, {"minutes", "accuracy"}),
}
"""By study: settings, how many runs they are, and the names of the pictures."""


@pytest.fixture(scope="module")
def pets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return photos(tmp_path_factory.mktemp("made") / "pets", {"cat": 4, "dog": 4})


@pytest.fixture
def how(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Sets how the runs go; well, if nothing else is said."""
    monkeypatch.setattr(grid, "EVERY", 0.02)
    save_classifier(tmp_path / "model")

    def sets(word: str) -> None:
        monkeypatch.setattr(grid, "PROGRAM", (str(PROGRAM), str(tmp_path / "model"), word))

    sets("well")
    return sets


def settings(name: str, data: Path, **options: Any) -> Settings:
    return Settings(**{"name": name, "data": str(data), "models": (MICRO,), "seeds": (0,), **options})


def test_the_words_of_the_command_line_are_the_studies() -> None:
    assert typing.get_args(Name) == tuple(STUDIES) == tuple(GRIDS)


@pytest.mark.parametrize("name", GRIDS)
def test_report_of_each(name: str, pets: Path, tmp_path: Path, how: Callable[[str], None]) -> None:
    options, runs, pictures = GRIDS[name]
    asked, out, said = settings(name, pets, **options), tmp_path / "x", list[str]()

    def go() -> Outcome:
        return run_experiment(asked, out, tell=lambda event: said.append(getattr(event, "text", "")))

    outcome = go()
    assert f"{runs} runs" in said
    assert len(outcome.results) == runs == len(list((out / "runs").iterdir()))
    assert {file.stem for file in out.glob("*.png")} == pictures
    assert (out / "table.md").read_text() == outcome.markdown + "\n"
    assert ("italics" in outcome.markdown) == (name not in ("design", "small-data"))
    assert ("50 test images" in outcome.markdown) == (name != "design")
    assert "about ± 13.4 points" in outcome.markdown  # of 25 right of 50, by Wilson's formula
    said.clear()
    how("dying")  # nothing is made again
    assert go().markdown == outcome.markdown
    assert said[-1] == f"{runs} runs, {runs} of them complete before"
    assert not [line for line in said if "measuring" in line]


def test_results_as_json_and_csv(pets: Path, tmp_path: Path, how: Callable[[str], None]) -> None:
    options, _, _ = GRIDS["locality"]
    run_experiment(settings("locality", pets, lr=0.01, **options), tmp_path / "x")
    document = json.loads((tmp_path / "x/results.json").read_text())
    assert document["experiment"] == "locality"
    assert document["data"]["images"] == {"all": 8}
    assert document["settings"]["lr"] == 0.01
    twin, convit, _ = document["results"]
    assert (twin["labels"]["layers"], convit["labels"]["strength"], convit["config"]["lr"]) == (0, 0.1, 0.01)
    with (tmp_path / "x/results.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["label.variant"], row["label.strength"], row["config.lr"]) for row in rows] == [
        *(("twin", "", "0.01"), ("convit", "0.1", "0.01"), ("convit", "1.0", "0.01"))
    ]
    assert [float(row["top1"]) for row in rows] == [result["top1"] for result in document["results"]]
    assert {row["split"] for row in rows} == {"test"}


def test_each_cell_is_a_config_of_convit_train(pets: Path, tmp_path: Path, how: Callable[[str], None]) -> None:
    from convit.training.options import asked_from

    run_experiment(settings("sample-efficiency", pets, fractions=(0.5,), epochs=3), tmp_path / "x")
    asked = asked_from(tmp_path / "x/configs/micro_patch4_16-twin-fraction_0.5-seed_0.yaml", {})
    assert (asked.model, asked.local_up_to_layer, asked.fraction, asked.epochs) == (MICRO, 0, 0.5, 6)


def test_several_at_once(pets: Path, tmp_path: Path, how: Callable[[str], None]) -> None:
    one = run_experiment(settings("models", pets, seeds=(0, 1)), tmp_path / "one")
    two = run_experiment(settings("models", pets, seeds=(0, 1)), tmp_path / "two", jobs=4)
    assert two.markdown == one.markdown
    times = [json.loads((r.folder / "evaluation.json").read_text())["made"] for r in two.results]
    assert max(start for start, _ in times) < min(end for _, end in times) + 0.5  # they began together
    assert [result.name for result in two.results] == [result.name for result in one.results]


@pytest.mark.parametrize(
    ("word", "says"), [("badly", "lr: got one that is too large"), ("dying", "its process ended with status 7, see ")]
)
def test_runs_that_fail(word: str, says: str, pets: Path, tmp_path: Path, how: Callable[[str], None]) -> None:
    how(word)
    with pytest.raises(InputError, match="2 of 2 runs failed, so there is no table; the first, micro_") as error:
        run_experiment(settings("models", pets), tmp_path / "x")
    assert says in str(error.value)
    assert not (tmp_path / "x/table.md").exists()
    assert ("a warning" in (tmp_path / "x/log.txt").read_text()) == (word == "badly")
    how("well")
    assert "| micro_patch4_16, ConViT |" in run_experiment(settings("models", pets), tmp_path / "x").markdown


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_stopped(signum: int, pets: Path, tmp_path: Path, how: Callable[[str], None]) -> None:
    out, parts = tmp_path / "x", list[float]()

    def stop_after_an_epoch(event: Said | Standing) -> None:
        if isinstance(event, Standing) and sum(event.running.values()) == 1:
            os.kill(os.getpid(), signum)

    def go_on(event: Said | Standing) -> None:
        parts.extend(event.running.values() if isinstance(event, Standing) else ())

    how("waiting")
    with pytest.raises(StoppedGrid) as stopped:
        run_experiment(settings("models", pets), out, jobs=2, tell=stop_after_an_epoch)
    assert stopped.value.signum == signum
    assert [len(file.read_text().splitlines()) for file in out.glob("runs/*/metrics.jsonl")] == [1, 1]
    assert not (out / "table.md").exists()
    how("well")
    again = run_experiment(settings("models", pets), out, tell=go_on)
    assert all(0.5 <= part <= 1 for part in parts[:1])  # they go on from where they were
    assert again.markdown == run_experiment(settings("models", pets), tmp_path / "y").markdown


def test_refuses_to_mix(pets: Path, tmp_path: Path, how: Callable[[str], None]) -> None:
    out = tmp_path / "x"
    run_experiment(settings("models", pets, epochs=10), out)
    for asked, says in (
        (settings("dynamics", pets, epochs=10), "its experiment is models, got dynamics"),
        (settings("models", pets, epochs=12), "its settings epochs is 10, got 12"),
        (settings("models", pets, epochs=10, batch_size=4), "its settings batch-size is None, got 4"),
    ):
        with pytest.raises(InputError, match=says) as error:
            run_experiment(asked, out)
        assert "--overwrite" in str(error.value)
    document = json.loads((out / "experiment.json").read_text())
    (out / "experiment.json").write_text(json.dumps(document | {"code": {**document["code"], "torch": "0.1"}}))
    with pytest.raises(InputError, match=r"its code torch is 0\.1, got "):
        run_experiment(settings("models", pets, epochs=10), out)
    (out / "experiment.json").write_text("[")
    with pytest.raises(InputError, match=r"experiment\.json: not readable"):
        run_experiment(settings("models", pets, epochs=10), out)


def test_refuses_other_images(pets: Path, tmp_path: Path, how: Callable[[str], None]) -> None:
    data = Path(shutil.copytree(pets, tmp_path / "data"))
    run_experiment(settings("models", data), tmp_path / "x")
    (data / "cat/0.png").write_bytes((data / "cat/0.png").read_bytes() + b"\0")
    with pytest.raises(InputError, match="its data fingerprint is"):
        run_experiment(settings("models", data), tmp_path / "x")


def test_refuses_a_cell_of_other_options(pets: Path, tmp_path: Path, how: Callable[[str], None]) -> None:
    asked, name = settings("models", pets, epochs=10), "micro_patch4_16-convit-seed_0"
    run_experiment(asked, tmp_path / "x")
    config = tmp_path / f"x/configs/{name}.yaml"
    config.write_text(config.read_text().replace("epochs: 10", "epochs: 9").replace("workers: null", "workers: 1"))
    with pytest.raises(InputError, match=f"{name}: its epochs is 9, got 10; .* delete it"):
        run_experiment(asked, tmp_path / "x")
    shutil.rmtree(tmp_path / "x/runs" / name)
    assert run_experiment(asked, tmp_path / "x").results


def test_overwrite_leaves_what_is_not_ours(pets: Path, tmp_path: Path, how: Callable[[str], None]) -> None:
    out = tmp_path / "x"
    run_experiment(settings("sample-efficiency", pets, fractions=(1.0,)), out)
    (out / "notes.txt").write_text("mine")
    run_experiment(settings("models", pets), out, overwrite=True)
    assert (out / "notes.txt").read_text() == "mine"
    assert not list(out.glob("*.png"))
    assert len(list((out / "runs").iterdir())) == 2


def test_folder_of_something_else(pets: Path, tmp_path: Path, how: Callable[[str], None]) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x/holiday.jpg").touch()
    for overwrite in (False, True):
        with pytest.raises(InputError, match="exists and is no experiment"):
            run_experiment(settings("models", pets), tmp_path / "x", overwrite=overwrite)
    assert "holiday.jpg" in os.listdir(tmp_path / "x")
    with pytest.raises(InputError, match="lies among the images"):
        run_experiment(settings("models", pets), pets / "x")


def test_one_at_a_time(pets: Path, tmp_path: Path, how: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_module, "WAIT", 0.1)
    asked = settings("models", pets)

    def once_more(event: Said | Standing) -> None:
        with pytest.raises(InputError, match=r"another process .* makes an experiment in"):
            run_experiment(asked, tmp_path / "x")

    assert run_experiment(asked, tmp_path / "x", tell=once_more).results


def test_skip_bad_is_of_files_that_are_missing_too(pets: Path, tmp_path: Path, how: Callable[[str], None]) -> None:
    names = [f"{kind}/{i}.png" for kind in ("cat", "dog") for i in range(4)]
    table = tmp_path / "list.csv"
    table.write_text("path,label\n" + "".join(f"{pets / name},{name[:3]}\n" for name in (*names, "dog/gone.png")))
    with pytest.raises(InputError, match=r"gone\.png"):
        run_experiment(settings("models", table), tmp_path / "x")
    run_experiment(settings("models", table, skip_bad=True), tmp_path / "x")
    assert json.loads((tmp_path / "x/experiment.json").read_text())["data"]["images"] == {"all": 9}
