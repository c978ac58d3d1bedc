"""``pretrained=True``: the published weights, here from a cache laid out by hand. No test reaches the network."""

import json
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, NoReturn

import huggingface_hub
import pytest
import safetensors.torch
import timm
import torch
from huggingface_hub import errors
from timm.layers import resample_abs_pos_embed
from torch import nn

from convit import create_model
from tests.helpers import refused, relative_error
from tests.hub import add_to_cache, no_network
from tests.models.checkpoint_files import Weights, authors_model, same_weights, saved, snapshot

__all__ = ["no_network"]  # a fixture

TINY = "convit_tiny_patch16_224"


class Published(NamedTuple):
    """timm's model of one size, in a cache of the Hub's client."""

    size: str
    theirs: nn.Module
    cache: Path

    @property
    def weights(self) -> Weights:
        return self.theirs.state_dict()


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "empty"))  # not that of this machine


def in_a_cache(size: str, cache: Path) -> Published:
    torch.manual_seed(0)
    theirs = authors_model(size)
    weights = safetensors.torch.save(dict(theirs.state_dict()), metadata={"format": "pt"})
    config = {"architecture": f"convit_{size}", "num_classes": 1000}
    files = {"model.safetensors": weights, "config.json": json.dumps(config).encode()}
    add_to_cache(cache, f"timm/convit_{size}.fb_in1k", files)
    return Published(size, theirs, cache)


@pytest.fixture(scope="module")
def tiny() -> Iterator[Published]:
    with TemporaryDirectory() as folder:
        yield in_a_cache("tiny", Path(folder))


def created(published: Published, name: str = TINY, **options: Any) -> nn.Module:
    return create_model(name, pretrained=True, cache_dir=published.cache, **options).eval()


@pytest.mark.parametrize("size", ["tiny", "small", "base"])
def test_same_as_timms_own(size: str) -> None:
    with TemporaryDirectory() as folder:
        published = in_a_cache(size, Path(folder))
        model = created(published, f"convit_{size}_patch16_224")
    assert same_weights(model.state_dict(), published.weights)
    x = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        assert relative_error(model(x), published.theirs(x)) < 1e-4


def test_timm_finds_them_too(tiny: Published) -> None:
    for name in (TINY, f"{TINY}.fb_in1k", "convit_tiny"):
        model = timm.create_model(name, pretrained=True, cache_dir=tiny.cache)
        assert same_weights(model.state_dict(), tiny.weights)


def test_in_the_clients_own_cache(tiny: Published, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tiny.cache))
    assert same_weights(create_model(TINY, pretrained=True).state_dict(), tiny.weights)


def test_other_classes_get_a_fresh_head(tiny: Published) -> None:
    model = created(tiny, num_classes=10)
    assert model.head.weight.shape == (10, 192)
    assert 0 < model.head.weight.std() < 0.03  # drawn, and not from the weights, which are of 0.1
    assert not model.head.bias.any()
    assert same_weights(model.state_dict(), tiny.weights, without=("head.weight", "head.bias"))
    headless = created(tiny, num_classes=0).state_dict()
    assert headless.keys() == tiny.weights.keys() - {"head.weight", "head.bias"}
    assert all(torch.equal(headless[name], tiny.weights[name]) for name in headless)


@pytest.mark.parametrize("in_chans", [1, 4])
def test_other_channels(in_chans: int, tiny: Published) -> None:
    model = created(tiny, in_chans=in_chans)
    theirs = timm.create_model("convit_tiny", pretrained=True, in_chans=in_chans, cache_dir=tiny.cache).eval()
    assert same_weights(model.state_dict(), theirs.state_dict())
    if in_chans == 1:
        assert torch.allclose(model.patch_embed.proj.weight, tiny.weights["patch_embed.proj.weight"].sum(1, True))
    x = torch.randn(1, in_chans, 224, 224)
    with torch.no_grad():
        assert relative_error(model(x), theirs(x)) < 1e-4


SIZES = [(384, (24, 24)), ((320, 192), (20, 12)), ((448, 112), (28, 7)), ((112, 448), (7, 28)), (224, (14, 14))]


@pytest.mark.parametrize(("img_size", "grid"), SIZES)
def test_other_sizes(img_size: Any, grid: tuple[int, int], tiny: Published) -> None:
    model = created(tiny, img_size=img_size)
    expected = tiny.weights["pos_embed"]
    if grid != (14, 14):
        expected = resample_abs_pos_embed(expected, list(grid), [14, 14], num_prefix_tokens=0)
        assert expected.shape[1] != 196 or not torch.equal(expected, tiny.weights["pos_embed"])
    assert same_weights(model.state_dict(), tiny.weights | {"pos_embed": expected})


def test_everything_at_once(tiny: Published) -> None:
    model = created(tiny, img_size=(320, 192), num_classes=10, in_chans=1)
    with torch.no_grad():
        assert model(torch.randn(2, 1, 320, 192)).shape == (2, 10)
    assert torch.equal(model.norm.weight, tiny.weights["norm.weight"])


