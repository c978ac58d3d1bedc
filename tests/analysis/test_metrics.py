"""Each metric against values worked out by hand, and relevance against finite differences."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from convit import InputError
from convit.analysis import (
    Capture,
    capture,
    centres,
    entropy,
    head_diversity,
    non_locality,
    picture,
    relevance,
    relevance_rollout,
    rollout,
    spans,
)
from convit.grid import Grid
from convit.layers.init import convolutional_pos_weight
from convit.ops.naive import positional_logits
from tests.analysis.models import images, ours, sped_up, timms, vit
from tests.helpers import relative_error

LN2 = math.log(2)


def uniform(tokens: int, *leading: int) -> Tensor:
    return torch.full((*leading, tokens, tokens), 1 / tokens)


def close(got: Tensor, expected: Any) -> bool:
    return torch.allclose(got, torch.as_tensor(expected, dtype=got.dtype), atol=1e-6, equal_nan=True)


# -- non-locality ------------------------------------------------------------------------------------------------------


def test_non_locality_of_four_patches() -> None:
    """On 2 x 2 patches the distances from one are 0, 1, 1 and sqrt(2)."""
    assert close(non_locality(uniform(4), (2, 2)), (2 + math.sqrt(2)) / 4)
    assert close(non_locality(torch.eye(4), (2, 2)), 0)


def test_non_locality_on_a_row_and_a_column() -> None:
    """All three patches look at the first: 0, 1 and 2 patches away. On 2 x 3 all look at the last one."""
    first = torch.tensor([1.0, 0.0, 0.0]).expand(3, 3)
    assert close(non_locality(first, (1, 3)), 1)
    assert close(non_locality(first, (3, 1)), 1)
    last = torch.zeros(6, 6)
    last[:, 5] = 1
    expected = (math.sqrt(5) + math.sqrt(2) + 1 + 2 + 1 + 0) / 6
    assert close(non_locality(last, (2, 3)), expected)


def test_non_locality_leaves_the_class_token_out() -> None:
    """A fifth of the attention goes to the class token: the rest counts as it is."""
    attention = uniform(5, 2, 3)
    attention[..., 0, :] = torch.tensor([0.0, 0.0, 0.0, 0.0, 1.0])  # its own row makes no difference
    assert close(non_locality(attention, (2, 2), 1), torch.full((2, 3), (2 + math.sqrt(2)) / 5))


def test_non_locality_in_bf16_is_computed_in_fp32() -> None:
    assert non_locality(uniform(4).bfloat16(), (2, 2)).dtype == torch.float32


@pytest.mark.parametrize(("shape", "grid", "prefix"), [((4, 4), (2, 3), 0), ((5, 4), (2, 2), 1), ((4,), (2, 2), 0)])
def test_maps_that_do_not_fit(shape: tuple[int, ...], grid: tuple[int, int], prefix: int) -> None:
    with pytest.raises(InputError, match=rf"attention: got shape .* expected .* grid of {grid[0]} x {grid[1]}"):
        non_locality(torch.ones(shape), grid, prefix)


# -- centres and spans -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strength", [0.01, 1.0, 4.0])
def test_centres_and_spans_of_the_convolutional_start(strength: float) -> None:
    weight = convolutional_pos_weight(9, strength)
    assert sorted(centres(weight).tolist()) == [[x, y] for x in (-1, 0, 1) for y in (-1, 0, 1)]
    assert close(spans(weight), [math.sqrt(1 / (2 * strength))] * 9)


def test_centres_by_hand() -> None:
    """-(3, -1) / (2 * -2) is (0.75, -0.25), and -2 (d^2 - 1.5 d) = -2 (d - 0.75)^2 + const."""
    weight = torch.tensor([[3.0, -1.0, -2.0], [3.0, -1.0, 2.0], [3.0, -1.0, 0.0], [0.0, 0.0, 0.0]])
    nothing = [math.nan, math.nan]
    assert close(centres(weight), [[0.75, -0.25], nothing, nothing, nothing])
    assert close(spans(weight), [0.5, math.inf, math.inf, math.inf])


def test_a_span_is_the_standard_deviation_of_the_map() -> None:
    """Measured along x on a wide row, far from its ends."""
    weight = torch.tensor([[0.08, 0.0, -0.02]])  # centre 2 patches to the right, sigma 5
    row = torch.softmax(positional_logits(weight, Grid(1, 101), torch.float32), -1)[0, 50]
    offset = torch.arange(101) - 50.0
    mean = (row * offset).sum()
    assert close(mean, 2.0)
    assert close(centres(weight)[0, 0], mean)
    assert torch.allclose(spans(weight)[0], (row * (offset - mean) ** 2).sum().sqrt(), rtol=1e-4)


@pytest.mark.parametrize("metric", [centres, spans])
def test_weights_of_another_shape(metric: Callable[[Tensor], Tensor]) -> None:
    with pytest.raises(InputError, match=r"pos_weight: got shape \(3,\), expected \(heads, 3\)"):
        metric(torch.ones(3))


# -- entropy and diversity ---------------------------------------------------------------------------------------------


def test_entropy_by_hand() -> None:
    rows = torch.tensor([[0.5, 0.25, 0.25], [0.0, 1.0, 0.0], [1 / 3, 1 / 3, 1 / 3]])
    assert close(entropy(rows), [1.5 * LN2, 0.0, math.log(3)])


def test_diversity_by_hand() -> None:
    """H(3/4, 1/4) - (H(1, 0) + H(1/2, 1/2)) / 2 = 0.562335 - 0.346574."""
    one, half = torch.tensor([[1.0, 0.0]] * 2), uniform(2)
    assert close(head_diversity(torch.stack((one, half))), 0.215762)
    apart = torch.tensor([[0.0, 1.0]] * 2)
    assert close(head_diversity(torch.stack((one, one, apart))), 2 / 3 * LN2)  # two pairs of three differ, wholly
    assert close(head_diversity(torch.stack((torch.stack((one, apart)), torch.stack((half, half))))), [LN2, 0.0])


def test_diversity_of_one_head() -> None:
    with pytest.raises(InputError, match="got 1 head, expected at least 2"):
        head_diversity(uniform(2, 1))


# -- rollout -----------------------------------------------------------------------------------------------------------


def test_rollout_by_hand() -> None:
    """[[1, 0], [1/2, 1/2]], then all look at the second token; half of each stays what it was."""
    maps = [torch.tensor([[[[1.0, 0.0], [0.5, 0.5]]]]), torch.tensor([[[[0.0, 1.0], [0.0, 1.0]]]])]
    assert close(rollout(maps), [[[0.625, 0.375], [0.25, 0.75]]])
    assert close(rollout(maps, residual=0.0), [[[0.5, 0.5], [0.5, 0.5]]])
    assert close(rollout(maps, residual=1.0), [[[1.0, 0.0], [0.0, 1.0]]])


def test_rollout_takes_the_mean_of_the_heads() -> None:
    assert close(rollout([torch.stack((torch.eye(2), torch.eye(2).flip(0)))[None]]), [[[0.75, 0.25], [0.25, 0.75]]])


def test_a_class_token_that_joins_late() -> None:
    """It stands for itself until it joins, then looks at patches that are mixed already: 0.2 * 1 + 0.2 * 0.25."""
    late = torch.tensor([[[[0.2, 0.4, 0.4], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]]])
    got = rollout([torch.tensor([[[[1.0, 0.0], [0.5, 0.5]]]]), late])
    assert close(got, [[[0.6, 0.25, 0.15], [0.0, 1.0, 0.0], [0.0, 0.25, 0.75]]])
    assert close(picture(got, (1, 2), 1), [[[0.25, 0.15]]])
    assert close(picture(got, (2, 1), 1, "avg"), [[[0.625], [0.375]]])


@pytest.mark.parametrize("build", [ours, timms, vit])
def test_rows_of_a_rollout_sum_to_one(build: Callable[[], nn.Module]) -> None:
    layers = capture(build(), images((32, 48) if build is vit else (48, 48))).layers
    total = rollout(layer.mixed for layer in layers)
    assert total.shape[1:] == layers[-1].mixed.shape[2:]
    assert close(total.sum(-1), torch.ones(total.shape[:-1]))


def test_rollouts_that_cannot_be() -> None:
    with pytest.raises(InputError, match="got 3 tokens, then 2; expected layers in order"):
        rollout([uniform(3, 1, 1), uniform(2, 1, 1)])
    with pytest.raises(InputError, match="maps: got none"):
        rollout([])
    with pytest.raises(InputError, match=r"residual: got 1\.5, expected 0 to 1"):
        rollout([uniform(3, 1, 1)], residual=1.5)
    with pytest.raises(InputError, match="got 'token' and 0 prefix tokens"):
        picture(uniform(4), (2, 2), 0)
    with pytest.raises(InputError, match="pooling: got 'map'"):
        picture(uniform(5), (2, 2), 1, "map")


# -- relevance ---------------------------------------------------------------------------------------------------------


def test_relevance_by_hand() -> None:
    """The products with the gradients, negative ones left out: diag(1, 2), then the first token takes of the second."""
    maps = [uniform(2, 1, 1), torch.tensor([[[[0.0, 1.0], [1.0, 0.0]]]])]
    gradients = [torch.tensor([[[[2.0, -2.0], [0.0, 4.0]]]]), torch.tensor([[[[1.0, 1.0], [-1.0, 5.0]]]])]
    assert close(relevance_rollout(maps, gradients), [[[2.0, 3.0], [0.0, 3.0]]])
    # The positive part is taken of each head, then the mean: (2 * 0.5 + 0) / 2.
    assert close(relevance_rollout([uniform(1, 1, 2)], [torch.tensor([[[[2.0]], [[-6.0]]]])]), [[[2.0]]])


def nudged(model: nn.Module, x: Tensor, layer: int, where: tuple[int, ...], by: float) -> Tensor:
    """The logits of the first image when one entry of a map is changed by hand."""

    def change(_module: nn.Module, _args: Any, attention: Tensor) -> Tensor:
        attention = attention.clone()
        attention[where] += by
        return attention

    handle = model.blocks[layer].attn.attn_drop.register_forward_hook(change)
    with torch.no_grad():
        logits = model(x)[0]
    handle.remove()
    return logits


@pytest.mark.parametrize("build", [timms, vit])
def test_gradients_of_the_maps_by_finite_differences(build: Callable[[], nn.Module]) -> None:
    model, x = build().double(), images((32, 48) if build is vit else (48, 48)).double()
    for block in model.blocks:
        block.attn.fused_attn = False  # so that the map can be changed
    shot = capture(model, x, keep_graph=True)
    for layer in shot.layers:
        gradient = torch.autograd.grad(shot.logits[0, 3], layer.mixed, retain_graph=True)[0]
        for where in ((0, 1, 0, 4), (0, 3, 5, 2)):
            up, down = (nudged(model, x, layer.index, where, by) for by in (1e-5, -1e-5))
            assert ((up - down)[3] / 2e-5).item() == pytest.approx(gradient[where].item(), rel=1e-5, abs=1e-9)
        assert not gradient[1].any()  # the other image


@pytest.mark.parametrize("build", [ours, timms, sped_up, vit, lambda: ours(local_up_to_layer=3)])
def test_relevance_of_a_model(build: Callable[[], nn.Module]) -> None:
    model, x = build(), images((32, 48) if build is vit else (48, 48))
    before = [p.grad for p in model.parameters()]
    shot = capture(model, x, keep_graph=True)
    got = relevance(shot)
    assert got.shape == (2, *shot.layers[-1].grid)
    assert got.min() >= 0
    assert got.any()
    assert before == [p.grad for p in model.parameters()] == [None] * len(before)

    predicted = shot.logits.argmax(1)
    assert torch.equal(relevance(shot, predicted), got)
    other = relevance(shot, 4)
    assert torch.equal(other, relevance(shot, torch.tensor([4, 4])))
    assert not torch.equal(other, relevance(shot, 1))

    alone = relevance(capture(model, x[1:], keep_graph=True), 4)
    assert relative_error(other[1:], alone) < 1e-3


def test_our_relevance_is_timms() -> None:
    """The same weights in timm's code and in ours."""
    theirs = timms()
    model = ours(img_size=48, patch_size=16, embed_dim=24, num_heads=4)
    model.load_state_dict(theirs.state_dict())
    x = images((48, 48))
    expected = relevance(capture(theirs, x, keep_graph=True), 2)
    assert relative_error(relevance(capture(model, x, keep_graph=True), 2), expected) < 1e-3


def test_relevance_where_patches_are_pooled() -> None:
    """One layer: the mean row of max(0, gradient * map), without the identity."""
    model = vit("vit_tiny_patch16_224", class_token=False, global_pool="avg", depth=1)
    shot = capture(model, images((32, 48)), keep_graph=True)
    attention = shot.layers[0].mixed
    gradient = torch.autograd.grad(shot.logits[:, 0].sum(), attention, retain_graph=True)[0]
    expected = (gradient * attention).clamp_min(0).mean((1, 2)).unflatten(-1, (2, 3))
    assert relative_error(relevance(shot, 0), expected) < 1e-4


def test_relevance_that_cannot_be() -> None:
    model, x = ours(), images((16, 16))
    with pytest.raises(InputError, match="got maps without a graph, expected capture"):
        relevance(capture(model, x))
    shot = capture(model, x, keep_graph=True)
    for wrong in (5, -1, torch.tensor([0, 1, 2]), torch.tensor(1.5)):
        with pytest.raises(InputError, match=r"target: got .*, expected a class from 0 to 4"):
            relevance(shot, wrong)
    with pytest.raises(InputError, match=r"expected \(batch, classes\)"):
        relevance(Capture(shot.logits[0], shot.layers, "token"))
