"""The model card says what a classifier is, and nothing private; what a file says of a training is checked."""

import json
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import yaml

from convit.classifier_loading import load
from convit.model_card import MARKER, Described, TrainingFacts, data_name, model_card
from tests.helpers import refused
from tests.hub import no_network
from tests.test_sharing import made

__all__ = ["no_network"]  # a fixture


def parsed(card: str) -> tuple[dict[str, Any], str]:
    """Front matter and Markdown."""
    empty, front, body = card.split("---\n", 2)
    assert empty == ""
    return yaml.safe_load(front), body


def test_card() -> None:
    front, body = parsed(made().card("ann/flowers", license="mit"))
    (model,) = front.pop("model-index")
    assert front == {
        "library_name": "timm",
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "timm", "convit"],
        "license": "mit",
    }
    (result,) = model["results"]
    assert result["dataset"] == {"type": "flowers", "name": "flowers", "split": "test"}
    assert [(metric["type"], metric["value"]) for metric in result["metrics"]] == [
        ("accuracy", 0.88235),
        ("top_5_accuracy", 1.0),
    ]
    for words in (
        "# flowers\\: convit\\_micro\\_patch4\\_32",
        "4 blocks of width 144 (3 of them with gated positional self-attention) and patches of 4 x 4 pixels",
        "for images of 8 x 12 pixels",
        "Its 3 classes, in the order of the outputs: ape, bée \\$1, cow.",
        "| Data | flowers |\n| Images | 83 learned from, 11 validated on, 17 tested on |",
        "| Epochs | 29, of which these weights are epoch 23 |\n| Batch size | 8 |\n| Peak learning rate | 0.002 |",
        "| Weight decay | 0.05 |\n| Seed | 0 |",
        "Top-1 88.23% (95% interval 65.66 to 96.71), top-5 100.00% (95% interval 81.57 to 100.00), on 17 test images "
        "that were used for nothing else.",
        'convit.load("hf:ann/flowers")',
        'timm.create_model("hf-hub:ann/flowers", pretrained=True)',
        "ICML 2021, [arXiv:2103.10697](https://arxiv.org/abs/2103.10697)",
        MARKER,
    ):
        assert words in body


def test_the_hub_client_reads_the_scores() -> None:
    data = huggingface_hub.ModelCard(made().card()).data
    assert [(r.dataset_name, r.dataset_split, r.metric_type, r.metric_value) for r in data.eval_results] == [
        ("flowers", "test", "accuracy", 0.88235),
        ("flowers", "test", "top_5_accuracy", 1.0),
    ]


def test_card_without_test_images_says_so() -> None:
    facts = TrainingFacts(data="digits", val_images=11, val_top1=90.909)
    front, body = parsed(made(training=facts).card())
    assert front["model-index"][0]["results"][0]["dataset"]["split"] == "validation"
    assert "Top-1 90.91% (95% interval 62.26 to 98.38), on 11 validation images. They also chose the best epoch" in body
    assert "| Images | 11 validated on |" in body
    assert "| Epochs" not in body


def test_card_of_an_unknown_training() -> None:
    front, body = parsed(made(training=None).card())
    assert not {"model-index", "license"} & front.keys()
    assert "How this model was trained is not recorded." in body
    assert "## Accuracy\n\nNot recorded." in body
    assert 'timm.create_model("local-dir:path/to/this/folder"' in body
    assert "model-index" not in parsed(made(training=TrainingFacts(data="x", epochs=3)).card())[0]


def card_of(class_names: tuple[str, ...], **facts: Any) -> str:
    training = TrainingFacts(**facts) if facts else None
    names: dict[str, Any] = {"architecture": "a ConViT", "model_name": "m", "image_size": (8, 8)}
    return model_card(Described(class_names=class_names, training=training, **names))


def test_long_lists_are_shortened() -> None:
    assert "n18, n19." in card_of(tuple(f"n{i}" for i in range(20)))
    card = card_of(tuple(f"n{i}" for i in range(1000)))
    assert "Its 1000 classes, in the order of the outputs: n0, n1," in card
    assert "n19, and 980 more: `label_names` in `config.json` has all of them." in card
    assert "n20" not in card


