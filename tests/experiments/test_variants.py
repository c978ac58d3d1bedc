"""The rows of Table 3: what each of them starts as, and what of it learns."""

from pathlib import Path

import pytest
import torch

from convit.data import open_source
from convit.errors import InputError
from convit.experiments import settle
from convit.experiments.ablation import ROWS
from convit.layers import GatedPositionalSelfAttention, PositionalSelfAttention, SelfAttention
from convit.layers.init import convolutional_pos_weight
from convit.train import ModelConfig, Observer
from convit.train.engine import Trainer
from convit.train.geometry import geometry
from convit.train.observer import StopRequest
from convit.train.plan import make_plan, split
from convit.train.run_folder import RunFolder

MODEL = "convit_micro_patch4_16"


def trainer(row: str, out: Path) -> Trainer:
    """What a run of a row starts with."""
    settings = settle("ablation", "digits", {"models": (MODEL,)})
    config = settings.cell(MODEL, row, ROWS[row], 3).config
    source = open_source("digits")
    plan = make_plan(config, source, split(source, config.source.val_fraction, config.run.seed))
    return Trainer(plan, RunFolder(out), Observer(), StopRequest())


def is_convolution(layer: PositionalSelfAttention) -> bool:
    """Whether a layer is as equation 5 says."""
    weight = convolutional_pos_weight(9, 2.0)  # the strength of the recipe "small"
    return torch.equal(layer.pos_proj.weight, weight) and torch.equal(layer.v.weight, torch.eye(144))


# Convolutional start, gate at the start, whether the gates learn, whether the rest of GPSA learns.
ROWS_BY_HAND = {
    "a": (True, 0.7311, True, True),
    "b": (True, 0.5, False, True),
    "c": (False, 0.7311, True, True),
    "d": (False, 0.5, False, True),
    "f": (True, 0.5, False, False),
    "g": (False, 0.5, False, False),
}


@pytest.mark.parametrize("row", ROWS_BY_HAND)
def test_row_starts_and_learns_as_the_table_says(row: str, tmp_path: Path) -> None:
    convolution, gate, gates_learn, gpsa_learns = ROWS_BY_HAND[row]
    model = trainer(row, tmp_path).model
    layers = [block.attn for block in model.blocks]
    gpsa = layers[:3]
    assert all(type(layer) is GatedPositionalSelfAttention for layer in gpsa)
    assert type(layers[3]) is SelfAttention
    for layer in gpsa:
        assert is_convolution(layer) == convolution
        torch.testing.assert_close(layer.gates, torch.full((9,), gate), atol=1e-4, rtol=0)
        assert layer.gating_param.requires_grad == gates_learn
        rest = {name: p.requires_grad for name, p in layer.named_parameters() if name != "gating_param"}
        assert set(rest.values()) == {gpsa_learns}
        assert {name.split(".")[0] for name in rest} == {"qk", "v", "proj", "pos_proj"}
        if not convolution:
            assert 0.015 < layer.v.weight.std().item() < 0.025
    inside = {id(p) for layer in gpsa for p in layer.parameters()}
    assert all(p.requires_grad for p in model.parameters() if id(p) not in inside)


def test_row_e_is_plain_attention(tmp_path: Path) -> None:
    model = trainer("e", tmp_path).model
    assert [type(block.attn) for block in model.blocks] == [SelfAttention] * 4
    assert all(p.requires_grad for p in model.parameters())
    assert (model.embed_dim, model.blocks[0].attn.num_heads) == (144, 9)


def test_psa_is_ungated(tmp_path: Path) -> None:
    model = trainer("psa", tmp_path).model
    assert [type(block.attn) for block in model.blocks] == [PositionalSelfAttention] * 3 + [SelfAttention]
    assert all(is_convolution(block.attn) for block in list(model.blocks)[:3])


def test_a_step_leaves_what_is_frozen(tmp_path: Path) -> None:
    made = trainer("f", tmp_path)
    before = {name: p.detach().clone() for name, p in made.model.named_parameters()}
    images, target = next(iter(made.loader))
    for step in range(2):  # the first has the warm-up's rate
        made.learner.step(images, target, 0, step, lambda loss: None)
    moved = {name for name, p in made.model.named_parameters() if not torch.equal(p, before[name])}
    frozen = {name for name in before if ".attn." in name and int(name.split(".")[1]) < 3}
    assert len(frozen) == 3 * 7
    assert moved == before.keys() - frozen


def test_all_rows_see_the_same_images_in_the_same_order(tmp_path: Path) -> None:
    made = [trainer(row, tmp_path) for row in ("a", "e", "g")]
    first = made[0]
    images, target = next(iter(first.loader))
    for other in made[1:]:
        assert other.plan.train.names == first.plan.train.names
        assert other.plan.val.names == first.plan.val.names
        assert [other.sampler.keys(epoch) for epoch in (0, 4)] == [first.sampler.keys(epoch) for epoch in (0, 4)]
        theirs, their_target = next(iter(other.loader))
        assert torch.equal(theirs, images)
        assert torch.equal(their_target, target)
        assert (other.plan.values, other.plan.lr) == (first.plan.values, first.plan.lr)
        assert other.plan.steps_per_epoch == first.plan.steps_per_epoch


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"ungated": True, "freeze_gates": True}, "--ungated and --freeze-gates: got both"),
        ({"random_start": True, "pretrained": True}, "random-start: got it with --pretrained"),
        ({"ungated": True, "weights": Path("x")}, "ungated: got it with --pretrained or --weights"),
        ({"gate_start": 0.0, "pretrained": True}, "gate-start: got it with --pretrained or --weights"),
    ],
)
def test_options_that_exclude_each_other(changes: dict[str, object], says: str) -> None:
    with pytest.raises(InputError, match=says):
        ModelConfig(**changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("option", ["ungated", "random_start", "freeze_gates", "freeze_gpsa"])
def test_a_model_without_gpsa_has_none_of_it(option: str) -> None:
    config = settle("ablation", "digits", {"models": (MODEL,)}).config(
        MODEL, 0, 1.0, {"local_up_to_layer": 0, option: True}
    )
    with pytest.raises(InputError, match=f"{option.replace('_', '-')}: got it for a model without GPSA"):
        geometry(config, 8, 100)
