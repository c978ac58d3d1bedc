"""An exported file is the model's function, alone, at every batch and size; and the predictor without PyTorch."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import convit
import convit_onnx
from convit import export
from convit.classifier import Classifier
from convit.data import Preprocess
from convit.errors import InputError
from convit.export import export_onnx, export_torch, onnx_runner
from convit.export_verification import verified
from tests.helpers import needs_export, randomise, relative_error

WITHOUT = 'not installed: pip install "convit[export]"'
CLASSES = ("ape", "bée $1", "cow", 'd"og', "9")
NAME = "convit_micro_patch4_16"


def made(**changes: Any) -> Classifier:
    torch.manual_seed(1)
    args: dict[str, Any] = {
        "img_size": [16, 16],
        "patch_size": 4,
        "embed_dim": 36,
        "depth": 2,
        "local_up_to_layer": 1,
    } | changes
    model = convit.create_model(NAME, num_classes=5, **args)
    randomise(model)
    preprocess = Preprocess(image_size=tuple(args["img_size"]), mean=(0.4, 0.5, 0.6), crop_pct=0.9)
    return Classifier(model.eval(), preprocess, CLASSES, model_name=NAME, model_args=args)


def random_images(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(shape[0]))


def logits(classifier: Classifier, images: Tensor) -> Tensor:
    with torch.no_grad():
        return classifier.model(images)


MODELS = [
    {},
    {"local_up_to_layer": 0},  # plain attention
    {"local_up_to_layer": 2, "qkv_bias": True},  # a class token inside a GPSA block
    {"gated": False, "local_up_to_layer": 2},
    {"use_pos_embed": False, "global_pool": "avg"},
    {"img_size": [8, 20]},
]
IDS = ["gpsa", "plain", "all-gpsa", "psa", "no-embedding", "rectangle"]


@needs_export
@pytest.mark.parametrize("args", MODELS, ids=IDS)
def test_onnx_of_every_kind(args: dict[str, Any], tmp_path: Path) -> None:
    classifier, path = made(**args), tmp_path / "model.onnx"
    done = export_onnx(classifier, path)
    assert done.difference < 1e-5
    assert done.int8_difference is None
    assert (done.path, done.bytes) == (path, path.stat().st_size)
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]
    run = onnx_runner(path)
    for batch in (1, 2, 3, 7):
        images = random_images(batch, 3, *classifier.preprocess.image_size)
        assert relative_error(run(images), logits(classifier, images)) < 1e-5


@needs_export
@pytest.mark.parametrize("args", MODELS, ids=IDS)
def test_onnx_of_any_size(args: dict[str, Any], tmp_path: Path) -> None:
    classifier, path = made(**args), tmp_path / "model.onnx"
    done = export_onnx(classifier, path, dynamic_size=True)
    assert len(done.image_sizes) == 3
    run = onnx_runner(path)
    for batch, height, width in ((1, 16, 16), (2, 8, 20), (7, 40, 12), (1, 8, 8), (3, 12, 36)):
        images = random_images(batch, 3, height, width)
        assert relative_error(run(images), logits(classifier, images)) < 1e-5
    for height, width in ((18, 16), (16, 17)):  # cut down to a multiple it would be another picture
        with pytest.raises(Exception, match=r"[Rr]eshape"):
            run(random_images(1, 3, height, width))


@needs_export
def test_onnx_with_a_cnn_as_its_stem(tmp_path: Path) -> None:
    classifier = made(hybrid_backbone="resnet10t", img_size=[32, 32], patch_size=16)
    for dynamic_size in (False, True):
        assert export_onnx(classifier, tmp_path / "model.onnx", dynamic_size=dynamic_size).difference < 1e-5


@pytest.mark.parametrize("dynamic_size", [False, True])
@pytest.mark.parametrize("args", [{}, {"gated": False}], ids=["gpsa", "psa"])
def test_torch_format(args: dict[str, Any], dynamic_size: bool, tmp_path: Path) -> None:
    classifier = made(**args)
    done = export_torch(classifier, tmp_path / "model.pt2", dynamic_size=dynamic_size)
    assert done.difference < 1e-5
    assert [p.name for p in tmp_path.iterdir()] == ["model.pt2"]
    extra = {"metadata.json": ""}
    run = torch.export.load(tmp_path / "model.pt2", extra_files=extra).module()
    facts = json.loads(extra["metadata.json"])
    assert json.loads(facts["class_names"]) == list(CLASSES)
    assert Preprocess.from_dict(json.loads(facts["preprocessing"])) == classifier.preprocess
    for batch, height, width in ((1, 16, 16), (7, 16, 16), *(((2, 8, 20), (5, 20, 8)) if dynamic_size else ())):
        images = random_images(batch, 3, height, width)
        assert relative_error(run(images), logits(classifier, images)) < 1e-5
    assert b"/site-packages/" not in (tmp_path / "model.pt2").read_bytes()


@needs_export
def test_one_file_that_says_what_it_is(tmp_path: Path) -> None:
    import onnx

    classifier = made()
    (tmp_path / "a").mkdir()
    export_onnx(classifier, tmp_path / "a/model.onnx")
    elsewhere = Path(shutil.move(tmp_path / "a/model.onnx", tmp_path / "moved.onnx"))
    shutil.rmtree(tmp_path / "a")
    images = random_images(2, 3, 16, 16)
    assert relative_error(onnx_runner(elsewhere)(images), logits(classifier, images)) < 1e-5
    model = onnx.load(elsewhere, load_external_data=False)
    onnx.checker.check_model(model, full_check=True)
    assert not any(tensor.external_data for tensor in model.graph.initializer)
    facts = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(facts["class_names"]) == list(CLASSES)
    assert Preprocess.from_dict(json.loads(facts["preprocessing"])) == classifier.preprocess
    assert (facts["model_name"], facts["weights"], facts["dynamic_size"]) == (NAME, "float32", "false")
    (value,), (out,) = model.graph.input, model.graph.output
    shapes = [[d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in (value, out)]
    assert (value.name, out.name, shapes) == ("images", "logits", [["batch", 3, 16, 16], ["batch", 5]])
    # Nothing of the machine that made it.
    assert str(Path(convit.__file__).parent).encode() not in model.SerializeToString()
    assert b".py" not in model.SerializeToString()


@needs_export
@pytest.mark.parametrize("dynamic_size", [False, True])
def test_int8(dynamic_size: bool, tmp_path: Path) -> None:
    classifier = made(embed_dim=144)
    whole = export_onnx(classifier, tmp_path / "whole.onnx", dynamic_size=dynamic_size)
    small = export_onnx(classifier, tmp_path / "small.onnx", dynamic_size=dynamic_size, int8=True)
    assert small.difference < 1e-5
    assert small.int8_difference is not None
    assert 1e-4 < small.int8_difference < 0.1
    assert small.bytes < 0.35 * whole.bytes
    facts = convit_onnx.OnnxClassifier(tmp_path / "small.onnx").session.get_modelmeta().custom_metadata_map
    assert (facts["weights"], json.loads(facts["class_names"])) == ("int8", list(CLASSES))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["small.onnx", "whole.onnx"]


@needs_export
@pytest.mark.parametrize("opset", [18, 23])
def test_opset(opset: int, tmp_path: Path) -> None:
    import onnx

    assert export_onnx(made(), tmp_path / "model.onnx", opset=opset).difference < 1e-5
    assert [entry.version for entry in onnx.load(tmp_path / "model.onnx").opset_import] == [opset]


# -- refused -----------------------------------------------------------------------------------------------------------


@needs_export
@pytest.mark.parametrize(("suffix", "writer"), [(".onnx", export_onnx), (".pt2", export_torch)], ids=["onnx", "torch"])
def test_a_file_that_differs_is_not_written(
    suffix: str, writer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = export.trace

    def altered(model: Any, *args: Any, **kwargs: Any) -> Any:
        model = randomise(made().model)
        return real(model, *args, **kwargs)

    monkeypatch.setattr(export, "trace", altered)
    (tmp_path / f"old{suffix}").write_text("before")
    with pytest.raises(InputError, match=r"not written: its largest difference from PyTorch would be .* at most 1e-04"):
        writer(made(), tmp_path / f"old{suffix}")
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [(f"old{suffix}", "before")]


def test_not_a_number_is_a_difference(tmp_path: Path) -> None:
    model = made().model
    with pytest.raises(InputError, match="nan"):
        verified(model, lambda x: model(x) * torch.nan, [(16, 16)], tmp_path, tolerance=torch.inf)


@pytest.mark.parametrize(
    ("name", "says"),
    [("model.bin", r"ends in '.bin', expected '.onnx'"), ("none/model.onnx", "no folder"), ("a.onnx", "is a folder")],
)
def test_bad_places(name: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "a.onnx").mkdir()
    with pytest.raises(InputError, match=says):
        export_onnx(made(), tmp_path / name)


def test_bad_requests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="opset: got 17, expected 18 or later"):
        export_onnx(made(), tmp_path / "model.onnx", opset=17)
    classifier = made()
    classifier.model.global_pool = ""
    with pytest.raises(InputError, match="global_pool"):
        export_torch(classifier, tmp_path / "model.pt2")
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(InputError, match=r'onnxscript not installed, expected: pip install "convit\[export\]"'):
        export_onnx(made(), tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


# -- the predictor: numpy and Pillow in place of PyTorch ---------------------------------------------------------------


@pytest.fixture
def odd_pictures(tmp_path: Path) -> Path:
    """A picture of every mode and one that lies on its side."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    rng = np.random.default_rng(3)
    rgb = Image.fromarray(rng.integers(0, 256, (30, 47, 3), dtype=np.uint8))
    for mode in ("L", "P", "LA", "RGBA", "1"):
        rgb.convert(mode).save(folder / f"{mode}.png")
    rgb.convert("CMYK").save(folder / "cmyk.jpg")
    clear = rgb.convert("RGBA")
    clear.putalpha(Image.fromarray(rng.integers(0, 256, (30, 47), dtype=np.uint8)))
    clear.save(folder / "clear.png")
    Image.fromarray(rng.integers(0, 65536, (30, 47), dtype=np.uint16)).save(folder / "wide.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    rgb.save(folder / "turned.jpg", exif=exif)
    return folder


ALONE = """
import sys
import convit_launcher
heavy = {"torch", "torchvision", "timm", "rich", "matplotlib", "sklearn", "yaml", "safetensors"}
sys.modules.update(dict.fromkeys(heavy))  # None: to import one of them would fail
sys.argv = ["convit", *sys.argv[1:]]
status = convit_launcher.main()
assert status == 0, status
print(sorted(name for name in heavy if sys.modules.get(name)), file=sys.stderr)
"""


@needs_export
def test_predicts_every_kind_of_picture_without_torch(odd_pictures: Path, tmp_path: Path) -> None:
    classifier, path = made(), tmp_path / "model.onnx"
    export_onnx(classifier, path)
    done = subprocess.run(
        [sys.executable, "-c", ALONE, "predict", path, odd_pictures, "--json", "--top-k", "9"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr.splitlines()[-1]) == (0, "[]")
    assert "wide.png: grey images of more than 8 bits" in done.stderr
    document = json.loads(done.stdout)
    paths = sorted(odd_pictures.iterdir())
    assert [entry["image"] for entry in document] == [str(p) for p in paths]
    for entry, expected in zip(document, classifier.predict(paths, top_k=9), strict=True):
        assert [p["class"] for p in entry["predictions"]] == [p.class_name for p in expected]
        found = [p["probability"] for p in entry["predictions"]]
        assert found == pytest.approx([p.probability for p in expected], abs=1e-5)


def test_the_package_is_whole_after_the_predictor() -> None:
    code = "import convit_onnx, sys; assert 'torch' not in sys.modules; import convit; print(convit.load.__module__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "convit.classifier_loading\n"), done.stderr


EXAMPLE = """
import runpy, sys
sys.modules.update(dict.fromkeys(["convit", "convit_onnx", "convit_launcher", "torch", "timm", "torchvision"]))
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@needs_export
@pytest.mark.parametrize("image_size", [[16, 16], [12, 20]])
def test_example_says_the_same_without_convit(image_size: list[int], tmp_path: Path) -> None:
    classifier, path = made(img_size=image_size), tmp_path / "model.onnx"
    export_onnx(classifier, path)
    rng = np.random.default_rng(5)
    pictures = []
    for height, width in ((30, 47), (61, 20), (16, 16), (333, 97)):
        pictures.append(tmp_path / f"{height}.jpg")
        exif = Image.Exif()
        exif[0x0112] = 8
        Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(pictures[-1], exif=exif)
    example = Path(__file__).parent.parent / "examples/predict_onnx.py"
    done = subprocess.run(
        [sys.executable, "-c", EXAMPLE, example, path, *pictures], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    for line, picture, expected in zip(
        done.stdout.splitlines(), pictures, classifier.predict(pictures, top_k=3), strict=True
    ):
        words = "  ".join(f"{p.class_name} {p.probability:.1%}" for p in expected)
        assert line == f"{picture}  {words}"
