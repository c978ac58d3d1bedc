"""The benchmark: who takes part, how times are taken and compared, what memory is counted, what is written of it."""

import json
import os
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import convit
from convit.benchmark import memory as memory_module
from convit.benchmark import timing as timing_module
from convit.benchmark.cases import PRESETS, Case, grid_of_cases
from convit.benchmark.machine import Facts, machine_facts
from convit.benchmark.memory import check_memory_is_measurable, held_bytes, pages_of, peak_memory
from convit.benchmark.plots import draw_resolutions
from convit.benchmark.report import Measured, Report, Result, spread
from convit.benchmark.steps import CannotMeasureError, build, cannot_measure, forward_step, random_images, training_step
from convit.benchmark.table import table
from convit.benchmark.timing import interleaved, measure
from convit.choices import RIVALS
from convit.errors import InputError
from convit.layers import TokenBatchNorm

CPU = torch.device("cpu")
TINY = Case(model="convit_tiny_patch16_224", image_size=224, batch_size=4)
MICRO = Case(model="convit_micro_patch4_32", image_size=8, batch_size=2)
FACTS = Facts(
    device="cpu",
    processor="Abacus 9",
    cores=2,
    gpu=None,
    system="Linux x86_64",
    threads=2,
    versions={"torch": "2.15.0"},
)
linux = pytest.mark.skipif(
    not os.access("/proc/self/clear_refs", os.W_OK), reason="the peak of a process is reset by Linux alone"
)


