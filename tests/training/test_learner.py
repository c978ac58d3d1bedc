"""One step: parts that add up to the whole, the moving average, the loss scale, the compiler."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from convit.errors import InputError
from convit.training.engine import Trainer
from convit.training.learner import Learner
from convit.training.run import train
from convit.training.state import Progress, load_state, save_state
from tests.training.small import options, trainer_of

COUNTS = {"dark": 12, "light": 6}


def trainer(data: Path, **more: Any) -> Trainer:
    """One that stands at the beginning of a run without randomness in its steps."""
    return trainer_of(options(data, Path("nowhere"), **({"drop_path": 0.0, "mixup": 0.0, "cutmix": 0.0} | more)))


def learner(data: Path, **more: Any) -> Learner:
    return trainer(data, **more).learner


def batch(size: int = 6) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(size, 3, 8, 8, generator=generator), torch.arange(size) % 3 % 2


def steps(of: Learner, count: int = 2, size: int = 6) -> list[float]:
    return [of.step(*batch(size), 0, step) for step in range(count)]


def distance(a: Learner, b: Learner) -> float:
    pairs = zip(a.model.parameters(), b.model.parameters(), strict=True)
    return max((p - q).abs().max().item() for p, q in pairs)


@pytest.mark.parametrize("parts", [2, 3, 4])  # 4 does not divide the 6 images
@pytest.mark.parametrize("more", [{}, {"mixup": 1.0, "mix_prob": 1.0, "class_weights": "balanced"}])
def test_parts_add_up_to_the_whole(parts: int, more: dict[str, Any], data: Path) -> None:
    """Gradients of one step, before and after clipping; 1e-3 of the largest would be a wrong weight of a part."""
    more = {"batch_size": 6, "clip_grad": 1e-2, "lr": 1e-2, "warmup_epochs": 0.0} | more
    whole, split_up = learner(data, **more), learner(data, **more, accumulate=parts)
    losses = steps(whole, 1), steps(split_up, 1)
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    for p, q in zip(whole.model.parameters(), split_up.model.parameters(), strict=True):
        assert p.grad is not None
        assert q.grad is not None
        assert (p.grad - q.grad).abs().max() <= 1e-6
    norms = [torch.nn.utils.get_total_norm([p.grad for p in x.model.parameters()]) for x in (whole, split_up)]
    assert [norm.item() for norm in norms] == pytest.approx([1e-2, 1e-2], rel=1e-4)  # clipped, once, after the sum


def test_parts_of_a_run_count_as_one_step(data: Path) -> None:
    plain, parts = trainer(data).plan, trainer(data, accumulate=4).plan
    assert (parts.steps_per_epoch, parts.options.lr, parts.batch_size) == (
        plain.steps_per_epoch,
        plain.options.lr,
        plain.batch_size,
    )


def test_moving_average_by_hand(data: Path) -> None:
    of = learner(data, ema_decay=0.75, lr=1e-2, warmup_epochs=0.0)
    assert of.best is not of.model
    expected = None
    for step in range(4):
        of.step(*batch(), 0, step)
        weight = of.model.head.weight.detach()
        # The first step's weights, then a quarter of the new and three of the old.
        expected = weight.clone() if expected is None else 0.75 * expected + 0.25 * weight
        assert torch.allclose(of.best.head.weight, expected, rtol=1e-6, atol=1e-8)
    assert not torch.allclose(of.best.head.weight, of.model.head.weight)
    assert not of.best.training


def test_no_moving_average(data: Path) -> None:
    of = learner(data)
    assert of.ema is None
    assert of.best is of.model


def test_fp16_scales_and_unscales(data: Path) -> None:
    more = {"lr": 1e-3, "warmup_epochs": 0.0, "clip_grad": 1.0}
    half, full = learner(data, precision="fp16", **more), learner(data, **more)
    assert half.scaler.get_scale() == 65536
    assert steps(half) == pytest.approx(steps(full), rel=1e-2)
    norm = torch.nn.utils.get_total_norm([p.grad for p in half.model.parameters() if p.grad is not None])
    assert norm <= 1.001  # clipped after the scale was taken out
    assert 0 < distance(half, full) < 5e-3
    assert {p.dtype for p in half.model.parameters()} == {torch.float32}


def test_fp16_that_overflows_leaves_the_step_out(data: Path) -> None:
    of = learner(data, precision="fp16", lr=1e-3, warmup_epochs=0.0)
    of.scaler.load_state_dict(of.scaler.state_dict() | {"scale": 1e30})
    before = [p.detach().clone() for p in of.model.parameters()]
    steps(of, 1)
    assert all(torch.equal(p, q) for p, q in zip(of.model.parameters(), before, strict=True))
    assert of.scaler.get_scale() == pytest.approx(5e29)


def test_state_of_a_step_in_fp16(data: Path, tmp_path: Path) -> None:
    """Loss scale and moving average are as they were."""
    more = {"precision": "fp16", "ema_decay": 0.9, "lr": 1e-3, "warmup_epochs": 0.0}
    of, other = trainer(data, **more), trainer(data, **more)
    steps(of.learner, 3)
    assert of.learner.scaler.state_dict()["_growth_tracker"] == 3
    of.state.progress = Progress(step=3)
    save_state(tmp_path, of.state)
    load_state(tmp_path, other.state)
    assert other.learner.scaler.state_dict() == of.learner.scaler.state_dict()
    for x in (of, other):
        x.learner.step(*batch(), 0, 3)
    assert distance(of.learner, other.learner) == 0
    kept = other.learner.best.state_dict()
    assert all(torch.equal(value, kept[name]) for name, value in of.learner.best.state_dict().items())


def test_compiler_that_fails_is_one_line(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = torch.compile

    def fails(*_: Any) -> Any:
        raise RuntimeError("no C++ compiler\nand a long story")

    monkeypatch.setattr(torch, "compile", lambda model: real(model, backend=fails))
    with pytest.raises(InputError, match=r"compile: .*no C\+\+ compiler.*; expected a compiler that works") as caught:
        train(options(data, tmp_path / "run", compile=True))
    assert "\n" not in str(caught.value)


def test_other_faults_of_a_step_are_not_the_compilers(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> float:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(Learner, "step", fails)
    with pytest.raises(RuntimeError, match=r"^out of memory$"):
        trainer(data).fit()


def test_batch_norm_that_is_frozen_stays(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(options(data, run, model="convit_nano_patch4_16", epochs=1))
    start = {"model": "convit_nano_patch4_16", "weights": run, "freeze": 2, "image_size": None, "patch_size": None}
    of = learner(data, **start)
    before = {name: value.clone() for name, value in of.model.named_buffers()}
    steps(of)
    moved = {name for name, value in of.model.named_buffers() if not torch.equal(value, before[name])}
    assert moved
    assert not any(name.startswith(("patch_embed", "blocks.0.", "blocks.1.")) for name in moved)
