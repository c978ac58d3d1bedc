"""Files of strangers: good ones, changed in their structure, and handed to the public way in."""

import contextlib
import hashlib
import io
import json
import os
import random
import shutil
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from PIL import Image

import convit
import convit_launcher
from convit import InputError
from convit.data.select import Learning, select
from convit.export import export_onnx
from convit.files import fingerprint
from convit.options_file import read_yaml
from convit.training.run_folder import RunFolder
from convit_onnx import OnnxClassifier
from tests.faults.harness import FULL
from tests.faults.mutations import ODD, as_json, changed_json, damaged, is_ordinary, mutated, odd_weights
from tests.outside.onnx_files import onnx, onnx_file
from tests.training.small import newest_state, photos

SMALL = ("--model", "convit_micro_patch4_32", "--image-size", "8", "--patch-size", "4", "--workers", "0")


@dataclass
class Good:
    """What everything is made of: a run that was broken off, the folder of its images, and an exported file."""

    place: Path
    run: Path = field(init=False)
    data: Path = field(init=False)
    picture: Path = field(init=False)
    onnx: bytes = field(init=False)

    def __post_init__(self) -> None:
        self.data = photos(self.place / "animals", {"ape": 6, "bee": 6, "cow": 7})
        self.picture = self.data / "ape/0.png"
        self.run = self.place / "run"
        words = ("train", self.data, "--out", self.run, "--epochs", "2", "--batch-size", "8", *SMALL)
        status, said = command(*words)
        assert status == 0, said
        file = onnx_file(self.place / "model.onnx")
        if FULL:
            export_onnx(convit.load(self.run), file)
        self.onnx = file.read_bytes()


def command(*words: object) -> tuple[int, str]:
    """``convit ...`` in this process: its status, and what it said on standard error."""
    before, out, err = sys.argv, io.StringIO(), io.StringIO()
    sys.argv = ["convit", *map(str, words)]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            return convit_launcher.main(), err.getvalue()
    finally:
        sys.argv = before


def by_command(*words: object) -> None:
    """Raises InputError with the line that a command said, or AssertionError if it said something else."""
    status, said = command(*words)
    if status:
        lines = [line for line in said.splitlines() if line.startswith("convit")]
        assert len(said) < 20_000, said[:500]
        assert status == 2, (status, said)
        assert len(lines) == 1, said
        assert "Traceback" not in said, said
        raise InputError(lines[0])


def predicts(classifier: Any) -> None:
    """The answer is a probability for each class."""
    if max(classifier.preprocess.image_size) > 256:
        return  # right, and slow
    picture = np.full((9, 7, 3), 99, np.uint8)
    probabilities = classifier.probabilities(
        [Image.fromarray(picture)] if isinstance(classifier, OnnxClassifier) else picture
    )
    assert tuple(probabilities.shape) == (1, len(classifier.class_names))
    assert np.isfinite(np.asarray(probabilities)).all()
    assert abs(float(probabilities.sum()) - 1) < 1e-3


def check_line(error: InputError) -> None:
    message = str(error)
    assert "\n" not in message, message[:500]
    assert 3 < len(message) < 20_000, message[:500]


def copied(good: Good, place: Path) -> Path:
    return Path(shutil.copytree(good.run, place / "run"))


def case_config(good: Good, place: Path, draw: random.Random) -> None:
    """config.json of a model."""
    run = copied(good, place)
    file = run / "config.json"
    file.write_bytes(changed_json(file.read_bytes(), draw))
    if draw.random() < 0.3:
        by_command("train", good.data, "--weights", run, "--dry-run", "--out", place / "new", *SMALL)
    predicts(convit.load(run))


def case_pickle(good: Good, place: Path, draw: random.Random) -> None:
    """A file of torch.save."""
    weights: Any = odd_weights(good.run / "model.safetensors", draw)
    prefix = draw.choice(("", "", "module.", "model.", "_orig_mod."))
    weights = {f"{prefix}{name}" if isinstance(name, str) else name: value for name, value in weights.items()}
    entry = draw.choice(("", "model", "state_dict", "model_ema", "ema", "model_state_dict", "net"))
    content = {entry: weights, "epoch": np.int64(3), "more": draw.choice(ODD[:30])} if entry else weights
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save(content, place / "a.pth", _use_new_zipfile_serialization=draw.random() < 0.8)
    if draw.random() < 0.4:
        (place / "a.pth").write_bytes(damaged((place / "a.pth").read_bytes(), draw))
    model = convit.load(good.run).model
    report = convit.load_weights(model, place / "a.pth", partial=draw.random() < 0.3, ema=draw.random() < 0.5)
    assert report.loaded
    assert all(value.dtype == torch.float32 for value in model.state_dict().values())


