"""The trial of the fused kernel, interpreted: it passes, and a kernel that is wrong or breaks is found out."""

import warnings
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from convit.ops import triton_trial

kernels = pytest.importorskip("convit.ops.triton", reason="triton is not installed")

CASE = (torch.device("cuda" if torch.cuda.is_available() else "cpu"), torch.float16, 16)


@pytest.fixture(autouse=True)
def _new_trial() -> Iterator[None]:
    triton_trial.failure.cache_clear()
    yield
    triton_trial.failure.cache_clear()


def test_a_right_kernel_passes_and_is_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    state = torch.get_rng_state()
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("error", RuntimeWarning)
        assert triton_trial.failure(*CASE) is None
    assert torch.equal(state, torch.get_rng_state())
    monkeypatch.setattr(triton_trial, "_compare", None)
    assert triton_trial.failure(*CASE) is None


def wrong_output(*arguments: object) -> Tensor:
    return triton_trial.factorized.gated_attention(*arguments) * 1.02  # type: ignore[arg-type]


def wrong_gradient(q: Tensor, k: Tensor, v: Tensor, gate: Tensor, *rest: object) -> Tensor:
    return triton_trial.factorized.gated_attention(q, k, v, gate.detach() + 0 * gate, *rest)  # type: ignore[arg-type]


def no_number(q: Tensor, *rest: object) -> Tensor:
    return triton_trial.factorized.gated_attention(q, *rest) * torch.nan  # type: ignore[arg-type]


def breaks(*_: object) -> Tensor:
    raise RuntimeError("PTX assembly aborted\ndue to errors")


@pytest.mark.parametrize(
    ("kernel", "says"),
    [
        (wrong_output, "output is wrong by"),
        (wrong_gradient, "gradient of gate is wrong by 1.0e\\+00"),
        (no_number, "output is wrong by nan"),
        (breaks, "RuntimeError: PTX assembly aborted due to errors"),
    ],
)
def test_a_wrong_kernel_is_found_out(kernel: Callable[..., Tensor], says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "gated_attention", kernel)
    with pytest.warns(RuntimeWarning, match=says):
        reason = triton_trial.failure(*CASE)
    assert reason is not None
    assert "head width 16" in reason
