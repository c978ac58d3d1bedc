"""The models of the paper are timm's: names and shapes of the weights, and what comes out."""

import pytest
import timm
import torch
from timm.models.convit import ConVit as TimmConViT

from convit import create_model
from tests.helpers import randomise, relative_error


@pytest.mark.parametrize(("size", "count"), [("tiny", 5_710_512), ("small", 27_777_322), ("base", 86_540_040)])
def test_parameter_counts_of_the_paper(size: str, count: int) -> None:
    assert sum(p.numel() for p in create_model(f"convit_{size}_patch16_224", device="meta").parameters()) == count
    assert sum(p.numel() for p in timm.create_model(f"convit_{size}", device="meta").parameters()) == count


@pytest.mark.parametrize("pool", ["token", "avg"])
def test_same_logits_as_timm(pool: str) -> None:
    theirs = randomise(timm.create_model("convit_tiny", img_size=64, global_pool=pool), std=0.1).eval()
    ours = create_model("convit_tiny_patch16_224", img_size=64, global_pool=pool).eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = theirs(x)
        assert relative_error(ours.forward_features(x), theirs.forward_features(x)) < 1e-4
        assert relative_error(ours(x), expected) < 1e-4
    assert expected.std() > 0.1  # not a constant that anything would match


def test_twin_of_plain_attention_is_timms_without_gpsa() -> None:
    shape = {"img_size": 32, "depth": 3, "num_heads": 4, "num_classes": 7, "local_up_to_layer": 0}
    theirs = randomise(TimmConViT(embed_dim=48, **shape)).eval()
    ours = create_model("convit_tiny_patch16_224", embed_dim=192, **shape).eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert relative_error(ours(x), theirs(x)) < 1e-4
