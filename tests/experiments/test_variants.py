"""The rows of Table 3: what each of them starts as, and what of it learns."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from convit.experiments.settings import Settings
from convit.experiments.settle import settle
from convit.experiments.studies import STUDIES
from convit.layers import GatedPositionalSelfAttention, PositionalSelfAttention, SelfAttention
from convit.layers.init import convolutional_pos_weight
from convit.training.engine import Trainer
from tests.experiments.made import MICRO
from tests.training.small import trainer_of


def trainer(row: str, out: Path) -> Trainer:
    """What a run of a row starts with."""
    settings = settle(Settings(name="ablation", data="digits", models=(MICRO,), seeds=(3,), rows=(row,)))
    (cell,) = STUDIES["ablation"].cells(settings)
    return trainer_of(replace(cell.asked, out=out))


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
    images, target = next(made.batches.of_epoch(0))
    for step in range(2):  # the first has the warm-up's rate
        made.learner.step(images, target, 0, step, lambda loss: None)
    moved = {name for name, p in made.model.named_parameters() if not torch.equal(p, before[name])}
    frozen = {name for name in before if ".attn." in name and int(name.split(".")[1]) < 3}
    assert len(frozen) == 3 * 7
    assert moved == before.keys() - frozen


def test_all_rows_see_the_same_images_in_the_same_order(tmp_path: Path) -> None:
    first, *others = (trainer(row, tmp_path) for row in ("a", "e", "g"))
    images, target = next(first.batches.of_epoch(0))
    for other in others:
        for split in ("train", "val"):
            assert other.images[split].names == first.images[split].names
        theirs, their_target = next(other.batches.of_epoch(0))
        assert torch.equal(theirs, images)
        assert torch.equal(their_target, target)
        assert other.plan.augmentation == first.plan.augmentation
        assert (other.plan.options.lr, other.plan.options.mixup) == (first.plan.options.lr, first.plan.options.mixup)
        assert other.plan.steps_per_epoch == first.plan.steps_per_epoch
