"""Weights in every format they come in give what they gave before; what does not fit is refused or reported by name."""

from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import pytest
import timm
import torch
from torch import Tensor, nn

from convit import ConViT, create_model, load_weights
from convit.grid import Grid
from convit.ops import naive
from tests.helpers import randomise, refused, relative_error, tiny_model
from tests.models.checkpoint_files import (
    Weights,
    authors_model,
    classifier,
    not_loaded,
    same_weights,
    saved,
    saved_safely,
    snapshot,
    taken,
    training_state,
)

GRID = Grid(14, 14)


class Published(NamedTuple):
    """timm's model of one size, and what it makes of an image and of a layer's tokens."""

    name: str
    weights: Weights
    image: Tensor
    logits: Tensor
    tokens: Tensor
    maps: list[Tensor]


def with_prefix(prefix: str, weights: Weights) -> Weights:
    return {prefix + name: tensor for name, tensor in weights.items()}


def other(weights: Weights) -> Weights:
    """Weights of the same shapes, for the entry that should not be taken."""
    return {name: torch.zeros_like(tensor) for name, tensor in weights.items()}


def timms_folder(name: str, weights: Weights, folder: Path) -> Path:
    """As timm itself saves a model for the Hub."""
    model = timm.create_model(name.removesuffix("_patch16_224"))
    model.load_state_dict(weights)
    timm.models.save_for_hf(model, folder, safe_serialization=True)
    return folder / "model.safetensors"


def our_folder(name: str, weights: Weights, folder: Path) -> Path:
    model = create_model(name)
    model.load_state_dict(weights)
    classifier(model, name).save(folder)
    return folder


FORMATS: dict[str, Callable[[str, Weights, Path], Path]] = {
    "bare": lambda name, w, to: saved(w, to / "convit.pth"),
    "legacy": lambda name, w, to: saved(w, to / "convit.pt", _use_new_zipfile_serialization=False),
    "model": lambda name, w, to: saved({"model": w, **training_state()}, to / "checkpoint.pth"),
    "state_dict": lambda name, w, to: saved({"state_dict": w, **training_state()}, to / "last.pth.tar"),
    "ddp": lambda name, w, to: saved({"model": with_prefix("module.", w)}, to / "a.pth"),
    "compiled": lambda name, w, to: saved(with_prefix("_orig_mod.", w), to / "a.bin"),
    "compiled in ddp": lambda name, w, to: saved(with_prefix("module._orig_mod.", w), to / "a.pth"),
    "ddp in compiled": lambda name, w, to: saved(with_prefix("_orig_mod.module.", w), to / "a.pth"),
    "compiled, safe": lambda name, w, to: saved_safely(with_prefix("_orig_mod.", w), to / "a.safetensors"),
    "timm": timms_folder,
    "ours": our_folder,
    "timm's EMA": lambda name, w, to: saved({"state_dict": other(w), "state_dict_ema": w}, to / "best.pth.tar"),
    "DeiT's EMA": lambda name, w, to: saved({"model": other(w), "model_ema": w, **training_state()}, to / "a.pth"),
    "DDP's EMA": lambda name, w, to: saved({"model": other(w), "model_ema": with_prefix("module.", w)}, to / "a.pth"),
    "EMA not kept": lambda name, w, to: saved({"model": w, "model_ema": None}, to / "a.pth"),
}
CASES = [("tiny", form) for form in FORMATS]
CASES += [("small", "model"), ("small", "timm"), ("base", "bare"), ("base", "ours")]


