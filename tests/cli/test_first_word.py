"""What is answered before PyTorch is imported: the list of models; names, paths or a network that are not there."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from convit.hub import PATIENCE
from tests.cli.command import WITHOUT, photos


def said(folder: Path, *words: str, **environment: str) -> tuple[int, str, str]:
    """Exit status, standard output and error of a command that does without PyTorch, begun in a folder."""
    code = [sys.executable, "-c", WITHOUT, "torch timm torchvision matplotlib", *words]
    done = subprocess.run(
        code, cwd=folder, env=os.environ | environment, capture_output=True, text=True, check=False, timeout=120
    )
    return done.returncode, done.stdout, done.stderr


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images, one picture, and two folders that lack something of a run."""
    root = tmp_path_factory.mktemp("first_word")
    photos(root / "animals", {"ape": 2, "bee": 2})
    (root / "empty").mkdir()
    (root / "half").mkdir()
    (root / "half/config.json").write_text("{}")
    (root / "run").mkdir()
    for name in ("config.json", "model.safetensors"):
        (root / "run" / name).write_text("{}")
    return root


NO_RUN = "no such folder; expected a run folder of 'convit train'"
NO_DATA = "'anmals': no such folder or data set; did you mean 'animals'?; expected a folder of images, "
NO_MODEL = "model: got 'convit_nona_patch4_32', expected a name that 'convit models' lists; did you mean 'convit_nano_"
NOT_THERE = [
    ("train anmals", NO_DATA),
    ("train digit", "'digit': no such folder or data set; did you mean 'digits'?; expected a folder of images, "),
    ("train animals --train trian", "train: no folder 'trian' in animals; expected one of those in it ('ape', 'bee')"),
    ("train digits --model convit_nona_patch4_32", NO_MODEL),
    ("train digits --model resnet18", "model: got 'resnet18', expected a name that 'convit models' lists; resnet18 is"),
    ("train digits --weights none.pth", "weights: no such file or folder none.pth; expected .safetensors, .pth, or"),
    ("train digits --teacher-weights none", "teacher-weights: no such file or folder none; expected .safetensors"),
    ("train --resume none", "resume: none: no such folder; expected the folder of a run that was begun"),
    ("train --resume empty", "resume: empty: no run in it; expected the folder of a run that was begun"),
    ("train digits --config none.yaml", "config: none.yaml: cannot be read"),
    ("train digits --pretrained --model convit_nano_patch4_32", "pretrained: no weights are published for convit_nano"),
    ("evaluate none digits", f"none: {NO_RUN}"),
    ("evaluate a/b digits", f"a/b: {NO_RUN}; hf:a/b would be a repository on the Hugging Face Hub"),
    ("evaluate half digits", "half: no model.safetensors in it; expected a run folder of 'convit train'"),
    ("evaluate hf:a digits", "repo_id: got 'a', expected 'owner/name'"),
    ("evaluate run anmals", NO_DATA),
    ("predict none animals", f"none: {NO_RUN}"),
    ("predict run none.png", "none.png: no such file or folder; expected a picture or a folder of pictures"),
    ("predict run empty", "empty: no picture in it; expected files that end like .jpg or .png"),
    ("predict none.onnx animals", "none.onnx: no such file or folder; expected a file of 'convit export'"),
    ("inspect empty", "empty: no config.json in it; expected a run folder of 'convit train'"),
    ("inspect run none.png", "none.png: no such file or folder; expected a picture or a folder of pictures"),
    ("inspect run --data anmals", NO_DATA),
    ("export none", f"none: {NO_RUN}"),
    ("export run --data anmals", NO_DATA),
    ("experiment locality anmals", NO_DATA),
    ("experiment locality digits --models convit_nona_patch4_32", NO_MODEL),
    ("bench convit_nona_patch4_32", NO_MODEL),
    ("bench --onnx none.onnx", "none.onnx: no such file or folder; expected a file of 'convit export'"),
]


@pytest.mark.parametrize(("words", "line"), NOT_THERE, ids=[words for words, _ in NOT_THERE])
def test_what_is_not_there(words: str, line: str, place: Path) -> None:
    status, out, err = said(place, *words.split())
    assert (status, out) == (2, ""), err
    assert err.startswith(f"convit {words.split()[0]}: {line}"), err
    assert len(err.splitlines()) == 1


def test_models(place: Path) -> None:
    status, out, err = said(place, "models", "--json")
    assert (status, err) == (0, "")
    assert len(json.loads(out)) == 22


# -- published weights without a network -----------------------------------------------------------------------------


@pytest.fixture(params=["refused", "silent"])
def no_hub(request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of a Hub where nobody listens, or somebody who never answers."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        if request.param == "silent":
            listening.listen()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def test_published_weights_without_a_network(no_hub: str, place: Path, tmp_path: Path) -> None:
    began = time.perf_counter()
    environment = {"HF_ENDPOINT": no_hub, "HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "0"}
    status, out, err = said(place, "train", "digits", "--pretrained", **environment)
    assert (status, out) == (2, "")
    assert err == (
        "convit train: pretrained: could not fetch timm/convit_tiny.fb_in1k from the Hugging Face Hub (the Hub was not "
        "reached, and it is not in the cache of downloads); expected "
        "https://huggingface.co/timm/convit_tiny.fb_in1k/resolve/main/model.safetensors from elsewhere, and --weights "
        "FILE --model convit_tiny_patch16_224 in place of --pretrained (in Python checkpoint_path=FILE)\n"
    )
    assert time.perf_counter() - began < PATIENCE + 15  # the client alone takes 23 s; the rest is for a loaded machine


@pytest.mark.parametrize(
    ("given", "expected"),
    [({}, "30000 None"), ({"GOMP_SPINCOUNT": "7"}, "7 None"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "None ACTIVE")],
)
def test_threads_do_not_hold_a_busy_processor(given: dict[str, str], expected: str) -> None:
    """Said before PyTorch is there, which reads it once; whoever has set how threads wait is left in peace."""
    names = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
    environment = {name: value for name, value in os.environ.items() if name not in names} | given
    code = f"""
import atexit, os, sys, convit_launcher
sys.argv = ["convit", "--version"]
atexit.register(lambda: print(*map(os.environ.get, {names}), "torch" in sys.modules))
convit_launcher.program()
"""
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == f"{expected} False"
