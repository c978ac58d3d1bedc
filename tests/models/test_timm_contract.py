"""What timm's tools ask of a model: intermediates, pruning, a new head, groups of parameters."""

from typing import Any

import pytest
import timm
import torch
from timm.models._manipulate import group_parameters
from torch import Tensor, nn

from convit import ConViT
from tests.helpers import randomise, tiny_model


@pytest.fixture
def model() -> ConViT:
    """Blocks 0 and 1 see the patches alone; before block 2 the class token joins."""
    return randomise(tiny_model(), std=0.2).eval()


X = torch.randn(2, 3, 16, 24, generator=torch.Generator().manual_seed(0))  # 4 x 6 patches


def outputs_of_blocks(model: nn.Module, x: Tensor) -> list[Tensor]:
    """What each block gives in a real forward pass."""
    seen: list[Tensor] = []
    handles = [block.register_forward_hook(lambda _m, _i, out: seen.append(out)) for block in model.blocks]
    model(x)
    for handle in handles:
        handle.remove()
    return seen


# -- intermediates ---------------------------------------------------------------------------------------------------


def test_intermediates_are_those_of_the_forward_pass(model: ConViT) -> None:
    blocks = outputs_of_blocks(model, X)
    final, pairs = model.forward_intermediates(X, return_prefix_tokens=True, output_fmt="NLC")
    assert torch.equal(final, model.forward_features(X))
    for layer, (patches, prefix) in enumerate(pairs):
        joined = 1 if layer == 2 else 0
        assert torch.equal(patches, blocks[layer][:, joined:])
        assert torch.equal(prefix, blocks[layer][:, :joined])
        assert prefix.shape == (2, joined, 36)


def test_feature_maps_lie_as_the_patches_do(model: ConViT) -> None:
    maps = model.forward_intermediates(X, intermediates_only=True)
    tokens = model.forward_intermediates(X, intermediates_only=True, output_fmt="NLC")
    for feature_map, sequence in zip(maps, tokens, strict=True):
        assert feature_map.shape == (2, 36, 4, 6)
        assert feature_map.is_contiguous()
        assert torch.equal(feature_map[:, :, 3, 1], sequence[:, 3 * 6 + 1])


@pytest.mark.parametrize(("indices", "taken"), [(None, [0, 1, 2]), (2, [1, 2]), ([0, 2], [0, 2]), ([-2], [1])])
def test_indices(model: ConViT, indices: Any, taken: list[int]) -> None:
    every = model.forward_intermediates(X, intermediates_only=True)
    chosen = model.forward_intermediates(X, indices=indices, intermediates_only=True)
    assert len(chosen) == len(taken)
    assert all(torch.equal(got, every[layer]) for got, layer in zip(chosen, taken, strict=True))


def test_stop_early_runs_no_block_too_many(model: ConViT) -> None:
    ran = []
    for layer, block in enumerate(model.blocks):
        block.register_forward_hook(lambda *_, layer=layer: ran.append(layer))
    final, (early,) = model.forward_intermediates(X, indices=[1], stop_early=True, output_fmt="NLC")
    assert ran == [0, 1]
    assert torch.equal(final, model.norm(early))  # no class token yet
    assert torch.equal(early, model.forward_intermediates(X, indices=[1], intermediates_only=True, output_fmt="NLC")[0])


def test_norm_of_intermediates(model: ConViT) -> None:
    final, pairs = model.forward_intermediates(X, norm=True, return_prefix_tokens=True, output_fmt="NLC")
    assert torch.equal(torch.cat((pairs[-1][1], pairs[-1][0]), dim=1), final)
    assert torch.equal(pairs[0][0], model.norm(outputs_of_blocks(model, X)[0]))


def test_unknown_format(model: ConViT) -> None:
    with pytest.raises(ValueError, match="output_fmt: got 'NHWC', expected 'NCHW' or 'NLC'"):
        model.forward_intermediates(X, output_fmt="NHWC")


