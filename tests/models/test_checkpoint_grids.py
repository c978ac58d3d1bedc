"""Weights of one image size in a model of another: resized from the grid they were trained on, or refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from timm.layers import resample_abs_pos_embed
from torch import Tensor

from convit import ConViT, create_model, load_weights
from tests.helpers import randomise, relative_error, tiny_model
from tests.models.checkpoint_files import (
    authors_model,
    classifier,
    not_loaded,
    same_weights,
    saved,
    saved_safely,
    taken,
)

MICRO = "convit_micro_patch4_32"
TINY = "convit_tiny_patch16_224"


def resized(positions: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    return resample_abs_pos_embed(positions, list(new), list(old), num_prefix_tokens=0)


def resized_by_hand(positions: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    image = positions.view(1, *old, -1).permute(0, 3, 1, 2)
    image = torch.nn.functional.interpolate(image, new, mode="bicubic", antialias=True)
    return image.flatten(2).transpose(1, 2)


def micro(height: int, width: int, **options: Any) -> ConViT:
    return randomise(create_model(MICRO, img_size=(height, width), num_classes=3, **options), std=0.1).eval()


@pytest.mark.parametrize(("img_size", "grid"), [(384, (24, 24)), ((320, 192), (20, 12)), (160, (10, 10))])
def test_a_224_checkpoint_at_another_size(img_size: Any, grid: tuple[int, int], tmp_path: Path) -> None:
    theirs = authors_model("tiny").state_dict()
    model = create_model(TINY, img_size=img_size).eval()
    report = load_weights(model, saved(theirs, tmp_path / "convit_tiny.pth"))
    assert report.resized == ("pos_embed",)
    assert "pos_embed" in report.loaded
    expected = resized(theirs["pos_embed"], (14, 14), grid)
    assert torch.equal(model.pos_embed, expected)
    assert relative_error(expected, resized_by_hand(theirs["pos_embed"], (14, 14), grid)) < 1e-6
    assert same_weights(model.state_dict(), theirs | {"pos_embed": expected})
    if grid == (24, 24):  # timm's own model counts on a square
        square = timm.create_model("convit_tiny", img_size=384).eval()
        square.load_state_dict(model.state_dict())
        x = torch.randn(1, 3, 384, 384)
        with torch.no_grad():
            assert relative_error(model(x), square(x)) < 1e-4


@pytest.mark.parametrize("size", [(32, 32), (16, 48)])
@pytest.mark.parametrize("own", [True, False])
def test_the_same_size_changes_nothing(size: tuple[int, int], own: bool, tmp_path: Path) -> None:
    source, model = micro(*size), micro(*size)
    if own:
        classifier(source, MICRO, img_size=list(size)).save(tmp_path / "own")
    else:
        saved(source.state_dict(), tmp_path / "own")
    assert load_weights(model, tmp_path / "own").resized == ()
    assert same_weights(model.state_dict(), source.state_dict())


def test_as_many_patches_on_another_grid(tmp_path: Path) -> None:
    theirs = authors_model("tiny").state_dict()
    path = saved(theirs, tmp_path / "a.pth")
    model = create_model(TINY, img_size=(448, 112))
    not_loaded(model, path, "196 position embeddings, 14 x 14 or 28 x 7", "grid=(height, width)")
    assert load_weights(model, path, grid=(14, 14)).resized == ("pos_embed",)
    assert torch.equal(model.pos_embed, resized(theirs["pos_embed"], (14, 14), (28, 7)))
    assert load_weights(model, path, grid=(28, 7)).resized == ()
    assert torch.equal(model.pos_embed, theirs["pos_embed"])


def test_a_count_that_is_no_square_is_asked_about(tmp_path: Path) -> None:
    source = micro(16, 48)  # 4 x 12 patches
    path = saved(source.state_dict(), tmp_path / "a.pth")
    model = micro(32, 32)
    not_loaded(model, path, "48 position embeddings, which is no square", "grid=(height, width)")
    load_weights(model, path, grid=(4, 12))
    assert torch.equal(model.pos_embed, resized(source.pos_embed, (4, 12), (8, 8)))


@pytest.mark.parametrize("grid", [(3, 5), (0, 0), (0, 16), (-4, -4), (16, 0)])
def test_a_grid_that_the_file_does_not_fill(grid: tuple[int, int], tmp_path: Path) -> None:
    path = saved(tiny_model().state_dict(), tmp_path / "a.pth")
    not_loaded(tiny_model(img_size=20), path, f"{grid[0]} x {grid[1]}", grid=grid)


def test_our_own_folder_says_its_grid(tmp_path: Path) -> None:
    source = micro(16, 64)  # 4 x 16 patches: as many as 8 x 8
    classifier(source, MICRO, img_size=[16, 64]).save(tmp_path)
    model = micro(32, 32)
    for path in (tmp_path, tmp_path / "model.safetensors"):
        assert load_weights(randomise(model), path).resized == ("pos_embed",)
        assert torch.equal(model.pos_embed, resized(source.pos_embed, (4, 16), (8, 8)))
    load_weights(model, tmp_path, grid=(16, 4))  # who says otherwise is believed
    assert torch.equal(model.pos_embed, resized(source.pos_embed, (16, 4), (8, 8)))


def test_a_file_that_is_not_square_in_a_model_that_is_not(tmp_path: Path) -> None:
    source = micro(16, 48)
    classifier(source, MICRO, img_size=[16, 48]).save(tmp_path)
    for size, grid in (((48, 16), (12, 4)), ((24, 40), (6, 10)), ((32, 32), (8, 8))):
        load_weights(model := micro(*size), tmp_path)
        assert torch.equal(model.pos_embed, resized(source.pos_embed, (4, 12), grid))


def test_without_position_embeddings(tmp_path: Path) -> None:
    path = saved(tiny_model(use_pos_embed=False).state_dict(), tmp_path / "a.pth")
    assert load_weights(tiny_model(img_size=24, use_pos_embed=False), path).resized == ()
    not_loaded(tiny_model(), path, "1 missing (pos_embed)")
    path = saved(tiny_model().state_dict(), tmp_path / "b.pth")
    not_loaded(model := tiny_model(img_size=24, use_pos_embed=False), path, "1 unexpected (pos_embed)")
    assert load_weights(model, path, partial=True).unexpected == ("pos_embed",)


# -- our own folders under timm ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(32, 32), (16, 48), (16, 64)])
def test_timm_gives_the_same_logits(size: tuple[int, int], tmp_path: Path) -> None:
    source = micro(*size)
    classifier(source, MICRO, img_size=list(size)).save(tmp_path)
    model = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    x = torch.randn(2, 3, *size)
    with torch.no_grad():
        assert source(x).std() > 0.01
        assert torch.equal(model(x), source(x))
    assert same_weights(model.state_dict(), source.state_dict())


@pytest.mark.parametrize("size", [(48, 48), (64, 16), (24, 40)])
@pytest.mark.parametrize("trained", [(32, 32), (16, 64)])
def test_timm_at_another_size(trained: tuple[int, int], size: tuple[int, int], tmp_path: Path) -> None:
    source = micro(*trained)
    classifier(source, MICRO, img_size=list(trained)).save(tmp_path)
    model = timm.create_model(f"local-dir:{tmp_path}", pretrained=True, img_size=size).eval()
    old, new = [(height // 4, width // 4) for height, width in (trained, size)]
    assert torch.equal(model.pos_embed, resized(source.pos_embed, old, new))
    assert same_weights(model.state_dict(), source.state_dict(), without=("pos_embed",))
    x = torch.randn(1, 3, *size)
    with torch.no_grad():  # what the model itself does with images of another size
        assert relative_error(model(x), source(x)) < 1e-5


@pytest.mark.parametrize("options", [{"num_classes": 7}, {"in_chans": 1}, {"num_classes": 7, "img_size": (32, 32)}])
def test_timm_with_other_classes_or_channels(options: dict[str, Any], tmp_path: Path) -> None:
    """As from any repository that timm reads: a head of other classes is left out, the stem is adapted."""
    source = micro(16, 48)
    classifier(source, MICRO, img_size=[16, 48]).save(tmp_path)
    model = timm.create_model(f"local-dir:{tmp_path}", pretrained=True, **options)
    adapted = ("head.weight", "head.bias", "patch_embed.proj.weight", "pos_embed")
    assert same_weights(model.state_dict(), source.state_dict(), without=adapted)
    assert model.head.out_features == options.get("num_classes", 3)
    assert model.patch_embed.proj.in_channels == options.get("in_chans", 3)


def test_timm_where_pictures_are_larger_than_the_trained_grid(tmp_path: Path) -> None:
    """A model may be run at another size than it holds position embeddings of: it resizes them itself."""
    source = micro(32, 32)
    classifier(source, MICRO, image_size=(48, 48)).save(tmp_path)
    model = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    x = torch.randn(1, 3, 48, 48)
    with torch.no_grad():
        assert torch.equal(model(x), source(x))


# -- nonsense beside a file --------------------------------------------------------------------------------------------

NONSENSE: list[Any] = [
    [3, 0, 0],
    [3, -16, -16],
    [3, "16", "16"],
    [3, "a", 10**13],
    [3, "a", 10**20],
    [3, [1], 10**13],
    [3, 10**400, 10**400],
    [3, 1e308, 1e308],
    [3, float("nan"), float("inf")],
    [3, None, 16],
    [3, {}, []],
    [3, [[16]], [[16]]],
    [[3, 16, 16]],
    [16, 16],
    [],
    {},
    "3,16,16",
    16,
    None,
]
SIZES = [*map(json.dumps, NONSENSE), "[3, 16, " + "9" * 5000 + "]"]
TEXTS = ["", "{", "[]", "null", '"x"', '{"pretrained_cfg": 3}', '{"pretrained_cfg": {}}', "[" * 100_000, "\udcff\x00"]


@pytest.mark.parametrize("text", [*TEXTS, *(f'{{"pretrained_cfg": {{"input_size": {size}}}}}' for size in SIZES)])
def test_a_config_that_is_none_is_as_good_as_none(text: str, tmp_path: Path) -> None:
    source = tiny_model().state_dict()
    saved_safely(dict(source), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_bytes(text.encode(errors="surrogateescape"))
    taken(tmp_path, source)


@pytest.mark.parametrize("shape", [(), (36,), (1, 36)])
def test_a_config_beside_misshapen_position_embeddings(shape: tuple[int, ...], tmp_path: Path) -> None:
    saved_safely(tiny_model().state_dict() | {"pos_embed": torch.ones(shape)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"pretrained_cfg": {"input_size": [3, 16, 16]}}))
    not_loaded(tiny_model(), tmp_path, "of another shape (pos_embed")
