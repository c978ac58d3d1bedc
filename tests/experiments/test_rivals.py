"""What stands beside ConViT in the study small-data: the models, and their runs."""

from pathlib import Path

import pytest
import torch

import convit
from convit.choices import STUDY_RIVALS
from convit.errors import InputError
from convit.experiments import cell
from convit.experiments.rivals import RIVALS
from convit.training import Stopped
from convit.training.run import train
from convit.training.run_folder import RunFolder
from tests.training.small import StopAt, exact, metrics, options, resume

# At 10 classes and 32 px, by hand: 3 x 3 kernels, batch norms, 1 x 1 shortcuts and a head; ResNet-18 as in torchvision
# (11,689,512), with 10 classes and a first kernel of 3 x 3; CCT as in its paper (0.28 million).
STAGES = (2 * 9216 + 128, 18432 + 36864 + 256 + 2048 + 128, 73728 + 147456 + 512 + 8192 + 256)
PARAMETERS = {
    "cnn": 864 + 64 + sum(STAGES) + 1290,
    "cnn-24": 174_274,
    "resnet18": 11_689_512 - 1000 * 513 + 10 * 513 - 64 * 3 * (49 - 9),
    "cct": 75_456 + 64 * 128 + 2 * 99_200 + 129 + 256 + 1290,
}


def test_they_are_those_that_messages_know() -> None:
    assert tuple(name for name, rival in RIVALS.items() if rival.other) == STUDY_RIVALS == tuple(PARAMETERS)
    assert next(iter(RIVALS)) == "convit"


@pytest.mark.parametrize("name", STUDY_RIVALS)
def test_sizes(name: str) -> None:
    build = RIVALS[name].build
    assert build is not None
    model = build(10, (32, 32)).eval()
    assert sum(parameter.numel() for parameter in model.parameters()) == PARAMETERS[name]
    for size in (32, 24):  # a run may show smaller images first
        assert model(torch.zeros(2, 3, size, size)).shape == (2, 10)
        assert build(7, (size, size))(torch.zeros(2, 3, size, size)).shape == (2, 7)
    assert model.get_parameter(f"{model.first_conv}.weight").shape[1] == model.in_chans == 3
    assert model.head.out_features == model.num_classes == 10
    assert model.no_weight_decay() <= {parameter for parameter, _ in model.named_parameters()}


def test_a_large_image_has_the_published_stem() -> None:
    build = RIVALS["resnet18"].build
    assert build is not None
    model = build(10, (224, 224))
    assert model.get_parameter("body.conv1.weight").shape[2:] == (7, 7)
    assert model(torch.zeros(2, 3, 224, 224)).shape == (2, 10)


def test_sequence_pooling_is_a_weighted_mean() -> None:
    """Equal tokens have equal weights, so the pooled token is each of them."""
    build = RIVALS["cct"].build
    assert build is not None
    model = build(3, (16, 16)).eval()
    with torch.no_grad():
        model.get_parameter("position").zero_()
        model.get_submodule("tokenizer").register_forward_hook(lambda module, given, out: out[:, :, :1, :1] * 0 + 1)
        one = model(torch.rand(1, 3, 16, 16))
        model.get_submodule("tokenizer").register_forward_hook(lambda module, given, out: out.expand(-1, -1, 4, 4))
        torch.testing.assert_close(model(torch.rand(1, 3, 16, 16)), one)


COUNTS = {"dark": 10, "light": 10}


@pytest.mark.parametrize("name", ["cnn", "cct"])
def test_a_run(name: str, data: Path, tmp_path: Path) -> None:
    """Stopped in the middle it goes on to the same bits, and its folder says what was trained."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    run = train(options(data, whole), other=RIVALS[name].other)
    assert run.evaluation.num_images == sum(run.plan.facts.counts["val"])
    with pytest.raises(Stopped):
        train(options(data, broken), StopAt("epoch 2/2", 1), other=RIVALS[name].other)
    cell._train(resume(broken), name)
    assert exact(broken) == exact(whole)

    assert all(record["gates"] == [] and "non_locality" not in record for record in metrics(whole))
    asked = RunFolder(whole).read_options()
    assert (asked.model, asked.patch_size, asked.locality_strength) == (name, None, None)
    says = rf"config\.json: model: got '{name}', expected .* 'convit models' lists; {name} is a rival of the study"
    with pytest.raises(InputError, match=says) as error:
        convit.load(whole)
    assert "\n" not in str(error.value)
    with pytest.raises(InputError, match=f"model: got '{name}', .* a rival"):
        train(resume(broken))