# -- cases -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"model": "convit_tony_patch16_224"}, "did you mean 'convit_tiny_patch16_224'"),
        ({"model": "resnet18"}, "model: got 'resnet18', expected a name that 'convit models' lists"),
        ({"image_size": 220}, r"image-size: got 220 x 220, .* patch size 16; nearest: 208 x 208 or 224 x 224"),
        ({"image_size": 0}, "image-size: got 0 x 0"),
        ({"batch_size": 0}, "batch-size: got 0, expected at least 1"),
    ],
)
def test_case_refuses(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        replace(TINY, **changes)


@pytest.mark.parametrize(
    ("model", "who"),
    [
        ("convit_small_patch4_32", ["convit", "twin", "timm", "deit"]),
        ("convit_tiny_plus_patch16_224", ["convit", "twin"]),
        ("convit_micro_patch4_32", ["convit", "twin"]),
    ],
)
def test_who_takes_part(model: str, who: list[str]) -> None:
    case = Case(model=model, image_size=32, batch_size=1)
    assert case.contestants(RIVALS) == who
    assert case.contestants(("deit", "twin")) == [name for name in who if name != "timm"]
    assert case.contestants(()) == ["convit"]


def test_grid_of_cases() -> None:
    cases = grid_of_cases(
        models=["convit_micro_patch4_32", "convit_tiny_patch8_64"],
        batch_sizes=[2, 1, 2],
        modes=["train"],
        compiled=True,
    )
    assert [(c.image_size, c.batch_size, c.compiled) for c in cases] == [
        (side, batch, compiled) for side in (32, 64) for batch in (2, 1) for compiled in (False, True)
    ]
    with pytest.raises(InputError, match="tony"):
        grid_of_cases(models=["tony_64"])


def test_presets_are_what_they_say() -> None:
    assert {name: (preset.device, len(preset.cases)) for name, preset in PRESETS.items()} == {
        "cpu": ("cpu", 6),
        "paper": ("cpu", 7),
        "cuda": ("cuda", 16),
    }
    *timed, last = PRESETS["paper"].cases
    assert tuple(timed) == PRESETS["cpu"].cases
    assert (last.image_size, last.mode, last.timed, last.memory) == (896, "train", False, True)


@pytest.mark.parametrize("who", ["convit", "twin", "timm", "deit"])
def test_contestants_are_of_one_shape(who: str) -> None:
    case = replace(TINY, image_size=64, num_classes=7)
    model = build(case, who)
    assert model(random_images(case, CPU)).shape == (4, 7)
    assert sum(weight.numel() for weight in model.parameters()) == pytest.approx(5.5e6, rel=0.02)
    assert type(model).__module__.startswith("timm" if who in ("timm", "deit") else "convit")
    if who == "twin":
        assert isinstance(model, convit.ConViT)
        assert model.local_up_to_layer == 0


# -- steps and times ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_training_step_learns_and_forward_step_does_not(precision: Any) -> None:
    model = build(MICRO, "convit")
    images = random_images(MICRO, CPU)
    before = model.head.weight.clone()
    forward_step(model, images, precision)()
    assert torch.equal(model.head.weight, before)
    assert not model.training
    training_step(model, images, precision)()
    assert model.training
    assert not torch.equal(model.head.weight, before)
    assert model.head.weight.dtype == torch.float32


def test_precision_is_that_of_the_products() -> None:
    seen = []
    layer = torch.nn.Linear(3, 2)
    layer.register_forward_hook(lambda _, __, out: seen.append(out.dtype))
    for precision in ("fp32", "bf16", "fp16"):
        forward_step(layer, torch.zeros(1, 3), precision)()
    assert seen == [torch.float32, torch.bfloat16, torch.float16]


def test_interleaved() -> None:
    """By a clock that only the steps move on: a takes 1, 2, 3, ... seconds, b always 10."""
    now, order = [0.0], []

    def a() -> None:
        order.append("a")
        now[0] += order.count("a")

    def b() -> None:
        order.append("b")
        now[0] += 10

    def clock() -> float:
        return now[0]

    assert interleaved({"a": a, "b": b}, rounds=3, warmup=1, clock=clock) == {"a": [2, 3, 4], "b": [10, 10, 10]}
    assert "".join(order) == "abbaabba"  # every round another one is first
    order.clear()
    waits: list[int] = []
    found = interleaved({"a": a}, 1, warmup=0, repeats=3, wait=lambda: waits.append(1), clock=clock)
    assert found == {"a": [(1 + 2 + 3) / 3]}
    assert len(waits) == 1


def test_ratio_is_the_median_of_the_rounds() -> None:
    """Not the ratio of the medians, which here would be 1."""
    ours, twin = Result(who="convit", seconds=(1.0, 2.0, 6.0)), Result(who="twin", seconds=(2.0, 1.0, 2.0))
    measured = Measured(case=TINY, results=(ours, twin))
    assert measured.time_ratio("convit", "twin") == spread([0.5, 2.0, 3.0])
    assert spread([0.5, 2.0, 3.0]).median == 2.0
    assert (spread([1.0, 2.0]).low, spread([1.0, 2.0]).high) == (1.25, 1.75)
    assert measured.time_ratio("convit", "timm") is None
    assert measured.memory_ratio("convit", "twin") is None


def test_shape_of_an_exported_model() -> None:
    """It is measured against models of its own shape, not of what its name stands for."""
    args = {"img_size": [8, 8], "num_heads": 4, "batch_norm": True, "hybrid_backbone": "conv"}
    case = replace(MICRO, model_args=args)
    for who, gpsa in (("convit", 3), ("twin", 0)):
        model = build(case, who)
        assert model.local_up_to_layer == gpsa
        assert {block.attn.num_heads for block in model.blocks} == {4}
        assert isinstance(model.norm, TokenBatchNorm)
        assert model.img_size == (MICRO.image_size, MICRO.image_size)


def test_measure() -> None:
    cases = [MICRO, replace(MICRO, mode="train")]
    exported = torch.nn.Flatten()
    first, second = measure(cases, device=CPU, rounds=3, exported=exported)
    assert [result.who for result in first.results] == ["convit", "twin", "onnx"]
    assert [result.who for result in second.results] == ["convit", "twin"]
    for result in (*first.results, *second.results):
        assert len(result.seconds) == 3
        assert min(result.seconds) > 0


def test_as_many_rounds_as_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step takes one second by a clock that only steps move on."""
    now = [0.0]

    def step() -> None:
        now[0] += 1.0

    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(timing_module, "_step", lambda *_: step)
    for budget, rounds in ((24.0, 12), (1.0, 7), (1e6, 200)):
        (measured,) = measure([MICRO], device=CPU, seconds=budget)
        assert [len(result.seconds) for result in measured.results] == [rounds, rounds]
        assert measured.steps_per_sample == 1


def test_short_steps_are_timed_several_in_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the slowest of them: ours takes 4 ms, the twin 20 ms, so that three fill 50 ms."""
    now = [0.0]

    def steps(_: Case, who: str, __: torch.Tensor) -> Any:
        def step() -> None:
            now[0] += {"convit": 0.004, "twin": 0.02}[who]

        return step

    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(timing_module, "_step", steps)
    (measured,) = measure([MICRO], device=CPU, rounds=1)
    assert measured.steps_per_sample == 3
    assert [result.seconds for result in measured.results] == [pytest.approx((0.004,)), pytest.approx((0.02,))]


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (torch.OutOfMemoryError("CUDA out of memory."), "out of memory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), "out of memory"),
        (MemoryError(), "out of memory"),
        (NotImplementedError("\"sdpa\" not implemented for 'Half'"), "not in PyTorch"),
        (torch._dynamo.exc.BackendCompilerFailed(torch.compile, OSError("no g++"), None), "does not compile"),
    ],
)
def test_a_contestant_that_fails_leaves_the_others(
    error: Exception, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(case: Case, who: str) -> torch.nn.Module:
        if who == "twin":
            raise error
        return build(case, who)

    monkeypatch.setattr(timing_module, "build", failing)
    (measured,) = measure([MICRO], device=CPU, rounds=1)
    ours, twin = measured.results
    assert (len(ours.seconds), ours.error) == (1, None)
    assert twin.seconds == ()
    assert twin.error is not None
    assert twin.error.startswith(says)


def test_faults_of_the_code_are_not_hidden() -> None:
    with pytest.raises(RuntimeError, match="shape"), cannot_measure():
        raise RuntimeError("shape mismatch")


# -- memory ------------------------------------------------------------------------------------------------------------


@linux
def test_pages_of_a_step() -> None:
    """100 and then 60 MB, not at once: the peak is 100 MB, wherever the peak was before."""

    def step() -> None:
        for megabytes in (100, 60):
            torch.ones(megabytes * 250_000)

    torch.ones(75_000_000)  # 300 MB, earlier and higher
    assert pages_of(step) == pytest.approx(100e6, abs=3e6)


def test_held_bytes() -> None:
    layer = torch.nn.Linear(5, 3)
    images = torch.zeros(2, 5)
    assert held_bytes(layer, images, moments=False) == 4 * (18 + 10)
    layer(images).sum().backward()
    assert held_bytes(layer, images, moments=True) == 4 * (18 + 10 + 18 + 36)


@linux
def test_peak_memory_in_a_process_of_its_own() -> None:
    """A training step holds weights, gradients and two moments; twice the batch is twice the activations."""
    case = replace(MICRO, image_size=64, batch_size=16, mode="train")
    weights = sum(weight.nbytes for weight in build(case, "convit").parameters())
    small, large = (peak_memory(replace(case, batch_size=batch), "convit", CPU) for batch in (16, 32))
    assert small > 4 * weights
    assert large - small == pytest.approx(small - 4 * weights, rel=0.2)


@linux
def test_memory_is_measured_before_time(monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(arguments: Any, **_: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(arguments, -9, "", "")

    monkeypatch.setattr(memory_module.subprocess, "run", killed)
    (measured,) = measure([replace(MICRO, memory=True)], device=CPU, rounds=1)
    for result in measured.results:
        assert (result.seconds, result.peak_bytes) == ((), None)
        assert result.error == "out of memory: the system ended the process"


def test_a_child_that_cannot_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    for code, out, error, says in (
        (0, 'warning\n{"error": "out of memory"}\n', CannotMeasureError, "out of memory"),
        (1, "", RuntimeError, "the trace"),
    ):
        done = subprocess.CompletedProcess([], code, out, "the trace")
        monkeypatch.setattr(memory_module.subprocess, "run", lambda *_, done=done, **__: done)
        with pytest.raises(error, match=says):
            peak_memory(MICRO, "convit", CPU)


def test_memory_where_there_is_no_account(monkeypatch: pytest.MonkeyPatch) -> None:
    check_memory_is_measurable(torch.device("cuda"))
    with pytest.raises(InputError, match="memory: got device mps"):
        check_memory_is_measurable(torch.device("mps"))
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(InputError, match=r"memory: got device cpu on .* expected --device cuda, or cpu on Linux"):
        check_memory_is_measurable(CPU)


# -- what is written of it ---------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("modes", [("forward",), ("forward", "train")])
def test_plot(modes: Any, tmp_path: Path) -> None:
    results = report().cases[0].results
    cases = grid_of_cases(image_sizes=[448, 224], batch_sizes=[1, 4], modes=modes)
    picture = tmp_path / "plot.png"
    draw_resolutions(Report(facts=FACTS, cases=tuple(Measured(case=case, results=results) for case in cases)), picture)
    with Image.open(picture) as image:
        assert image.format == "PNG"
        assert image.width > 600 * len(modes)
        assert image.convert("L").getextrema()[0] < 100


def test_facts() -> None:
    facts = machine_facts(CPU)
    assert facts.threads == torch.get_num_threads()
    assert facts.cores >= 1
    assert facts.versions["torch"] in torch.__version__
    assert facts.processor in facts.lines()[0]
    assert set(facts.versions) == {"convit", "torch", "timm", "Python"}
