"""Which parameters learn at which rate, by hand."""

import pytest
import torch

from convit.training.parameters import freeze, parameter_groups, position_parameters
from tests.helpers import tiny_model


def by_name(**rates: float) -> dict[str, tuple[float, float]]:
    """``(lr_scale, weight_decay)`` of every parameter."""
    model = tiny_model()
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = parameter_groups(model, **({"weight_decay": 0.1, "layer_decay": 1.0, "position_lr": 1.0} | rates))
    found = [
        (names[id(p)], (group.get("lr_scale", 1.0), group["weight_decay"])) for group in groups for p in group["params"]
    ]
    assert sorted(name for name, _ in found) == sorted(names.values())  # each once
    return dict(found)


def test_decay_is_for_matrices() -> None:
    groups = by_name()
    for name in ("blocks.0.attn.qk.weight", "head.weight", "patch_embed.proj.weight"):
        assert groups[name] == (1.0, 0.1)
    for name in ("blocks.0.attn.gating_param", "blocks.0.norm1.weight", "head.bias", "pos_embed", "cls_token"):
        assert groups[name] == (1.0, 0.0)


def test_gates_and_centres_learn_at_their_own_rate() -> None:
    groups = by_name(position_lr=5.0)
    for name, (scale, _) in groups.items():
        assert scale == (5.0 if "gating_param" in name or "pos_proj" in name else 1.0), name
    assert groups["blocks.1.attn.pos_proj.weight"] == (5.0, 0.1)
    assert groups["blocks.1.attn.gating_param"] == (5.0, 0.0)


def test_both_rates_multiply() -> None:
    groups = by_name(position_lr=4.0, layer_decay=0.5)
    assert groups["head.weight"][0] == 1.0
    assert groups["blocks.1.attn.proj.weight"][0] == pytest.approx(0.5**2)
    assert groups["blocks.1.attn.gating_param"][0] == pytest.approx(4 * 0.5**2)


def test_a_model_without_position_has_none() -> None:
    assert position_parameters(tiny_model(local_up_to_layer=0)) == []
    assert len(position_parameters(tiny_model(gated=False))) == 2 * 2
    frozen = tiny_model().requires_grad_(False)
    frozen.blocks[0].attn.gating_param.requires_grad_(True)
    (group,) = parameter_groups(frozen, weight_decay=0.1, layer_decay=1.0, position_lr=3.0)
    assert torch.equal(group["params"][0], frozen.blocks[0].attn.gating_param)
    assert group["lr_scale"] == 3.0


@pytest.mark.parametrize("gated", [True, False])
def test_what_is_about_position(gated: bool) -> None:
    """``freeze_gpsa`` and ``position_lr`` act on gated and ungated layers alike, and on nothing else."""
    model = tiny_model(depth=3, local_up_to_layer=2, gated=gated)
    names = {id(p): name for name, p in model.named_parameters()}
    own = ["pos_proj.weight", "pos_proj.bias", *(["gating_param"] if gated else [])]
    expected = {f"blocks.{block}.attn.{name}" for block in (0, 1) for name in own}
    assert {names[id(p)] for p in position_parameters(model)} == expected
    freeze(model, gpsa=True)
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert frozen == {name for name in names.values() if name.startswith(("blocks.0.attn.", "blocks.1.attn."))}
