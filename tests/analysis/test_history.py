"""What a run notes of its attention: the mean over chosen images, and nothing of the model or the dice moved."""

import random
from typing import Any

import numpy as np
import pytest
import torch

from convit.analysis import batches, capture, history, non_locality
from convit.classifier import Classifier
from convit.data import ArrayImages, Preprocess, evaluation_transform
from convit.errors import InputError
from tests.helpers import randomise, step, tiny_model

CLASSES = ("ape", "bee", "cow", "dog", "emu")
SIZE = (12, 20)
GRID = (3, 5)


def classifier(**overrides: Any) -> Classifier:
    model = randomise(tiny_model(img_size=SIZE, **overrides))
    return Classifier(model, Preprocess(image_size=SIZE), CLASSES, model_name="tiny")  # type: ignore[arg-type]


def pictures(count: int) -> ArrayImages:
    pixels = np.random.default_rng(3).integers(0, 256, (count, 12, 20, 3), dtype=np.uint8)
    return ArrayImages(pixels, [f"{i}" for i in range(count)], np.arange(count) % 5, CLASSES)


def expected(model: Classifier, images: ArrayImages, chosen: list[int]) -> np.ndarray:
    """One image at a time, then the mean."""
    transform = evaluation_transform(model.preprocess)
    far = []
    for index in chosen:
        shot = capture(model.model, transform(images.read(index))[None])
        far.append([non_locality(layer.mixed[0], GRID, layer.num_prefix_tokens).tolist() for layer in shot.layers])
    return np.mean(far, axis=0)


@pytest.mark.parametrize(
    ("count", "most", "chosen"), [(5, 64, [0, 1, 2, 3, 4]), (10, 4, [0, 2, 5, 7]), (9, 3, [0, 3, 6]), (3, 1, [0])]
)
def test_mean_over_images_evenly_spread(count: int, most: int, chosen: list[int]) -> None:
    model, images = classifier(), pictures(count)
    got = history.attention_record(model, images, most)
    assert list(got) == ["non_locality"]
    np.testing.assert_allclose(got["non_locality"], expected(model, images, chosen), atol=6e-5)  # of four digits
    assert [[round(value, 4) for value in layer] for layer in got["non_locality"]] == got["non_locality"]


@pytest.mark.parametrize("overrides", [{"local_up_to_layer": 0}, {"local_up_to_layer": 3}, {"gated": False}])
def test_every_attention_layer_is_in_it(overrides: dict[str, Any]) -> None:
    far = history.attention_record(classifier(**overrides), pictures(2))["non_locality"]
    assert np.shape(far) == (3, 9)
    assert np.min(far) > 0


def test_batches_of_any_size_and_large_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    model, images = classifier(), pictures(7)
    whole = history.attention_record(model, images)["non_locality"]
    sizes: list[int] = []
    model.model.patch_embed.register_forward_pre_hook(lambda _module, args: sizes.append(len(args[0])))
    monkeypatch.setattr(batches, "MAP_NUMBERS", 3 * (3 * 5) ** 2)
    np.testing.assert_allclose(history.attention_record(model, images)["non_locality"], whole, atol=2e-4)
    monkeypatch.setattr(batches, "MAP_NUMBERS", 1)
    np.testing.assert_allclose(history.attention_record(model, images)["non_locality"], whole, atol=2e-4)
    assert sizes == [3, 3, 1] + [1] * 7


def test_nothing_is_moved() -> None:
    model, images = classifier(attn_drop_rate=0.9, drop_path_rate=0.9), pictures(3)
    model.model.train()
    model.model.blocks[1].eval()  # a part that someone froze
    step(model.model, torch.randn(2, 3, *SIZE))
    modes = [module.training for module in model.model.modules()]
    before = {name: value.clone() for name, value in model.model.state_dict().items()}
    gradients = {name: p.grad.clone() for name, p in model.model.named_parameters() if p.grad is not None}
    dice = (torch.get_rng_state(), random.getstate(), repr(np.random.get_state()))  # noqa: NPY002
    first = history.attention_record(model, images)
    assert torch.equal(torch.get_rng_state(), dice[0])
    assert (random.getstate(), repr(np.random.get_state())) == dice[1:]  # noqa: NPY002
    assert [module.training for module in model.model.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in model.model.state_dict().items())
    assert gradients.keys() == {name for name, p in model.model.named_parameters() if p.grad is not None}
    assert all(torch.equal(p.grad, gradients[n]) for n, p in model.model.named_parameters() if p.grad is not None)
    assert history.attention_record(model, images) == first


def test_half_precision_weights() -> None:
    model, images = classifier(), pictures(2)
    whole = history.attention_record(model, images)["non_locality"]
    model.model.bfloat16()
    np.testing.assert_allclose(history.attention_record(model, images)["non_locality"], whole, rtol=0.1)


def test_nothing_to_look_at() -> None:
    with pytest.raises(InputError, match="images: got none, expected at least one"):
        history.attention_record(classifier(), pictures(0))
    with pytest.raises(InputError, match="most: got 0, expected at least 1"):
        history.attention_record(classifier(), pictures(2), most=0)
