"""Starting from weights: what is taken, what is new, what stays as it is, how fast each block learns."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

import convit
from convit.data import Preprocess
from convit.errors import InputError
from convit.training import Stopped
from convit.training.engine import Trainer
from convit.training.run import train
from tests.training.small import StopAt, exact, metrics, options, photos, resume, trainer_of, weights


@pytest.fixture(scope="module")
def animals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return photos(tmp_path_factory.mktemp("data") / "animals", {"ape": 6, "bee": 5, "cow": 7})


@pytest.fixture(scope="module")
def plants(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return photos(tmp_path_factory.mktemp("data") / "plants", {"fern": 6, "moss": 6})


@pytest.fixture(scope="module")
def before(animals: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run to start from: at 8 x 12 pixels, with two GPSA blocks."""
    out = tmp_path_factory.mktemp("runs") / "before"
    train(options(animals, out, image_size=(8, 12), local_up_to_layer=2))
    return out


def started(data: Path, out: Path, **more: Any) -> Trainer:
    """A trainer that has not made a step."""
    return trainer_of(options(data, out, **{"model": None, "image_size": None, "patch_size": None} | more))


def test_all_but_the_head_is_taken(before: Path, plants: Path, tmp_path: Path) -> None:
    trainer = started(plants, tmp_path / "run", weights=before)
    old, new = weights(before), trainer.model.state_dict()
    assert new["head.weight"].shape == (2, 144)
    for name, tensor in old.items():
        assert name.startswith("head.") or torch.equal(new[name], tensor), name
    # Model, shape and preprocessing are those of the run as well.
    assert (trainer.plan.options.model, trainer.model.local_up_to_layer) == ("convit_micro_patch4_32", 2)
    assert trainer.plan.preprocess.image_size == (8, 12)
    assert trainer.plan.model_args["patch_size"] == 4
    assert trainer.plan.reasons["model"] == "convit_micro_patch4_32 (that of the weights)"


def test_a_stem_that_no_option_names_is_taken(plants: Path, tmp_path: Path) -> None:
    name, args = "convit_micro_patch4_32", {"img_size": [16, 16], "patch_size": 8, "hybrid_backbone": "resnet18"}
    model = convit.create_model(name, num_classes=2, **args)
    preprocess = Preprocess(image_size=(16, 16))
    convit.Classifier(model, preprocess, ["fern", "moss"], model_name=name, model_args=args).save(tmp_path / "own")
    trainer = started(plants, tmp_path / "run", weights=tmp_path / "own")
    assert trainer.plan.model_args["hybrid_backbone"] == "resnet18"
    own = safetensors.torch.load_file(tmp_path / "own/model.safetensors")
    new = trainer.model.state_dict()
    assert all(torch.equal(new[key], tensor) for key, tensor in own.items())


def test_the_head_is_kept_for_the_same_classes(before: Path, animals: Path, tmp_path: Path) -> None:
    new = started(animals, tmp_path / "run", weights=before).model.state_dict()
    assert all(torch.equal(new[name], tensor) for name, tensor in weights(before).items())


def test_a_bare_file_and_another_size(before: Path, plants: Path, tmp_path: Path) -> None:
    torch.save({"model": weights(before)}, tmp_path / "weights.pth")
    given = {"model": "convit_micro_patch4_32", "local_up_to_layer": 2, "weights": tmp_path / "weights.pth"}
    with pytest.raises(InputError, match=r"weights.pth: 6 position embeddings.*expected grid=\(height, width\)"):
        started(plants, tmp_path / "run", **given, image_size=(16,))
    larger = started(plants, tmp_path / "run", weights=before, image_size=(16, 24)).model
    assert larger.grid_size == (4, 6)
    assert torch.equal(larger.blocks[0].attn.qk.weight, weights(before)["blocks.0.attn.qk.weight"])


def test_frozen_blocks_stay_and_the_rest_learns(before: Path, plants: Path, tmp_path: Path) -> None:
    train(options(plants, tmp_path / "run", weights=before, freeze=3, image_size=None, model=None, patch_size=None))
    training = convit.load(tmp_path / "run").training
    assert training is not None
    assert (training.started_from, training.data) == ("before", "plants")  # for its card, without a path
    old, new = weights(before), weights(tmp_path / "run")
    frozen = [n for n in old if n.startswith(("patch_embed", "pos_embed", "blocks.0", "blocks.1.", "blocks.2.", "cls"))]
    # The class token joins before block 2, so it is among them: 2 + 1 + 1 + 15 + 15 + 11.
    assert len(frozen) == 45
    assert all(torch.equal(old[name], new[name]) for name in frozen)
    assert not torch.equal(old["blocks.3.attn.qkv.weight"], new["blocks.3.attn.qkv.weight"])


