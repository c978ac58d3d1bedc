"""The benchmark: what is written of it, as a table and as a document."""

import json
from dataclasses import replace

import pytest
import torch

from convit.benchmark.cases import Case
from convit.benchmark.machine import Facts, machine_facts
from convit.benchmark.report import Measured, Report, Result
from convit.benchmark.table import table

CPU = torch.device("cpu")
TINY = Case(model="convit_tiny_patch16_224", image_size=224, batch_size=4)
FACTS = Facts(
    device="cpu",
    processor="Abacus 9",
    cores=2,
    gpu=None,
    system="Linux x86_64",
    threads=2,
    versions={"torch": "2.15.0"},
)


def report() -> Report:
    ours = Result(who="convit", seconds=(0.2, 0.22, 0.24), peak_bytes=210_000_000)
    twin = Result(who="twin", seconds=(0.2, 0.2, 0.2), peak_bytes=200_000_000)
    timm = Result(who="timm", error="out of memory")
    large = replace(TINY, image_size=448, mode="train", timed=False, memory=True)
    return Report(
        facts=FACTS,
        cases=(
            Measured(case=TINY, results=(replace(ours, peak_bytes=None), replace(twin, peak_bytes=None), timm)),
            Measured(case=large, results=(replace(ours, seconds=()), replace(twin, seconds=()), timm)),
        ),
    )


def test_table() -> None:
    lines = table(report()).splitlines()
    assert lines[0] == "Abacus 9, 2 cores, 2 threads, Linux x86_64; on cpu"
    assert max(map(len, lines)) <= 100
    assert [line.split() for line in lines[3:13]] == [
        ["ms", "±", "images/s", "time", "/", "twin", "time", "/", "ours", "peak", "MB", "/", "twin"],
        [],
        ["convit_tiny_patch16_224,", "224", "px,", "batch", "4,", "forward,", "fp32,", "eager;", "3", "rounds"],
        ["convit", "220.0", "5%", "18.2", "1.10", "[1.05-1.15]", "1"],
        ["plain", "twin", "200.0", "0%", "20.0", "1", "0.91", "[0.87-0.95]"],
        ["timm", "convit_tiny", "out", "of", "memory"],
        [],
        ["convit_tiny_patch16_224,", "448", "px,", "batch", "4,", "training", "step,", "fp32,", "eager"],
        ["convit", "210", "1.05"],
        ["plain", "twin", "200", "1.00"],
    ]
    assert "peak" not in table(replace(report(), cases=report().cases[:1]))


def test_columns_stand_under_their_heads() -> None:
    lines = table(report()).splitlines()
    (head, *_), ours, peak = lines[3:4], lines[6], lines[11]
    ends = {"ms": "220.0", "±": "5%", "images/s": "18.2", "time / twin": "[1.05-1.15]"}
    for name, cell in ends.items():
        assert head.index(name) + len(name) == ours.index(cell) + len(cell)
    assert head.index("peak MB") + len("peak MB") == peak.index("210") + len("210")


def test_json_document() -> None:
    document = json.loads(json.dumps(report().to_dict()))
    assert document["machine"]["processor"] == "Abacus 9"
    first, second = document["cases"]
    assert first["case"] == {
        "model": "convit_tiny_patch16_224",
        "image_size": 224,
        "batch_size": 4,
        "mode": "forward",
        "precision": "fp32",
        "compiled": False,
        "timed": True,
        "memory": False,
        "patch": 16,
        "num_classes": 1000,
        "model_args": {},
    }
    ours, twin, timm = first["results"]
    assert ours["seconds"] == [0.2, 0.22, 0.24]
    assert ours["time_over_twin"]["median"] == pytest.approx(1.1)
    assert ours["images_per_second"] == pytest.approx(4 / 0.22)
    assert twin["time_over_twin"]["median"] == 1
    assert (timm["error"], timm["seconds"], timm["seconds_per_step"]) == ("out of memory", [], None)
    assert second["results"][0]["peak_over_twin"] == pytest.approx(1.05)


def test_facts() -> None:
    facts = machine_facts(CPU)
    assert facts.threads == torch.get_num_threads()
    assert facts.cores >= 1
    assert facts.versions["torch"] in torch.__version__
    assert facts.processor in facts.lines()[0]
    assert set(facts.versions) == {"convit", "torch", "timm", "Python"}
