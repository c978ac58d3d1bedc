"""What is measured after a run."""

from pathlib import Path

import pytest

from convit import Classifier, create_model
from convit.data import Preprocess, open_folder
from convit.experiments.measures import NO_POSITION_EMBEDDING, flops, masked_accuracies
from convit.models.variants import model_facts
from convit.train import evaluate
from tests.cli.command import photos


def classifier(**args: object) -> Classifier:
    name = "convit_micro_patch4_16"
    model = create_model(name, num_classes=2, img_size=8, **args).eval()
    model_args = {"img_size": [8, 8], **args}
    return Classifier(model, Preprocess(image_size=(8, 8)), ["cat", "dog"], model_name=name, model_args=model_args)


def test_masked_accuracies(tmp_path: Path) -> None:
    source = open_folder(photos(tmp_path / "pets", {"cat": 3, "dog": 4}))
    images = source.part("whole")
    ours = classifier()
    got = masked_accuracies(ours, images, (1, 3, 9))
    assert list(got) == [
        NO_POSITION_EMBEDDING,
        *(f"no {kind} in {layers}" for layers in (1, 3) for kind in ("content", "position")),
    ]
    ours.model.pos_embed.data.zero_()  # type: ignore[union-attr]
    assert evaluate(ours.model, images, ours.preprocess).top1 == got[NO_POSITION_EMBEDDING]
    assert list(masked_accuracies(classifier(local_up_to_layer=0), images, (1,))) == [NO_POSITION_EMBEDDING]


def test_flops_are_those_of_the_models_command() -> None:
    name = "convit_micro_patch4_16"
    made = Classifier(
        create_model(name), Preprocess(image_size=(16, 16)), [str(i) for i in range(1000)], model_name=name
    )
    assert flops(made) == next(facts.flops for facts in model_facts() if facts.name == name)
    assert flops(classifier()) < flops(made) / 3


@pytest.mark.parametrize("gated", [True, False])
def test_flops_of_any_attention(gated: bool) -> None:
    assert flops(classifier(gated=gated)) > 0
