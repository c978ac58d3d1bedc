"""What is in these pictures? An exported classifier on onnxruntime, numpy and Pillow; convit is not needed.

    convit export RUN
    python examples/predict_onnx.py RUN/model.onnx IMAGE...

Everything about the model is in the one file: class names and preprocessing are its metadata. ``convit predict
model.onnx`` does the same, and also takes folders, transparent and 16-bit pictures, and says what is wrong with a file.
"""

import json
import math
import sys
from typing import Any

import numpy as np
import onnxruntime
from PIL import Image, ImageOps


def prepare(image: Image.Image, settings: dict[str, Any]) -> np.ndarray:
    """A picture of any size to ``(3, height, width)``: scaled to cover the size, its centre cut out, normalised."""
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        raise SystemExit(f"a picture of more than 8 bits ({image.mode}), which 'convit predict' takes")
    image = ImageOps.exif_transpose(image)
    if "A" in image.getbands() or "transparency" in image.info:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    image = image.convert("RGB")
    height, width = settings["image_size"]
    target = [math.floor(side / settings["crop_pct"]) for side in (height, width)]
    if target[0] == target[1]:  # the long side is rounded down, as torchvision does it
        size = [target[0] * side // min(image.size) for side in image.size]
    else:  # both are rounded, as timm does it
        ratio = min(image.height / target[0], image.width / target[1])
        size = [round(side / ratio) for side in image.size]
    image = image.resize(size, Image.Resampling[settings["interpolation"].upper()])
    left, top = round((size[0] - width) / 2), round((size[1] - height) / 2)
    pixels = np.asarray(image.crop((left, top, left + width, top + height)), np.float32) / 255
    normal = (pixels - np.float32(settings["mean"])) / np.float32(settings["std"])
    return normal.transpose(2, 0, 1)


def main() -> None:
    """Prints the three most probable classes of each picture."""
    model, *paths = sys.argv[1:]
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    facts = session.get_modelmeta().custom_metadata_map
    names, settings = json.loads(facts["class_names"]), json.loads(facts["preprocessing"])
    images = [prepare(Image.open(path), settings)[None] for path in paths]
    logits = np.concatenate([session.run(["logits"], {"images": image})[0] for image in images])  # int8 takes one each
    exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities = exponents / exponents.sum(axis=1, keepdims=True)
    for path, row in zip(paths, probabilities, strict=True):
        best = np.argsort(-row)[:3]
        print(path, "  ".join(f"{names[i]} {row[i]:.1%}" for i in best), sep="  ")


if __name__ == "__main__":
    main()
