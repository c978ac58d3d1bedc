"""One picture looked through, against the same things asked for one by one."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch import nn

from convit import Classifier, InputError
from convit.analysis import capture, inspect, masked, relevance, without_position_embedding
from convit.data import Preprocess, evaluation_transform
from tests.analysis.models import ours, vit
from tests.helpers import noise

CLASSES = ("ape", "bee", "cow", "dog", "elk")


def classifier() -> Classifier:
    model = ours()
    return Classifier(
        model, Preprocess(image_size=model.img_size), CLASSES[: model.num_classes], model_name="convit_micro_patch4_16"
    )


def photo() -> Image.Image:
    return noise(30, 40)


def test_it_is_what_the_parts_give() -> None:
    one, image = classifier(), photo()
    seen = inspect(one, image, top_k=2)
    pixels = evaluation_transform(one.preprocess)(image)[None]
    shot = capture(one.model, pixels, keep_graph=True)
    for mine, theirs in zip(seen.predictions, one.predict(image, top_k=2), strict=True):
        assert mine.class_name == theirs.class_name
        assert mine.probability == pytest.approx(theirs.probability, abs=1e-6)
    for kept, layer in zip(seen.layers, shot.layers, strict=True):
        assert torch.equal(kept.mixed, layer.mixed)
        assert not kept.mixed.requires_grad
    assert seen.relevance is not None
    torch.testing.assert_close(seen.relevance, relevance(shot)[0])
    assert seen.picture.size == one.preprocess.image_size[::-1]
    levels = np.asarray(seen.picture, dtype=float) / 255
    shown = (levels - one.preprocess.mean) / one.preprocess.std
    assert np.abs(shown - pixels[0].permute(1, 2, 0).numpy()).max() < 0.01  # half a level of 255, over std
    assert seen.patch_size * seen.layers[0].grid.height == seen.picture.size[1]


def test_masking_table() -> None:
    one, image = classifier(), photo()
    seen = inspect(one, image)
    pixels = evaluation_transform(one.preprocess)(image)[None]
    gated = [layer.index for layer in seen.layers if layer.kind == "gpsa"]
    table = {(row.off, row.layers): row for row in seen.masking}
    assert len(table) == 2 + 2 * len(gated)
    winner = seen.predictions[0]
    assert table["nothing", 0].best == table["nothing", 0].before
    assert table["nothing", 0].best.class_name == winner.class_name
    assert table["nothing", 0].best.probability == pytest.approx(winner.probability, abs=1e-6)
    for n in range(1, len(gated) + 1):
        for off in ("content", "position"):
            with masked(one.model, **{off: gated[:n]}), torch.no_grad():
                expected = one.model.eval()(pixels)[0].softmax(-1)
            row = table[off, n]
            best = int(expected.argmax())
            assert row.best.class_name == CLASSES[best]
            assert row.best.probability == pytest.approx(expected[best].item(), abs=1e-6)
            assert row.before.class_name == winner.class_name
            assert row.before.probability == pytest.approx(expected[CLASSES.index(winner.class_name)].item(), abs=1e-6)
    with without_position_embedding(one.model), torch.no_grad():
        expected = one.model(pixels)[0].softmax(-1)
    assert table["position embeddings", 0].best.probability == pytest.approx(expected.max().item(), abs=1e-6)


def test_some_layers_and_heads() -> None:
    seen = inspect(classifier(), photo(), layers=[1], heads=[2, 0], masking=False)
    assert [(layer.index, layer.heads, layer.mixed.shape[1]) for layer in seen.layers] == [(1, (2, 0), 2)]
    assert seen.relevance is None
    assert seen.masking == ()


@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_left_as_it_was(training: bool) -> None:
    one = classifier()
    one.model.train(training)
    before = {name: value.clone() for name, value in one.model.state_dict().items()}
    inspect(one, photo())
    assert one.model.training is training
    assert all(torch.equal(before[name], value) for name, value in one.model.state_dict().items())
    assert all(parameter.grad is None for parameter in one.model.parameters())


@pytest.mark.parametrize(("name", "kinds"), [("convit_tiny", {"gpsa", "sa"}), ("deit_tiny_patch16_224", {"sa"})])
def test_models_of_timm(name: str, kinds: set[str]) -> None:
    model = timm.create_model(name, img_size=64, depth=3, **({"local_up_to_layer": 2} if name == "convit_tiny" else {}))
    seen = inspect(model, photo())
    assert {layer.kind for layer in seen.layers} == kinds
    assert seen.picture.size == (64, 64)
    assert seen.predictions[0].class_name.startswith("class ")
    assert [row.off for row in seen.masking][::5] == (
        ["nothing", "position embeddings"] if "gpsa" in kinds else ["nothing"]
    )


def test_the_name_is_that_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "zebra.png"
    photo().save(path)
    assert inspect(classifier(), path, masking=False).name == "zebra.png"
    assert inspect(classifier(), str(path), name="mine", masking=False).name == "mine"
    assert inspect(classifier(), photo(), masking=False).name == "picture"


def test_bad_input(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="top_k: got 0, expected at least 1"):
        inspect(classifier(), photo(), top_k=0)
    with pytest.raises(InputError, match=r"none.png: cannot be read"):
        inspect(classifier(), tmp_path / "none.png")
    with pytest.raises(InputError, match=r"layers: got \[9\]"):
        inspect(classifier(), photo(), layers=[9])
    with pytest.raises(InputError, match="without a head"):
        inspect(timm.create_model("deit_tiny_patch16_224", img_size=32, depth=1, num_classes=0), photo())
    with pytest.raises(InputError, match="no attention of a known kind"):
        inspect(timm.create_model("resnet10t"), photo())
    with pytest.raises(InputError, match=r"expected an nn\.Module"):
        inspect(nn.Parameter(torch.zeros(1)), photo())  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_whatever_mode_the_caller_is_in(mode: Callable[[], AbstractContextManager[None]]) -> None:
    one, image = classifier(), photo()
    expected = inspect(one, image)
    with mode():
        one.model.eval()(torch.randn(1, 3, 16, 16))  # what it keeps of a pass does no harm
        seen = inspect(one, image)
    assert seen.relevance is not None
    assert expected.relevance is not None
    torch.testing.assert_close(seen.relevance, expected.relevance)
    assert seen.masking == expected.masking


def test_a_model_made_in_inference_mode_has_no_relevance() -> None:
    with torch.inference_mode():
        one = classifier()
    seen = inspect(one, photo())
    assert seen.relevance is None
    assert len(seen.layers) == 3
    assert seen.masking


@pytest.mark.parametrize("pooling", ["max", "avgmax", "map"])
def test_other_poolings_have_no_relevance(pooling: str) -> None:
    model = vit("vit_tiny_patch16_224", class_token=False, global_pool=pooling)
    seen = inspect(model, photo())
    assert seen.relevance is None
    assert len(seen.layers) == 2
    assert seen.masking[0].best.probability == pytest.approx(seen.predictions[0].probability, abs=1e-6)


def test_label_is_kept() -> None:
    assert inspect(classifier(), photo(), label="bee", masking=False).label == "bee"
    assert inspect(classifier(), photo(), masking=False).label is None


@pytest.mark.parametrize("wrong", [[], 3, np.array([0])], ids=repr)
@pytest.mark.parametrize("what", ["layers", "heads"])
def test_numbers_that_are_no_list(what: str, wrong: Any) -> None:
    with pytest.raises(InputError, match=rf"{what}: got .*, expected a list of numbers, such as \[0, 1\]"):
        inspect(classifier(), photo(), **{what: wrong})


def test_models_and_pictures_that_do_not_fit() -> None:
    for image in (np.zeros((16, 16, 3), np.float32), torch.zeros(3, 16, 16)):
        with pytest.raises(InputError, match=r"images: got an? (array|Tensor).*, expected a PIL image, a path"):
            inspect(classifier(), image)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="model: got one for pictures of 1 channels, expected 3"):
        inspect(vit(in_chans=1), photo())
    named = vit()
    named.pretrained_cfg = {**named.pretrained_cfg, "label_names": ["a", "b"]}  # type: ignore[dict-item]
    with pytest.raises(InputError, match="model: got 2 label_names, expected 5"):
        inspect(named, photo())
    with pytest.raises(InputError, match=r"model: got an output of shape \(1, 7, 5\), expected \(batch, classes\)"):
        inspect(vit(global_pool=""), photo())