HOSTILE = [
    "`rm`",
    "a|b",
    "<script>alert(1)</script>",
    "a\n---\nlicense: mit",
    "a\r\n# b",
    "[x](http://evil)",
    "![x](y)",
    "---",
    ": {}",
    "- x",
    "yes",
    "null",
    "&amp;",
    "a\x00b\x1b[31m",
    "\u202egnp",
    "*a* _b_ ~c~ \\",
    "!!python/object/apply:os.system [ls]",
    "'\"",
    "é☃🦁",
    "",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_names_break_neither_yaml_nor_markdown(name: str) -> None:
    name = data_name(name)
    card = card_of((name, "cow"), data=name, test_top1=50)
    front, body = parsed(card)
    assert set(front) == {"library_name", "pipeline_tag", "tags", "model-index"}
    public = front["model-index"][0]["results"][0]["dataset"]["name"]
    assert public == " ".join(name.split()) or "\N{REPLACEMENT CHARACTER}" in public
    assert huggingface_hub.ModelCard(card).data.eval_results[0].dataset_name == public
    # The frame is that of harmless names: as many lines, headings, cells, code marks and tags.
    _, harmless = parsed(card_of(("ape", "cow"), data="ape", test_top1=50))
    for count in (
        lambda text: text.count("\n"),
        lambda text: sum(line.startswith("#") for line in text.splitlines()),
        lambda text: text.replace("\\|", "").count("|"),
        lambda text: text.replace("\\`", "").count("`"),
        lambda text: text.count("<"),
        lambda text: text.replace("\\]", "").count("]("),
    ):
        assert count(body) == count(harmless)
    assert all(c.isprintable() or c == "\n" for c in card)


def test_broken_unicode_can_be_written() -> None:
    card_of(("caf\udce9",), data="caf\udce9", val_top1=1.0).encode()


@pytest.mark.parametrize(
    ("data", "name"),
    [
        ("/home/ann/flowers", "flowers"),
        ("/home/ann/flowers/", "flowers"),
        ("~/flowers", "flowers"),
        ("..\\ann\\flowers", "flowers"),
        ("\\\\server\\ann\\flowers", "flowers"),
        ("cifar10", "cifar10"),
        ("/", "data"),
        ("", "data"),
    ],
)
def test_no_path_gets_into_a_card(data: str, name: str) -> None:
    assert data_name(data) == name
    assert TrainingFacts(data=name).data == name  # what data_name gives is always taken


BAD_FACTS: list[tuple[Any, str]] = [
    (None, "got None, expected at least the key 'data'"),
    ([], "expected at least the key 'data'"),
    ({"epochs": 3}, "expected at least the key 'data'"),
    ({"data": "x", "epoch": 3}, "unknown key 'epoch'; did you mean 'epochs'?"),
    ({"data": 3}, "data: got 3, expected a name"),
    ({"data": "/home/ann/x"}, "data: got '/home/ann/x', expected no path, but a name such as 'x'"),
    ({"data": "C:\\ann\\x"}, "expected no path"),
    ({"data": "x", "epochs": 3.5}, "epochs: got 3.5, expected a number"),
    ({"data": "x", "epochs": "<b>"}, "epochs: got '<b>', expected a number"),
    ({"data": "x", "epochs": "3"}, "epochs: got '3', expected a number"),
    ({"data": "x", "seed": True}, "seed: got True, expected a number"),
    ({"data": "x", "seed": -1}, "seed: got -1, expected a number of at least 0"),
    ({"data": "x", "lr": float("nan")}, "lr: got nan, expected a number"),
    ({"data": "x", "test_top1": float("inf")}, "test_top1: got inf"),
    ({"data": "x", "test_top1": [1]}, "test_top1: got [1]"),
    ({"data": "x", "val_top1": 10**400}, "val_top1: got "),
    ({"data": "x", "": 3}, "unknown"),
]


@pytest.mark.parametrize(("facts", "words"), BAD_FACTS)
def test_training_facts_of_a_file_are_checked(facts: Any, words: str, tmp_path: Path) -> None:
    made().save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"training": facts}))
    message = refused(lambda: load(tmp_path), words)
    assert message.startswith(f"{tmp_path / 'config.json'}: training facts: ")