@pytest.mark.parametrize("name", [TINY, "convit_tiny"])
def test_features(name: str, tiny: Published) -> None:
    options: dict[str, Any] = {"features_only": True, "out_indices": (2, 9, 11), "cache_dir": tiny.cache}
    model = timm.create_model(name, pretrained=True, **options).eval()
    x = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        features = model(x)
        expected = tiny.theirs.forward_intermediates(x, indices=[2, 9, 11], intermediates_only=True)
    assert [tuple(feature.shape) for feature in features] == [(1, 192, 14, 14)] * 3
    for feature, other in zip(features, expected, strict=True):
        assert relative_error(feature, other) < 1e-4


def test_features_at_another_size(tiny: Published) -> None:
    options: dict[str, Any] = {"features_only": True, "out_indices": (2,), "cache_dir": tiny.cache}
    model = timm.create_model(TINY, pretrained=True, img_size=(320, 192), **options).eval()
    whole = created(tiny, img_size=(320, 192))
    x = torch.randn(1, 3, 320, 192)
    with torch.no_grad():
        assert torch.equal(model(x)[0], whole.forward_intermediates(x, indices=[2], intermediates_only=True)[0])


# -- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", ["tiny", "small", "base"])
def test_neither_network_nor_cache(size: str, tmp_path: Path) -> None:
    words = (
        f"pretrained: could not fetch timm/convit_{size}.fb_in1k from the Hugging Face Hub",
        "it is not in the cache",
        f"expected https://huggingface.co/timm/convit_{size}.fb_in1k/resolve/main/model.safetensors from elsewhere",
        f"--weights FILE --model convit_{size}_patch16_224 in place of --pretrained (in Python checkpoint_path=FILE)",
    )
    name = f"convit_{size}_patch16_224"
    refused(lambda: create_model(name, pretrained=True), *words)
    refused(lambda: create_model(name, pretrained=True, cache_dir=tmp_path), *words)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (errors.LocalEntryNotFoundError("no\nnetwork"), "the Hub was not reached"),
        (errors.OfflineModeIsEnabled("offline\nmode"), "HF_HUB_OFFLINE is set"),
        (OSError("disk\nfull"), "disk full"),
    ],
)
def test_a_client_that_fails_is_asked_once(error: Exception, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def failing(*args: Any, **kwargs: Any) -> NoReturn:
        asked.append(args)
        raise error

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", failing)
    refused(lambda: create_model(TINY, pretrained=True), reason, "checkpoint_path=FILE")
    assert asked == [("timm/convit_tiny.fb_in1k", "model.safetensors")]


def test_the_file_that_is_asked_for_can_be_handed_over(tiny: Published) -> None:
    file = next(tiny.cache.glob("models--timm--convit_tiny.fb_in1k/snapshots/*/model.safetensors"))
    assert same_weights(create_model(TINY, checkpoint_path=file).state_dict(), tiny.weights)


@pytest.mark.parametrize("name", ["convit_tiny_plus_patch16_224", "convit_micro_patch4_32", "convit_small_patch4_32"])
def test_a_name_without_published_weights(name: str) -> None:
    message = refused(lambda: create_model(name, pretrained=True), f"no weights are published for {name}")
    assert message.endswith("one of convit_tiny_patch16_224, convit_small_patch16_224, convit_base_patch16_224")


@pytest.mark.parametrize("num_classes", [10, 1000])
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"depth": 6, "local_up_to_layer": 5}, "12 blocks, 10 with positions; the model: width 192, 6 blocks, 5 with"),
        ({"depth": 14}, "missing (blocks.12."),
        ({"local_up_to_layer": 8}, "missing (blocks.8.attn.qkv.weight"),
        ({"embed_dim": 196}, "width 192, 12 blocks, 10 with positions; the model: width 196"),
        ({"num_heads": 6}, "pos_proj.weight (4, 3) for (6, 3)"),
        ({"qkv_bias": True}, "missing (blocks.0.attn.qk.bias"),
        ({"gated": False}, "unexpected (blocks.0.attn.gating_param"),
        ({"use_pos_embed": False}, "unexpected (pos_embed)"),
        ({"patch_size": 8}, "196 position embeddings"),
    ],
)
def test_another_shape_is_refused_where_timm_would_load_a_part(
    options: dict[str, Any], words: str, num_classes: int, tiny: Published
) -> None:
    refused(lambda: created(tiny, num_classes=num_classes, **options), "timm/convit_tiny.fb_in1k: ", words)


def test_a_damaged_download(tmp_path: Path) -> None:
    add_to_cache(tmp_path, "timm/convit_tiny.fb_in1k", {"model.safetensors": b"<html>502</html>"})
    refused(lambda: create_model(TINY, pretrained=True, cache_dir=tmp_path), "convit_tiny.fb_in1k")


@pytest.mark.parametrize("left_out", [["patch_embed.proj.weight"], ["head.weight", "head.bias"]])
def test_a_file_of_ones_own_lacks_nothing(left_out: list[str], tiny: Published, tmp_path: Path) -> None:
    """timm's loader is told of a file; a missing stem or head would stay as it was drawn, or be many lines."""
    weights = {name: tensor for name, tensor in snapshot(tiny.theirs).items() if name not in left_out}
    overlay = {"file": str(saved(weights, tmp_path / "a.pth")), "hf_hub_id": None, "num_classes": 1000}
    classes = 10 if left_out[0].startswith("patch") else 1000
    refused(
        lambda: create_model(TINY, pretrained=True, pretrained_cfg_overlay=overlay, num_classes=classes), left_out[0]
    )
