"""Averages over images against the metrics of each image by itself."""

import json
from dataclasses import replace

import pytest
import torch

from convit import ConViT
from convit.analysis import capture, entropy, head_diversity, non_locality, summary
from tests.analysis.models import ours

IMAGES = torch.randn(5, 3, 12, 20, generator=torch.Generator().manual_seed(3))


def test_summary_is_the_mean_over_images() -> None:
    model = ours()
    layers = summary(model, [IMAGES[:3], (IMAGES[3:], torch.zeros(2))])
    whole = capture(model, IMAGES)
    assert list(layers) == [layer.index for layer in whole.layers]
    for layer in whole.layers:
        got = layers[layer.index]
        assert (got.kind, got.grid, got.num_prefix_tokens) == (layer.kind, layer.grid, layer.num_prefix_tokens)
        torch.testing.assert_close(got.mean_map, layer.mixed.double().mean(0), atol=1e-6, rtol=0)
        far = non_locality(layer.mixed, layer.grid, layer.num_prefix_tokens).double().mean(0)
        torch.testing.assert_close(got.non_locality, far, atol=1e-5, rtol=0)
        torch.testing.assert_close(got.entropy, entropy(layer.mixed).double().mean((0, 2)), atol=1e-5, rtol=0)
        assert got.diversity == pytest.approx(head_diversity(layer.mixed).mean().item(), abs=1e-5)
        assert (got.gates is None) == (layer.kind != "gpsa")
        assert (got.centres is None) == (layer.kind == "sa")


def test_numbers_are_json_also_where_a_head_has_no_centre() -> None:
    model = ours()
    with torch.no_grad():
        model.blocks[0].attn.pos_proj.weight[:, 2] = -1.0
        model.blocks[0].attn.pos_proj.weight[1] = torch.tensor([1.0, 0.0, 0.5])
    document = json.loads(json.dumps(summary(model, [IMAGES])[0].to_dict(), allow_nan=False))
    assert document["layer"] == 1
    assert document["centres"][1] == [None, None]
    assert document["spans"][1] is None
    assert None not in document["centres"][0]


def test_one_head_has_no_diversity() -> None:
    model = ConViT(img_size=12, patch_size=4, num_classes=3, embed_dim=8, depth=1, num_heads=1, local_up_to_layer=1)
    assert summary(model, [IMAGES[:, :, :, :12]])[0].diversity is None


def test_diversity_is_json_too() -> None:
    layer = summary(ours(), [IMAGES])[0]
    assert layer.diversity is not None
    assert layer.to_dict()["diversity"] == round(layer.diversity, 4)
    assert replace(layer, diversity=float("nan")).to_dict()["diversity"] is None
