"""How well ``convit check`` finds faults: known ones are planted in a part of a folder of images, and counted again.

    python benchmarks/faults.py CIFAR10_FOLDER OUT [--images 10000] [--folds 0]

CIFAR10_FOLDER has ``train/CLASS/*.jpg`` and ``test/CLASS/*.jpg``. OUT gets ``images/``, a folder of their copies, with

- labels of 5% of the training images changed to another class, drawn,
- 200 training images copied into the test split, byte by byte, under another name,
- 100 training images that are nearly the same as another one, in turn recompressed (quality 50), cropped by 2 pixels at
  each side, and 30% brighter, in the training or the test split,
- 20 files cut off in the middle, overwritten with noise, or empty,

and the report of the check. The data set's own repeated pictures are found as well: they are shown as pairs of pictures
in ``own.png``, to be looked at, and count neither as right nor as wrong.
"""

import argparse
import io
import json
import random
import subprocess
import sys
import time
from pathlib import Path

from PIL import Image, ImageEnhance

KINDS = ("recompressed", "cropped", "brighter")
SWAPPED, COPIES, NEAR, UNREADABLE = 0.05, 200, 100, 20


def plant(source: Path, folder: Path, images: int) -> dict[str, dict[str, str]]:
    """Writes the images with their faults; gives, by kind, the name of each faulty file and what it is about."""
    draw = random.Random(0)
    names = {split: sorted((source / split).glob("*/*.jpg")) for split in ("train", "test")}
    test = draw.sample(names["test"], images // 6)
    train = draw.sample(names["train"], images - len(test) - COPIES - NEAR)
    classes = sorted({path.parent.name for path in train})
    known: dict[str, dict[str, str]] = {"labels": {}, "duplicates": {}, "near": {}, "unreadable": {}}

    def put(split: str, label: str, name: str, content: bytes) -> str:
        path = folder / split / label / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path.relative_to(folder).as_posix()

    swapped = set(draw.sample(range(len(train)), int(SWAPPED * len(train))))
    placed = []
    for i, path in enumerate(train):
        true = path.parent.name
        label = draw.choice([name for name in classes if name != true]) if i in swapped else true
        placed.append(put("train", label, f"{true}-{path.name}", path.read_bytes()))
        if i in swapped:
            known["labels"][placed[-1]] = true
    for path in test:
        put("test", path.parent.name, path.name, path.read_bytes())
    whole = draw.sample([i for i in range(len(train)) if i not in swapped], COPIES + NEAR + UNREADABLE)
    for i in whole[:COPIES]:
        copy = put("test", train[i].parent.name, f"copy-{i}.jpg", train[i].read_bytes())
        known["duplicates"][copy] = placed[i]
    for count, i in enumerate(whole[COPIES : COPIES + NEAR]):
        kind = KINDS[count % len(KINDS)]
        split = "test" if count % 2 else "train"
        content = _changed(Image.open(train[i]).convert("RGB"), kind)
        known["near"][put(split, train[i].parent.name, f"{kind}-{i}.jpg", content)] = placed[i]
    for count, i in enumerate(whole[COPIES + NEAR :]):
        content = train[i].read_bytes()
        broken = (content[: len(content) // 2], draw.randbytes(len(content)), b"")[count % 3]
        (folder / placed[i]).write_bytes(broken)
        known["unreadable"][placed[i]] = ""
    return known


def _changed(image: Image.Image, kind: str) -> bytes:
    if kind == "cropped":
        image = image.crop((2, 2, image.width - 2, image.height - 2))
    if kind == "brighter":
        image = ImageEnhance.Brightness(image).enhance(1.3)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=50 if kind == "recompressed" else 95)
    return buffer.getvalue()


def score(known: dict[str, dict[str, str]], report: dict, folder: Path, pairs: Path) -> dict[str, str]:
    """Precision and recall of each finding, in words."""
    out = {}
    found = {one["image"] for one in report["unreadable"]}
    out["unreadable"] = _said(len(found & known["unreadable"].keys()), len(found), len(known["unreadable"]))
    for kind, groups in (("duplicates", report["duplicates"]), ("near", report["near_duplicates"])):
        linked = [{image["image"] for image in group["images"]} for group in groups]
        right = [copy for copy, original in known[kind].items() if any({copy, original} <= group for group in linked)]
        planted = {name for copy, original in known[kind].items() for name in (copy, original)}
        own = [group for group in linked if not group & planted]
        out[kind] = f"{len(right)} of {len(known[kind])} planted found; {len(own)} groups without a planted one"
        if kind == "near":
            for change in KINDS:
                of_kind = [copy for copy in known[kind] if f"/{change}-" in copy]
                out[f"near, {change}"] = f"{len(set(right) & set(of_kind))} of {len(of_kind)}"
            _draw([sorted(group)[:2] for group in own], folder, pairs)
    if "labels" in report:
        doubts = {one["image"]: one["suggested"] for one in report["labels"]["probably_wrong"]}
        hits = doubts.keys() & known["labels"].keys()
        out["labels"] = _said(len(hits), len(doubts), len(known["labels"]))
        better = sum(doubts[name] == known["labels"][name] for name in hits)
        out["labels, suggested class"] = f"the true one for {better} of {len(hits)}"
        first = list(doubts)[: len(known["labels"])]
        out["labels, the first as many as planted"] = f"{len(set(first) & known['labels'].keys())} of {len(first)}"
    return out


def _said(right: int, found: int, planted: int) -> str:
    precision, recall = right / max(1, found), right / max(1, planted)
    return f"precision {precision:.3f} ({right} of {found}), recall {recall:.3f} ({right} of {planted})"


def _draw(pairs: list[list[str]], folder: Path, path: Path) -> None:
    """Pairs of pictures side by side."""
    columns, side = 10, 64
    sheet = Image.new("RGB", (columns * (2 * side + 10), max(1, -(-len(pairs) // columns)) * (side + 6)), "white")
    for number, pair in enumerate(pairs):
        left, top = number % columns * (2 * side + 10), number // columns * (side + 6)
        for i, name in enumerate(pair):
            sheet.paste(Image.open(folder / name).convert("RGB").resize((side, side)), (left + i * side, top))
    sheet.save(path)


def main() -> None:
    """Plants, checks, counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--images", type=int, default=10_000)
    options, more = parser.parse_known_args()
    folder, report = options.out / "images", options.out / "check"
    known_file = options.out / "planted.json"
    if not known_file.exists():
        options.out.mkdir(parents=True, exist_ok=True)
        known_file.write_text(json.dumps(plant(options.source, folder, options.images), indent=1))
    known = json.loads(known_file.read_text())
    command = [sys.executable, "-m", "convit", "check", str(folder), "--out", str(report), *more]
    began = time.perf_counter()
    subprocess.run(command, check=True)
    seconds = time.perf_counter() - began
    result = json.loads((report / "check.json").read_text())
    for kind, said in score(known, result, folder, options.out / "own.png").items():
        print(f"{kind}: {said}")
    print(f"{result['images']} images in {seconds:.0f} seconds")


if __name__ == "__main__":
    main()