def case_safetensors(good: Good, place: Path, draw: random.Random) -> None:
    """A .safetensors file, whose header is changed, or its tensors, or its bytes."""
    run = copied(good, place)
    file = run / "model.safetensors"
    content = file.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    header.pop("__metadata__")
    how = draw.randrange(3)
    if how == 0:
        text = as_json(mutated(header, draw))
        content = len(text).to_bytes(8, "little") + text + content[end:]
    elif how == 1:
        tensors = {str(name): value for name, value in odd_weights(good.run / "model.safetensors", draw).items()}
        content = safetensors.torch.save({name: value for name, value in tensors.items() if is_ordinary(value)})
    else:
        content = damaged(content, draw)
    file.write_bytes(content)
    convit.load_weights(convit.load(good.run).model, file, partial=True)
    predicts(convit.load(run))


def case_yaml(good: Good, place: Path, draw: random.Random) -> None:
    """A file of options."""
    import yaml

    content = (good.run / "config.yaml").read_bytes()
    values = yaml.safe_load(content)
    values |= {"data": str(good.data), "out": str(place / "out")}
    how = draw.randrange(5)
    if how == 0:
        content = damaged(content, draw)
    elif how == 1:
        lines = content.decode().splitlines()
        at = draw.randrange(len(lines))
        odd = (
            "0x" + "f" * 9000,
            "2020-01-01",
            "!!python/name:os.system",
            "&a [*a]",
            "1:30",
            "{a: [b]}",
            ".nan",
            "<<: {}",
        )
        lines[at] = draw.choice((lines[at] + "\n" + lines[at], lines[at].split(":")[0] + ": " + draw.choice(odd)))
        content = "\n".join(lines).encode()
    else:
        with contextlib.suppress(ValueError):
            content = yaml.safe_dump(mutated(values, draw)).encode()
    (place / "a.yaml").write_bytes(content)
    asked = read_yaml(place / "a.yaml")
    sizes = [asked.get(name) for name in ("image_size", "batch_size", "model", "data", "fraction", "workers")]
    if any(size not in (None, [8], 8, [8, 8], "convit_micro_patch4_32", str(good.data), 0) for size in sizes):
        from convit.training.options import asked_from

        asked_from(place / "a.yaml", {})  # a run of it may be large, or want a network
        return
    by_command("train", "--config", place / "a.yaml", "--dry-run", "--device", "cpu")


def rewritten_state(state: Path, draw: random.Random) -> None:
    """The state of a run, changed by somebody who knows of the checksums."""
    file, tensors = state / "state.json", state / "tensors.safetensors"
    meta = json.loads(file.read_text().split("\n")[1])
    if draw.random() < 0.3:
        held = safetensors.torch.load_file(tensors)
        name = draw.choice(list(held))
        if draw.random() < 0.3:
            held[draw.choice(("optimizer.x.y", "optimizer.3", "optimizer.999.exp_avg", "a"))] = held.pop(name)
        else:
            held[name] = draw.choice((held[name].reshape(-1)[:1].clone(), held[name].to(torch.int32)))
        tensors.write_bytes(safetensors.torch.save(held))
        meta["sha256"] = hashlib.sha256(tensors.read_bytes()).hexdigest()
    else:
        kept = {key: meta[key] for key in ("plan", "sha256", "options")}
        rest = {key: value for key, value in meta.items() if key not in kept}
        meta = mutated(rest, draw) | kept
    body = as_json(meta)
    file.write_bytes(hashlib.sha256(body).hexdigest().encode() + b"\n" + body + b"\n")


def case_run(good: Good, place: Path, draw: random.Random) -> None:
    """The files of a run, which is resumed, evaluated and inspected."""
    run = copied(good, place)
    name = draw.choice(
        ("plan.json", "split.json", "images.json", "skipped.json", "metrics.jsonl", "config.yaml", "state")
    )
    file = run / name
    if name == "state":
        for state in (run / "checkpoints").iterdir() if draw.random() < 0.7 else [newest_state(run)]:
            rewritten_state(state, draw)
    elif name == "metrics.jsonl":
        lines = file.read_bytes().splitlines()
        lines[draw.randrange(len(lines))] = changed_json(lines[0], draw)
        file.write_bytes(b"\n".join(lines))
    elif name == "config.yaml":
        file.write_bytes(damaged(file.read_bytes(), draw))
    else:
        good_one = file.read_bytes() if file.exists() else b'[{"name": "ape/0.png", "reason": "none"}]'
        content = changed_json(good_one, draw)
        if name == "plan.json" and draw.random() < 0.7:  # by somebody who knows of the checksum
            values = mutated(json.loads(good_one), draw)
            if isinstance(values, dict):
                values.pop("checksum", None)
                with contextlib.suppress(ValueError):
                    content = as_json(values | {"checksum": fingerprint(values)})
        file.write_bytes(content)
    faults: list[InputError] = []
    for ask in (
        lambda: by_command("train", "--resume", run, "--device", "cpu"),
        lambda: RunFolder(run).known(),
        lambda: RunFolder(run).read_history(),
    ):
        try:
            ask()
        except InputError as error:
            check_line(error)
            faults.append(error)
    if faults:
        raise faults[0]
    predicts(convit.load(run))


