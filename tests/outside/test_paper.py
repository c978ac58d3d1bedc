"""What the paper and the dependencies do, where it is easy to differ from them."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from convit import create_model
from convit.data import Augmentation, Draw, Preprocess, seeded, training_transform
from convit.experiments.studies.locality import STUDY
from convit.preprocess import prepared

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize("row", ["c, d, g", "a"])
def test_without_the_convolutional_start_small_models_start_from_the_papers_normal(row: str) -> None:
    model = create_model("convit_nano_patch4_32", conv_init=row == "a")
    attention = model.blocks[0].attn
    spread = {name: getattr(attention, name).weight.std().item() for name in ("qk", "v", "proj")}
    if row == "a":
        assert torch.equal(attention.v.weight, torch.eye(72))
        assert spread["qk"] == pytest.approx(72**-0.5, rel=0.1)
    else:
        assert spread["qk"] == pytest.approx(0.02, rel=0.1)
        assert spread["v"] == pytest.approx(0.02, rel=0.1)
        assert attention.pos_proj.weight.abs().max() < 0.08
    assert spread["proj"] == pytest.approx(72**-0.5, rel=0.1)  # not part of the start that is compared


def test_figure_8_takes_the_first_classes() -> None:
    assert STUDY.paper is not None
    assert STUDY.paper["classes"] == 100  # which are the first: tests/data/test_select.py


@pytest.mark.parametrize("local", [3, 0], ids=["ConViT", "twin"])
def test_small_models_carry_no_class_token_that_nothing_reads(local: int) -> None:
    model = create_model("convit_nano_patch4_32", local_up_to_layer=local, num_classes=5)
    assert model.num_prefix_tokens == 0
    assert not any("cls_token" in name for name in model.state_dict())
    assert model.forward_features(torch.randn(1, 3, 32, 32)).shape == (1, 64, 72)
    with pytest.raises(AssertionError, match="no class token"):
        model.reset_classifier(5, "token")
    with pytest.raises(ValueError, match="class_token: got False with global_pool='token'"):
        create_model("convit_nano_patch4_32", global_pool="token")


def test_no_two_kinds_of_draws_share_their_numbers() -> None:
    assert len({int(draw) for draw in Draw}) == len(Draw.__members__)


def test_posterize_keeps_at_least_one_bit() -> None:
    """timm asks for 0 bits at the highest magnitude: Pillow 13 refuses it, older ones give a black picture."""
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8))
    augmentation = Augmentation(crop="none", rand_augment="rand-m10-n4-mstd0-inc1")
    transform = training_transform(Preprocess(image_size=(8, 8)), augmentation)
    for seed in range(60):
        with seeded(seed):
            assert transform(picture).isfinite().all()


def test_the_example_prepares_a_picture_as_convit_does() -> None:
    pytest.importorskip("onnxruntime")
    spec = importlib.util.spec_from_file_location("predict_onnx", EXAMPLES / "predict_onnx.py")
    assert spec is not None
    assert spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    draw = np.random.default_rng(0)
    for size in [(16, 16), (16, 24)]:
        for crop_pct in (1.0, 0.875):
            preprocess = Preprocess(image_size=size, crop_pct=crop_pct)
            for width, height in draw.integers(5, 90, (200, 2)).tolist():
                width, height = min(width, 8 * height), min(height, 8 * width)
                picture = Image.fromarray(draw.integers(0, 256, (height, width, 3), np.uint8))
                got, expected = example.prepare(picture, preprocess.to_dict()), prepared(picture, preprocess)
                assert np.array_equal(got, expected), (size, crop_pct, width, height)
