"""Runs timm's own model tests on our models: ``python -m tests.timm_suite [NAME...]``, as ``make timm-tests`` does.

The tests come out of the source distribution of the timm that is installed. A test that is written for one named
model, ``'convit_tiny'``, is run on ours in its place. Published weights come from a cache made here, of weights drawn
in timm's own models, so no network but the package index is needed. Ends with a count for each test function; fails if
one that runs on timm's ConViT did not run on each of ours.
"""

import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from xml.etree import ElementTree

import safetensors.torch
import timm

import convit
from tests.hub import add_to_cache

ONE_MODEL = re.compile(r"(?<=')convit_tiny(?=')")
"""Where a test names timm's model itself."""


def fetch_tests(folder: Path) -> Path:
    """timm's source, as published for the version installed; its ``tests`` with our name where one model is named."""
    release = version("timm")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary=timm", f"timm=={release}"]
    subprocess.run([*command, "--dest", str(folder)], check=True)
    (archive,) = folder.glob("timm-*.tar.gz")
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    return folder / f"timm-{release}"


def fill_cache(cache: Path) -> None:
    """Weights of timm's own ConViTs, random, where the Hub's client would have put the published ones."""
    for size in ("tiny", "small", "base"):
        weights = safetensors.torch.save(timm.create_model(f"convit_{size}").state_dict())
        add_to_cache(cache, f"timm/convit_{size}.fb_in1k", {"model.safetensors": weights})


def run(source: Path, cache: Path, names: list[str], stand_in: str, report: Path) -> int:
    """Runs the tests of ``source`` that are of one of ``names``, or of one model named; pytest's exit status."""
    test_file = source / "tests" / "test_models.py"
    original = source / "tests" / "test_models_original.py"
    if not original.exists():
        test_file.rename(original)
    test_file.write_text(ONE_MODEL.sub(stand_in, original.read_text()))
    environment = os.environ | {"HF_HUB_CACHE": str(cache), "HF_HUB_OFFLINE": "1"}
    environment.pop("GITHUB_ACTIONS", None)  # there timm leaves some of its tests out
    expression = " or ".join([*(f"{name}]" for name in names), *(f"{name}." for name in names), "test_convit"])
    command = [sys.executable, "-m", "pytest", str(test_file), "-p", "convit", "-q", "-W", "ignore", "-k", expression]
    command += ["-p", "no:cacheprovider", f"--rootdir={source}", f"--junitxml={report}", "-o", "junit_family=xunit1"]
    return subprocess.run(command, cwd=source, env=environment).returncode


def collected_for(model: str, source: Path) -> set[str]:
    """The test functions that run on one of timm's own models."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        str(source / "tests" / "test_models_original.py"),
        "--collect-only",
        "-q",
    ]
    command += ["-W", "ignore", "-k", f"{model}", "-p", "no:cacheprovider"]
    listing = subprocess.run(command, cwd=source, capture_output=True, text=True).stdout
    return set(re.findall(r"::(test_\w+)\[", listing))


def main() -> int:
    """Runs, counts, compares."""
    names = sys.argv[1:] or convit.list_models()
    stand_in = next((name for name in names if name.endswith("_224")), names[0])  # such tests draw images of 224 px
    with tempfile.TemporaryDirectory() as scratch:
        source = fetch_tests(Path(scratch))
        cache = Path(scratch) / "hub"
        fill_cache(cache)
        report = Path(scratch) / "report.xml"
        status = run(source, cache, names, stand_in, report)
        ran: Counter[str] = Counter()
        on: dict[str, set[str]] = {}
        for case in ElementTree.parse(report).iter("testcase"):
            function, _, parameters = str(case.get("name")).partition("[")
            if case.find("skipped") is None:
                ran[function] += 1
                on.setdefault(function, set()).update(name for name in names if name in parameters)
        expected = {name: collected_for("convit_small", source) for name in names}
        expected[stand_in] |= collected_for("convit_tiny", source)  # those of one named model too
    print(json.dumps(dict(sorted(ran.items())), indent=2))
    left_out = [
        f"{test} on {name}"
        for name in names
        for test in sorted(expected[name])
        if name not in on.get(test, set()) and (test != "test_model_load_pretrained" or timm.is_model_pretrained(name))
    ]
    print(
        f"{sum(ran.values())} tests of timm {version('timm')} ran on {len(names)} models; not run: {left_out or 'none'}"
    )
    return status or bool(left_out)


if __name__ == "__main__":
    sys.exit(main())
