"""The benchmark: who takes part, and how times are taken and compared."""

import time
from dataclasses import replace
from typing import Any

import pytest
import torch

import convit
from convit.benchmark import timing as timing_module
from convit.benchmark.cases import PRESETS, Case, grid_of_cases
from convit.benchmark.report import Measured, Result, spread
from convit.benchmark.steps import build, cannot_measure, forward_step, random_images, training_step
from convit.benchmark.timing import interleaved, measure
from convit.choices import RIVALS
from convit.errors import InputError
from convit.layers import TokenBatchNorm

CPU = torch.device("cpu")
TINY = Case(model="convit_tiny_patch16_224", image_size=224, batch_size=4)
MICRO = Case(model="convit_micro_patch4_32", image_size=8, batch_size=2)


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