def test_feature_extractor_of_timm() -> None:
    features = timm.create_model("convit_micro_patch4_32", features_only=True, out_indices=[1, 3]).eval()
    assert features.feature_info.channels() == [144, 144]
    assert features.feature_info.reduction() == [4, 4]
    assert [tuple(out.shape) for out in features(torch.randn(1, 3, 16, 24))] == [(1, 144, 4, 6)] * 2


# -- pruning ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("indices", "kept"), [([0], 1), ([1], 2), ([0, 2], 3), (1, 3)])
def test_pruning_keeps_the_intermediates(model: ConViT, indices: Any, kept: int) -> None:
    before = model.forward_intermediates(X, indices=indices, intermediates_only=True)
    taken = model.prune_intermediate_layers(indices)
    assert len(model.blocks) == kept
    after = model.forward_intermediates(X, indices=taken, intermediates_only=True)
    assert all(torch.equal(got, expected) for got, expected in zip(after, before, strict=True))
    # The class token goes with the block that it would have joined, and the rest still runs.
    assert (model.cls_token is not None) == (kept == 3)
    assert model.num_prefix_tokens == (kept == 3)
    assert model(X).shape == (2, 24 + (kept == 3), 36)
    assert isinstance(model.head, nn.Identity)


def test_pruning_the_norm_but_not_the_head() -> None:
    model = tiny_model(global_pool="avg").eval()
    model.prune_intermediate_layers([1], prune_norm=True, prune_head=False)
    assert isinstance(model.norm, nn.Identity)
    assert model(X).shape == (2, 5)
    with pytest.raises(AssertionError, match=r"got .token., but the model has no class token"):
        model.reset_classifier(3, "token")


# -- the head --------------------------------------------------------------------------------------------------------


def test_pooling(model: ConViT) -> None:
    tokens = model.forward_features(X)
    for pool, read in (("token", tokens[:, 0]), ("avg", tokens[:, 1:].mean(1)), ("", tokens)):
        model.reset_classifier(7, pool)
        assert torch.equal(model.forward_head(tokens, pre_logits=True), read)
        assert torch.equal(model(X), model.head(read))


def test_new_head_keeps_device_type_and_mode() -> None:
    model = tiny_model(dtype=torch.bfloat16).eval()
    model.reset_classifier(7)
    head = model.get_classifier()
    assert head.weight.shape == (7, 36)
    assert (head.weight.dtype, head.training, model.global_pool) == (torch.bfloat16, False, "token")
    assert head.weight.std() < 0.05
    assert not head.bias.any()

    on_meta = tiny_model(device="meta")
    on_meta.reset_classifier(7, "avg")
    assert (on_meta.head.weight.device.type, on_meta.head.training, on_meta.global_pool) == ("meta", True, "avg")


def test_no_head_and_back() -> None:
    model = tiny_model(num_classes=0).double()
    assert isinstance(model.head, nn.Identity)
    assert model(X.double()).shape == (2, 36)
    model.reset_classifier(7)
    assert model(X.double()).shape == (2, 7)
    assert (model.num_classes, model.head.weight.dtype) == (7, torch.float64)
    with pytest.raises(ValueError, match="global_pool: got 'max'"):
        model.reset_classifier(7, "max")


# -- parameters ------------------------------------------------------------------------------------------------------


def test_embeddings_have_no_weight_decay(model: ConViT) -> None:
    assert model.no_weight_decay() == {"pos_embed", "cls_token"}
    assert model.no_weight_decay() <= {name for name, _ in model.named_parameters()}


def test_groups_of_parameters(model: ConViT) -> None:
    layer_of = group_parameters(model, model.group_matcher(), reverse=True)
    assert set(layer_of) == {name for name, _ in model.named_parameters()}
    for stem in ("cls_token", "pos_embed", "patch_embed.proj.weight"):
        assert layer_of[stem] == 0
    assert [layer_of[f"blocks.{block}.attn.proj.weight"] for block in range(3)] == [1, 2, 3]
    assert layer_of["head.weight"] > layer_of["norm.weight"] >= 3