def case_list(good: Good, place: Path, draw: random.Random) -> None:
    """A list of images and labels."""
    names = sorted(str(path.relative_to(good.data)) for path in good.data.rglob("*.png"))
    rows = [["path", "label"], *([name, name.split("/")[0]] for name in names)]
    for _ in range(draw.choice((0, 1, 3))):
        row = draw.choice(rows)
        row[draw.randrange(len(row))] = str(draw.choice(ODD[:45]))[:99999]
        if draw.random() < 0.2:
            row.append("more")
    separator = draw.choice((",", ",", ",", "\t", ";"))
    content = "\n".join(separator.join(row) for row in rows).encode("utf-8", "surrogateescape")
    if draw.random() < 0.4:
        content = damaged(content, draw)
    file = good.data / f"list-{os.getpid()}{draw.choice(('.csv', '.csv', '.tsv'))}"
    try:
        file.write_bytes(content)
        chosen = select(str(file), Learning())
        assert all(len(images) for images in chosen.splits.values())
        assert len(set(chosen.class_names)) == len(chosen.class_names) > 1
    finally:
        file.unlink()


def case_onnx(good: Good, place: Path, draw: random.Random) -> None:
    """An exported file, whose metadata, graph or bytes are changed."""
    model = onnx.load_from_string(good.onnx)
    how = draw.randrange(4)
    graph = model.graph
    if how == 0:
        entry = draw.choice(list(model.metadata_props))
        odd = as_json(draw.choice(ODD))[:99999].decode()
        with contextlib.suppress(ValueError):
            odd = draw.choice((odd, as_json(mutated(json.loads(entry.value), draw)).decode()))
        entry.value = odd
    elif how == 1:
        for value in draw.sample([*graph.input, *graph.output], 1):
            kind = value.type.tensor_type
            kind.elem_type = draw.choice((kind.elem_type, kind.elem_type, 1, 7, 8, 10, 11, 0, 99))
            for dim in draw.sample(list(kind.shape.dim), draw.randrange(len(kind.shape.dim))):
                dim.dim_value = draw.choice((0, -1, 1, 3, 5, 2**40))
            if draw.random() < 0.4:
                (kind.shape.dim.pop() if draw.random() < 0.5 else kind.shape.dim.add()).dim_param = "more"
    elif how == 2:
        tensor, node = draw.choice(list(graph.initializer)), draw.choice(list(graph.node))
        changes: tuple[Callable[[], object], ...] = (
            lambda: tensor.dims.append(draw.choice((0, -1, 2, 2**40))),
            lambda: setattr(tensor, "raw_data", tensor.raw_data[:-3]),
            lambda: setattr(tensor, "data_location", 1),
            lambda: setattr(tensor, "data_type", draw.choice((0, 2, 7, 8, 16, 99))),
            lambda: tensor.external_data.add(key="location", value="../../etc/passwd"),
            lambda: setattr(node, "op_type", draw.choice(("Nothing", "Add", "Identity", "Reshape", "Loop"))),
            lambda: setattr(node, "domain", "evil"),
            lambda: node.input.pop() if node.input else None,
            lambda: graph.node.remove(node),
            lambda: graph.input.add(name="more"),
            lambda: graph.output.pop(),
            lambda: model.ClearField("opset_import"),
            lambda: setattr(model, "ir_version", draw.choice((0, 1, 10**6))),
        )
        draw.choice(changes)()
    content = model.SerializeToString()
    file = place / "a.onnx"
    file.write_bytes(damaged(content, draw) if how == 3 else content)
    predicts(OnnxClassifier(file))


def case_links(good: Good, place: Path, draw: random.Random) -> None:
    """A run whose files are links in a circle, folders, empty, or not to be read."""
    run = copied(good, place)
    names = ("config.json", "model.safetensors", "config.yaml", "plan.json", "split.json", "images.json", "checkpoints")
    file = run / draw.choice((*names, "metrics.jsonl"))
    shutil.rmtree(file) if file.is_dir() else file.unlink()
    how = draw.randrange(5)
    if how == 0:
        file.symlink_to(file.name)
    elif how == 1:
        file.mkdir()
    elif how == 2:
        file.write_bytes(b"")
    elif how == 3:
        file.symlink_to("/nowhere")
    ask = draw.choice(
        (
            lambda: by_command("train", "--resume", run, "--device", "cpu"),
            lambda: by_command("predict", run, good.picture),
            lambda: by_command("evaluate", run, good.data, "--out", place / "evaluation"),
            lambda: by_command("train", good.data, "--weights", run, "--dry-run", "--out", place / "new", *SMALL),
        )
    )
    ask()
