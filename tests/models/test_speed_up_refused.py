"""What is no timm ConViT as we know it is refused by name, or left as it is."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from timm.models.convit import GPSA, MHSA
from torch import Tensor, nn

from convit import InputError
from convit.models.speed_up import FastGPSA, Swapped, _check_timm, restore, speed_up
from tests.analysis.models import timms
from tests.helpers import relative_error, tiny_model

NAMES = ("blocks.0.attn", "blocks.1.attn", "blocks.2.attn")
X = torch.randn(2, 3, 48, 48, generator=torch.Generator().manual_seed(0))  # 3 x 3 patches


@pytest.fixture
def model() -> nn.Module:
    return timms()


class OtherGPSA(GPSA):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


def test_what_computes_something_else_is_left(model: nn.Module) -> None:
    model.blocks[0].attn.__class__ = OtherGPSA
    model.blocks[1].attn.q_norm = nn.LayerNorm(6)
    model.blocks[2].attn.forward = lambda x: x
    expected = model(X)
    result = speed_up(model)
    assert result.changed == ()
    assert result.left[NAMES[0]] == "got OtherGPSA, whose code may differ; expected timm's GPSA itself"
    assert (
        "got a GPSA of ['attn_drop', 'gating_param', 'pos_proj', 'proj', 'proj_drop', 'q_norm',"
        in result.left[NAMES[1]]
    )
    assert result.left[NAMES[2]] == "its forward was replaced on the object; expected the one of its class"
    assert torch.equal(model(X), expected)


def test_another_scale_is_left_or_kept(model: nn.Module) -> None:
    for block in model.blocks:
        block.attn.scale *= 3
    plain = copy.deepcopy(model)
    result = speed_up(model)
    assert result.changed == NAMES[2:]
    assert result.left[NAMES[0]].startswith("got scale ")
    assert relative_error(model(X), plain(X)) < 1e-4


def test_a_class_made_from_the_fast_one_is_not_restored(model: nn.Module) -> None:
    speed_up(model)
    model.blocks[0].attn.__class__ = type("ShardedGPSA", (FastGPSA,), {})
    result = restore(model)
    assert result.changed == NAMES[1:]
    assert result.left[NAMES[0]].startswith("got ShardedGPSA, made from the fast class since")


def test_patches_that_fill_no_square() -> None:
    alone = GPSA(8, num_heads=2)
    speed_up(alone)
    with pytest.raises(ValueError, match="got 6 patch tokens for a grid of 2 x 2"):
        alone(torch.randn(1, 6, 8))


@pytest.mark.parametrize("change", [speed_up, restore])
def test_models_without_timms_attention(change: Callable[[Any], Swapped]) -> None:
    with pytest.raises(InputError, match=r"got ConViT with convit's own attention.*nothing to do; expected a timm"):
        change(tiny_model())
    with pytest.raises(InputError, match="got Linear with no attention of timm's ConViT in it, expected a timm ConViT"):
        change(nn.Linear(3, 2))
    with pytest.raises(InputError, match="got str, expected a timm ConViT"):
        change("convit_tiny")


def other_sign(self: GPSA, tokens: int) -> Tensor:
    return -get_rel_indices(self, tokens)


def no_num_heads(self: GPSA, *args: Any, **kwargs: Any) -> None:
    init(self, *args, **kwargs)
    self.heads = self.__dict__.pop("num_heads")


def one_norm_more(self: GPSA, *args: Any, **kwargs: Any) -> None:
    init(self, *args, **kwargs)
    self.q_norm = nn.Identity()


get_rel_indices, init = GPSA.get_rel_indices, GPSA.__init__


@pytest.mark.parametrize(
    ("method", "other", "problem"),
    [
        ("get_rel_indices", other_sign, "outputs differ by"),
        ("__init__", no_num_heads, "no attribute 'num_heads'"),
        ("__init__", one_norm_more, "got a GPSA of .*'q_norm'"),
    ],
)
def test_another_timm_is_refused(
    model: nn.Module, method: str, other: Any, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _check_timm.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(GPSA, method, other)
        with pytest.raises(InputError, match=f"timm: got version .*, whose GPSA is not .*{problem}.*expected"):
            speed_up(model)
    assert [type(block.attn) for block in model.blocks] == [GPSA, GPSA, MHSA]
    assert speed_up(model).changed == NAMES  # a failed check is not remembered