@pytest.mark.parametrize(("freeze", "trained"), [(0, True), (1, False)])
def test_freeze_counts_blocks(before: Path, plants: Path, tmp_path: Path, freeze: int, trained: bool) -> None:
    model = started(plants, tmp_path / "run", weights=before, freeze=freeze).model
    assert model.patch_embed.proj.weight.requires_grad == trained
    assert model.blocks[0].mlp.fc1.weight.requires_grad == trained
    assert model.blocks[1].mlp.fc1.weight.requires_grad
    assert model.cls_token is not None
    assert model.cls_token.requires_grad


def test_each_block_learns_slower_than_the_next(before: Path, plants: Path, tmp_path: Path) -> None:
    trainer = started(plants, tmp_path / "run", weights=before, layer_decay=0.5, lr=1e-3, warmup_epochs=0.0)
    trainer.learner.scheduler.step_update(0)
    names = {parameter: name for name, parameter in trainer.model.named_parameters()}
    rates = {names[p]: group["lr"] for group in trainer.learner.optimizer.param_groups for p in group["params"]}
    # Stem, four blocks (the norm goes with the last), head: each 1 / 2 of the next.
    expected = {"patch_embed.proj.weight": 5, "pos_embed": 5, "blocks.0.attn.qk.weight": 4, "blocks.3.mlp.fc1.bias": 1}
    for name, halvings in (expected | {"head.weight": 0, "norm.weight": 1}).items():
        assert rates[name] == pytest.approx(1e-3 / 2**halvings), name
    assert set(rates) == {name for name, _ in trainer.model.named_parameters()}
    decays = {group["weight_decay"] for group in trainer.learner.optimizer.param_groups}
    assert decays == {0.0, trainer.plan.options.weight_decay}


def test_finetune_is_the_recipe_of_weights(before: Path, plants: Path, tmp_path: Path) -> None:
    taken = started(plants, tmp_path / "run", weights=before).plan.options
    assert (taken.recipe, taken.layer_decay) == ("finetune", 0.75)
    taken = started(plants, tmp_path / "run", weights=before, recipe="small").plan.options
    assert (taken.recipe, taken.layer_decay) == ("small", 1.0)
    assert started(plants, tmp_path / "run").plan.options.recipe == "small"


def test_published_weights_are_asked_for(plants: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def create(name: str, **kwargs: Any) -> convit.ConViT:
        asked.update(kwargs, name=name)
        return convit.create_model(name, **kwargs | {"pretrained": False})

    monkeypatch.setattr("convit.training.engine.create_model", create)
    monkeypatch.setattr("convit.training.look_ahead.fetch_published", lambda name: asked.update(fetched=name))
    started(plants, tmp_path / "run", pretrained=True)
    assert (asked["name"], asked["pretrained"], asked["num_classes"]) == ("convit_tiny_patch16_224", True, 2)
    assert asked["fetched"] == asked["name"]


def test_a_resumed_fine_tuning_needs_its_weights_no_more(before: Path, plants: Path, tmp_path: Path) -> None:
    source = Path(shutil.copytree(before, tmp_path / "before"))
    same = {"weights": source, "freeze": 1, "image_size": (8,), "local_up_to_layer": 2}
    train(options(plants, tmp_path / "whole", **same))
    with pytest.raises(Stopped):
        train(options(plants, tmp_path / "run", **same), StopAt("epoch 2/2", 1))
    shutil.rmtree(source)
    train(resume(tmp_path / "run"))
    assert exact(tmp_path / "run") == exact(tmp_path / "whole")
    assert len(metrics(tmp_path / "run")) == 2


def test_faults(before: Path, plants: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no config.json in it; expected a run folder"):
        started(plants, tmp_path / "run", weights=plants)
    with pytest.raises(InputError, match=r"not the weights of this model.*2 with positions.*1 with positions"):
        started(plants, tmp_path / "run", weights=before, local_up_to_layer=1)
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(safetensors.torch.save(weights(before))[:1000])
    with pytest.raises(InputError, match=r"bad.safetensors: not a whole .safetensors file"):
        started(plants, tmp_path / "run", weights=bad)
    assert not (tmp_path / "run").exists()


def test_overwrite_never_deletes_what_the_run_starts_from(before: Path, plants: Path) -> None:
    whole = exact(before)
    for path in (before, before / "model.safetensors"):
        with pytest.raises(InputError, match="which --overwrite would delete with the weights"):
            train(options(plants, before, weights=path, overwrite=True, model=None, image_size=None, patch_size=None))
    assert exact(before) == whole