@pytest.fixture(scope="module")
def published(request: pytest.FixtureRequest) -> Published:
    torch.manual_seed(0)
    theirs = authors_model(request.param)
    image, tokens = torch.randn(1, 3, 224, 224), torch.randn(1, GRID.num_patches, theirs.embed_dim)
    with torch.no_grad():
        logits = theirs(image)
        maps = [block.attn.get_attention(tokens) for block in theirs.blocks if block.use_gpsa]
    assert len(maps) == 10
    assert logits.std() > 0.1  # not a constant that anything would match
    return Published(f"convit_{request.param}_patch16_224", dict(theirs.state_dict()), image, logits, tokens, maps)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that is gone at once: the files of base are large."""
    with TemporaryDirectory() as path:
        yield Path(path)


def maps_of(layer: nn.Module, tokens: Tensor) -> Tensor:
    q, k, v = layer.project(tokens)
    return naive.gated_attention(q, k, v, layer.gating_param, layer.pos_proj.weight, GRID)[1].mixed


def check_same(model: ConViT, published: Published) -> None:
    with torch.no_grad():
        assert relative_error(model.eval()(published.image), published.logits) < 1e-4
        layers = [block.attn for block in model.blocks][: len(published.maps)]
        for layer, expected in zip(layers, published.maps, strict=True):
            assert relative_error(maps_of(layer, published.tokens), expected) < 1e-4


@pytest.mark.parametrize(("published", "form"), CASES, indirect=["published"])
def test_same_logits_and_maps_from_every_format(published: Published, form: str, folder: Path) -> None:
    path = FORMATS[form](published.name, published.weights, folder)
    model = randomise(create_model(published.name))
    report = load_weights(model, path)
    assert set(report.loaded) == set(published.weights)
    assert report.resized == report.missing == report.unexpected == report.reshaped == ()
    assert same_weights(model.state_dict(), published.weights)
    check_same(model, published)
    if published.name.startswith("convit_base"):
        del model  # two of them are not needed at once
    check_same(create_model(published.name, checkpoint_path=path), published)


@pytest.mark.parametrize("entry", ["state_dict", "state_dict_ema", "model", "model_ema"])
def test_what_a_file_does_not_have_is_not_asked_for(entry: str, tmp_path: Path) -> None:
    weights = tiny_model().state_dict()
    path = saved({entry: weights}, tmp_path / "a.pth")
    for ema in (True, False):
        taken(path, weights, ema=ema)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_types_are_cast_to_the_models(dtype: torch.dtype, tmp_path: Path) -> None:
    weights = {name: tensor.to(dtype) for name, tensor in tiny_model().state_dict().items()}
    taken(saved(weights, tmp_path / "a.pth"), {name: tensor.float() for name, tensor in weights.items()})


# -- what does not fit -------------------------------------------------------------------------------------------------


def test_missing_unexpected_and_reshaped_are_named(tmp_path: Path) -> None:
    source, model = tiny_model().state_dict(), tiny_model()
    before = snapshot(model)
    source["extra.weight"] = torch.zeros(2)
    source["norm.weight"] = torch.zeros(7)
    del source["cls_token"]
    path = saved(source, tmp_path / "a.pth")
    words = "1 missing (cls_token)", "1 unexpected (extra.weight)", "1 of another shape (norm.weight (7,) for (36,))"
    not_loaded(model, path, str(path), *words)
    report = load_weights(model, path, partial=True)
    assert (report.missing, report.unexpected, report.reshaped) == (("cls_token",), ("extra.weight",), ("norm.weight",))
    assert set(report.loaded) == before.keys() - {"cls_token", "norm.weight"}
    assert report.resized == ()
    left = {"cls_token", "norm.weight"}
    assert same_weights(model.state_dict(), {name: (before if name in left else source)[name] for name in before})


def test_a_new_head_stays_as_it_is(tmp_path: Path) -> None:
    source, model = tiny_model().state_dict(), tiny_model(num_classes=3)
    before = snapshot(model)
    path = saved(source, tmp_path / "a.pth")
    not_loaded(model, path, "its head has 5 classes, the model's 3", "new_head=True")
    refused(lambda: create_model("convit_micro_patch4_32", num_classes=3, checkpoint_path=path), "not the weights")
    report = load_weights(model, path, new_head=True)
    assert report.missing == report.unexpected == report.reshaped == ()
    assert not {"head.weight", "head.bias"} & set(report.loaded)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, (before if name.startswith("head.") else source)[name])
    load_weights(bare := tiny_model(num_classes=0), path, new_head=True)
    assert same_weights(bare.state_dict(), {k: v for k, v in source.items() if not k.startswith("head.")})
    headless = saved(dict(bare.state_dict()), tmp_path / "b.pth")
    not_loaded(model, headless, "2 missing (head.weight, head.bias)")
    load_weights(model, headless, new_head=True)


def test_a_head_of_other_classes_is_left_out_of_a_part(tmp_path: Path) -> None:
    path = saved(tiny_model().state_dict(), tmp_path / "a.pth")
    assert load_weights(tiny_model(num_classes=3), path, partial=True).reshaped == ("head.weight", "head.bias")


def test_weights_of_another_architecture(tmp_path: Path) -> None:
    deit = saved(timm.create_model("deit_tiny_patch16_224").state_dict(), tmp_path / "deit.pth")
    small = saved(timm.create_model("convit_small").state_dict(), tmp_path / "small.pth")
    tiny = create_model("convit_tiny_patch16_224")
    for options in ({}, {"new_head": True}):
        not_loaded(tiny, deit, "deit.pth: not the weights of this model", "12 blocks, 0 with positions", **options)
    not_loaded(tiny, small, "the file: width 432, 12 blocks, 10 with positions; the model: width 192, 12 blocks")
    not_loaded(tiny_model(), deit, "nothing in it fits the model", partial=True)
    not_loaded(tiny, saved({"x": torch.ones(2)}, tmp_path / "x.pth"), "nothing in it fits the model", partial=True)


def test_a_part_of_deit(tmp_path: Path) -> None:
    """Its position embeddings count the class token: they are of another shape, and the rest is loaded."""
    deit = timm.create_model("deit_tiny_patch16_224").state_dict()
    model = create_model("convit_tiny_patch16_224")
    report = load_weights(model, saved(deit, tmp_path / "deit.pth"), partial=True)
    assert report.reshaped == ("pos_embed",)
    assert torch.equal(model.blocks[0].mlp.fc1.weight, deit["blocks.0.mlp.fc1.weight"])
    assert {"blocks.0.attn.gating_param", "blocks.9.attn.qk.weight"} <= set(report.missing)
    assert "blocks.0.attn.qkv.weight" in report.unexpected


def test_another_depth(tmp_path: Path) -> None:
    path = saved(tiny_model().state_dict(), tmp_path / "a.pth")
    not_loaded(tiny_model(depth=2), path, "unexpected (blocks.2.", "the model: width 36, 2 blocks")
    not_loaded(tiny_model(depth=4), path, "missing (blocks.3.", "the file: width 36, 3 blocks")
    assert load_weights(tiny_model(depth=2), path, partial=True).missing == ()


STRANGE: dict[str, dict[Any, Tensor]] = {
    "head without a dimension": {"head.weight": torch.tensor(1.0)},
    "class token without a dimension": {"cls_token": torch.tensor(1.0)},
    "a block that is no number": {"blocks.1x.weight": torch.ones(1)},
    "a digit that is no number": {"blocks.².weight": torch.ones(1)},
    "a name of two lines": {"two\nlines": torch.ones(1)},
    "a number for a name": {7: torch.ones(1)},
    "two position embeddings": {"pos_embed": torch.ones(2, 16, 36)},
    "two position embeddings of another grid": {"pos_embed": torch.ones(2, 9, 36)},
    "no position embeddings": {"pos_embed": torch.ones(1, 0, 36)},
    "flat position embeddings": {"pos_embed": torch.ones(36)},
}


@pytest.mark.parametrize("strange", STRANGE)
def test_strange_tensors_are_one_line(strange: str, tmp_path: Path) -> None:
    model = tiny_model()
    weights = tiny_model().state_dict() | STRANGE[strange]
    not_loaded(model, saved(weights, tmp_path / "a.pth"), "a.pth: ")
