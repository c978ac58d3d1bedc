"""A saved model is the same model; a folder that is none, or that was tampered with, is one line."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image, ImageOps

import convit
from convit.calibration import Calibration
from convit.classifier import Classifier
from convit.data import Preprocess
from convit.data.images import as_rgb, read_image
from convit.device import pick_device
from convit.errors import InputError
from convit.model_card import TrainingFacts
from tests import helpers
from tests.outside.handed_over import changed

CLASSES, ARGS = ("ape", "bée $1", "cow"), {"img_size": [8, 12], "patch_size": 4, "local_up_to_layer": 3}


def made(class_names: tuple[str, ...] = CLASSES, training: TrainingFacts | None = None) -> Classifier:
    torch.manual_seed(1)
    model = convit.create_model("convit_micro_patch4_32", num_classes=len(class_names), **ARGS)
    torch.nn.init.normal_(model.head.weight, std=0.5)  # else every class is as probable
    preprocess = Preprocess(image_size=(8, 12), mean=(0.4, 0.5, 0.6), interpolation="bilinear", crop_pct=0.9)
    name = "convit_micro_patch4_32"
    return Classifier(model, preprocess, class_names, model_name=name, model_args=ARGS, training=training)


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    torch.manual_seed(2)
    pixels = torch.randint(256, (3, 20, 30, 3), dtype=torch.uint8).numpy()
    return [Image.fromarray(p) for p in pixels]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made().save(tmp_path / "run")
    return tmp_path / "run"


def test_round_trip(folder: Path, pictures: list[Image.Image]) -> None:
    saved, loaded = made(), convit.load(folder)
    assert not any(module.training for module in loaded.model.modules())  # or batch norm mixes images, and learns
    assert torch.equal(loaded.probabilities(pictures), saved.probabilities(pictures))
    assert loaded.preprocess == saved.preprocess
    assert (loaded.class_names, loaded.model_name, loaded.model_args) == (CLASSES, "convit_micro_patch4_32", ARGS)
    assert {path.name for path in folder.iterdir()} == {"model.safetensors", "config.json"}
    loaded.save(folder)
    assert torch.equal(convit.load(str(folder)).probabilities(pictures), saved.probabilities(pictures))


def test_timm_reads_it(folder: Path, pictures: list[Image.Image]) -> None:
    model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    config = timm.data.resolve_model_data_config(model)
    assert (config["input_size"], config["interpolation"], config["crop_pct"]) == ([3, 8, 12], "bilinear", 0.9)
    assert list(config["mean"]) == [0.4, 0.5, 0.6]
    assert model.pretrained_cfg["label_names"] == list(CLASSES)
    x = torch.randn(2, 3, 8, 12)
    assert torch.equal(model(x), made().model.eval()(x))


def test_probabilities(pictures: list[Image.Image]) -> None:
    classifier = made()
    got = classifier.probabilities(pictures)
    assert (got.shape, got.dtype) == ((3, 3), torch.float32)
    torch.testing.assert_close(got.sum(1), torch.ones(3))
    torch.testing.assert_close(classifier.probabilities(pictures, batch_size=2), got)
    assert classifier.probabilities([]).shape == (0, 3)
    assert got.std(0).max() > 1e-4  # the pictures differ
    classifier.model.train()  # drop path and dropout must not show
    assert torch.equal(classifier.probabilities(pictures), got)


def test_predict_takes_pictures_and_paths(tmp_path: Path, pictures: list[Image.Image]) -> None:
    classifier = made()
    path = tmp_path / "a.png"
    pictures[0].save(path)
    expected = classifier.predict(pictures[0])
    assert classifier.predict(path) == classifier.predict(str(path)) == classifier.predict([path])[0] == expected
    opaque = pictures[0].convert("RGBA")
    assert classifier.predict(opaque) == expected
    grey = pictures[1].convert("L")
    assert classifier.predict([grey, opaque]) == classifier.predict([grey.convert("RGB"), pictures[0]])
    assert classifier.predict([]) == []


def test_predict_takes_arrays_and_turns_pictures_upright(pictures: list[Image.Image]) -> None:
    classifier = made()
    arrays = [np.asarray(picture) for picture in pictures]
    expected = [classifier.predict(picture) for picture in pictures]
    assert classifier.predict(arrays) == classifier.predict(pictures)
    assert [classifier.predict(array) for array in arrays] == expected
    assert classifier.predict(np.stack([arrays[0]] * 2)) == classifier.predict([pictures[0]] * 2)
    grey = pictures[0].convert("L")
    assert classifier.predict(np.asarray(grey)) == classifier.predict(grey)
    lying = pictures[0].transpose(Image.Transpose.ROTATE_90)
    lying.getexif()[0x0112] = 6  # as a phone held upright writes it: to be turned by 270 degrees
    assert classifier.predict(lying) == expected[0]
    wrongs = (arrays[0].astype(np.float32), arrays[0][..., :2], arrays[0][:0], torch.tensor(arrays[0]), 3, None, [3])
    for wrong in wrongs:
        for call in (classifier.predict, classifier.probabilities):
            with pytest.raises(InputError, match=r"images: got an? .*, expected a"):
                call(wrong)
    assert torch.equal(classifier.probabilities(arrays[0]), classifier.probabilities([pictures[0]]))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_once(orientation: int, tmp_path: Path) -> None:
    """By whichever way: a path, what was read from it, what Pillow opened."""
    noise = helpers.noise(7, 12)
    exif = Image.Exif()
    exif[0x0112] = orientation
    noise.save(tmp_path / "a.png", exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(tmp_path / "a.png")))
    once = read_image(tmp_path / "a.png")
    for picture in (tmp_path / "a.png", once, Image.open(tmp_path / "a.png"), as_rgb(once)):
        assert np.array_equal(np.asarray(as_rgb(picture)), expected)
    damaged = noise.copy()
    damaged.info["exif"] = b"Exif\0\0garbage"
    assert np.array_equal(np.asarray(as_rgb(damaged)), np.asarray(noise))


def test_predict_ranks(pictures: list[Image.Image]) -> None:
    classifier = made()
    ranked = classifier.predict(pictures[0])
    values = dict(zip(CLASSES, classifier.probabilities([pictures[0]])[0].tolist(), strict=True))
    assert {p.class_name: p.probability for p in ranked} == values
    assert [p.probability for p in ranked] == sorted(values.values(), reverse=True)
    assert [len(classifier.predict(pictures[0], top_k=k)) for k in (1, 2, 3, 99)] == [1, 2, 3, 3]
    with pytest.raises(InputError, match="top_k: got 0, expected a whole number of at least 1"):
        classifier.predict(pictures[0], top_k=0)


@pytest.mark.parametrize("names", [("a", "b"), ("a", "b", "b"), ("a", "b", "c", "d")])
def test_class_names_fit_the_outputs(names: tuple[str, ...]) -> None:
    with pytest.raises(InputError, match=r"class_names: got . different ones, expected 3, one per output"):
        Classifier(made().model, Preprocess(image_size=(8, 12)), names, model_name="m")


def test_a_failed_save_leaves_the_old_one(folder: Path, pictures: list[Image.Image], monkeypatch: Any) -> None:
    before = convit.load(folder).probabilities(pictures)

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    other = made()
    torch.nn.init.zeros_(other.model.head.weight)
    with pytest.raises(OSError, match="No space"):
        other.save(folder)
    assert torch.equal(convit.load(folder).probabilities(pictures), before)


# -- folders that do not load ----------------------------------------------------------------------------------------


def refused(folder: Path, culprit: str, *words: str) -> None:
    message = helpers.refused(lambda: convit.load(folder), *words)
    assert message.startswith(f"{folder / culprit if culprit else folder}: "), message


def test_no_run(folder: Path, tmp_path: Path) -> None:
    refused(tmp_path / "missing", "", "no such folder; expected a run folder of 'convit train'")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "", "no config.json in it")
    (folder / "model.safetensors").unlink()
    refused(folder, "", "no model.safetensors in it")


BROKEN = {
    **dict.fromkeys((b"", b"{", b"\xff\xfe", b"[" * 10**5), ""),
    **dict.fromkeys((b"[]", b"5", b'{"pretrained_cfg": 3}', b'{"pretrained_cfg": []}'), "no names with values"),
    b"{}": "no entry 'pretrained_cfg'",
    b'{"pretrained_cfg": {"label_names": [], "input_size": null}}': "input_size is None, no list",
}


@pytest.mark.parametrize(("text", "says"), BROKEN.items())
def test_broken_config(text: bytes, says: str, folder: Path) -> None:
    (folder / "config.json").write_bytes(text)
    refused(folder, "config.json", "not a model's configuration", says, "expected what 'convit train' writes")


@pytest.mark.parametrize("left", [0, 4, 100, 0.5, 0.999])
def test_truncated_weights(left: float, folder: Path) -> None:
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: int(left * len(data)) if left < 1 else int(left)])
    refused(folder, "model.safetensors", "not a whole .safetensors file")


@pytest.mark.parametrize("place", [0.1, 0.5, 0.999])
def test_flipped_bit_in_the_weights(place: float, folder: Path) -> None:
    """Still a whole file, of another model."""
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[int(place * len(data))] ^= 64
    (folder / "model.safetensors").write_bytes(data)
    refused(folder, "model.safetensors", "damaged, it is not what was written (checksum)")


def label_names(config: dict[str, Any], names: Any) -> None:
    config["pretrained_cfg"]["label_names"] = names


@pytest.mark.parametrize(
    ("change", "culprit", "word"),
    [
        (lambda c: label_names(c, ["a", "b"]), "model.safetensors", "not the weights"),
        (lambda c: c["model_args"].update(teeth=3), "config.json", "unknown model_args ['teeth']"),
        (lambda c: c["model_args"].update(pretrained=True), "config.json", "unknown model_args ['pretrained']"),
        (lambda c: c["model_args"].update(checkpoint_path="x"), "config.json", "unknown model_args"),
        (lambda c: c["model_args"].update(depth=0), "config.json", "depth: got 0, expected a whole number from 1 to"),
        (lambda c: c["model_args"].update(patch_size=5), "config.json", "nearest: 5 x 10 or 10 x 15"),
        (lambda c: c["model_args"].update(embed_dim=288), "model.safetensors", "size mismatch"),
        (lambda c: c.update(architecture="convit_micro_patch4_33"), "config.json", "did you mean 'convit_micro_patch"),
        (lambda c: c.update(architecture=["x"]), "config.json", "wrong type"),
        (lambda c: c["pretrained_cfg"].update(sharpen=1), "config.json", "unknown key 'sharpen'"),
        (lambda c: c["pretrained_cfg"].pop("mean"), "config.json", "no key 'mean'"),
    ],
)
def test_config_that_does_not_fit(change: Callable[..., Any], culprit: str, word: str, folder: Path) -> None:
    changed(folder, change)
    refused(folder, culprit, word)


@pytest.mark.parametrize(
    "change",
    [
        {"architecture": "os.system"},
        {"architecture": "hf-hub:foo/bar"},
        {"architecture": "local-dir:/tmp"},
        {"architecture": "resnet18"},
        {"model_args": {"hybrid_backbone": "hf-hub:foo/bar"}},
        {"model_args": {"hybrid_backbone": "local-dir:/tmp"}},
        {"model_args": {"hybrid_backbone": "os.system"}},
        {"model_args": {"norm_layer": "torch.nn.LayerNorm"}},
    ],
)
def test_nothing_that_a_file_names_is_imported_or_fetched(
    change: dict[str, Any], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*args: Any, **kwargs: Any) -> None:
        raise SystemError(f"reached {args}")

    monkeypatch.setattr(os, "system", forbidden)
    monkeypatch.setattr("socket.socket.connect", forbidden)
    monkeypatch.setattr("timm.models._factory.load_model_config_from_hf", forbidden)
    monkeypatch.setattr("importlib.import_module", forbidden)
    changed(folder, lambda config: config.update(change))
    refused(folder, "config.json")


# -- devices ---------------------------------------------------------------------------------------------------------


def test_devices() -> None:
    assert pick_device("cpu").type == "cpu"
    assert pick_device().type in ("cpu", "cuda", "mps")
    with pytest.raises(InputError, match="device: got 'tpu', expected auto, cuda, mps, cpu"):
        pick_device("tpu")


@pytest.mark.parametrize("name", ["cuda", "mps"])
def test_device_that_is_not_there(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert pick_device("auto").type == "cpu"
    with pytest.raises(InputError, match=f"device: got '{name}', which this machine .* lacks; available: cpu"):
        pick_device(name)


def test_auto_prefers_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert pick_device("auto").type == "cuda"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device("auto").type == "mps"


def _tanh(model: Any) -> None:
    model.blocks[0].mlp.act = torch.nn.Tanh()


def _subclass(model: Any) -> None:
    class Own(convit.GPSA):
        pass

    model.blocks[0].attn.__class__ = Own


def _hook(model: Any) -> None:
    model.blocks[0].attn.pos_proj.register_forward_hook(lambda _module, _args, out: 0 * out)


def _parametrised(model: Any) -> None:
    torch.nn.utils.parametrizations.weight_norm(model.blocks[1].mlp.fc1)


@pytest.mark.parametrize("change", [_tanh, _subclass, _hook, _parametrised])
def test_a_model_that_load_would_not_give_again_is_not_saved(change: Callable[[Any], None], tmp_path: Path) -> None:
    classifier = made()
    change(classifier.model)
    with pytest.raises(InputError, match=r"model: got .* as blocks\.[01]"):
        classifier.save(tmp_path / "changed")
    assert not (tmp_path / "changed").exists()


def test_dropout_makes_no_other_model(tmp_path: Path) -> None:
    classifier = made()
    classifier.model.blocks[0].drop_path = timm.layers.DropPath(0.3)
    classifier.model.blocks[0].mlp.drop1.p = 0.5
    classifier.save(tmp_path / "dropped")
    assert convit.load(tmp_path / "dropped").model_args == ARGS


def test_predict_leaves_each_module_in_its_mode(pictures: list[Image.Image]) -> None:
    classifier = made()
    classifier.model.train()
    classifier.model.blocks[0].eval()  # frozen
    before = [module.training for module in classifier.model.modules()]
    classifier.predict(pictures)
    assert [module.training for module in classifier.model.modules()] == before


def test_calibration_of_other_weights_is_not_saved(tmp_path: Path) -> None:
    classifier = made()
    classifier.calibration = Calibration(temperature=1.5, images=300)
    classifier.save(tmp_path / "run")
    loaded = convit.load(tmp_path / "run")
    loaded.save(tmp_path / "again")
    with torch.no_grad():
        loaded.model.head.bias += 1
    with pytest.raises(InputError, match="calibration: got that of the weights that were loaded"):
        loaded.save(tmp_path / "trained")
    loaded.calibration = Calibration(temperature=1.2, images=300)
    loaded.save(tmp_path / "trained")
    assert convit.load(tmp_path / "trained").temperature == 1.2


def test_reject_is_a_number(pictures: list[Image.Image]) -> None:
    with pytest.raises(InputError, match=r"reject: got .* expected a number"):
        made().answer(pictures, reject="0.05")  # type: ignore[arg-type]
