"""Values that options of the command line accept, apart from the modules that use them.

Imports nothing, so that help does not wait for PyTorch.
"""

from typing import Literal, get_args

Device = Literal["auto", "cpu", "cuda", "mps"]
"""Where to compute; ``"auto"`` takes a GPU if there is one."""
Precision = Literal["fp32", "bf16", "fp16"]
"""Types of the matrix products."""
RecipeName = Literal["small", "finetune", "paper"]
"""Where training takes the values of options that are left open."""

OptimizerName = Literal["muon", "adamw"]
"""Optimisers: Muon for matrices with AdamW for the rest, or AdamW for all."""

Mode = Literal["forward", "train"]
"""What a benchmark measures: a forward pass, or a training step."""
Rival = Literal["twin", "timm", "deit"]
RIVALS: tuple[Rival, ...] = get_args(Rival)
"""The same model with plain attention in every block; timm's ConViT; timm's DeiT, as in the paper's Table 1."""
StudyRival = Literal["cnn", "cnn-24", "resnet18", "cct"]
STUDY_RIVALS: tuple[StudyRival, ...] = get_args(StudyRival)
"""What the study small-data trains beside ConViT and its twin (:mod:`convit.experiments.rivals`)."""
PresetName = Literal["cpu", "paper", "cuda", "data"]
"""Sets of cases to measure; loading beside a step."""

PATCH_STEM, CONV_STEM = "patch", "conv"
"""From pixels to patches: a linear map of each patch, or :class:`convit.models.stem.ConvStem`."""
PUBLISHED_STD = 0.02
"""Standard deviation of linear weights in the published init."""
FAN_IN = "fan_in"
"""In place of a number: ``fan_in^-1/2``, by the layer's own number of inputs."""

Views = Literal["one", "flip"]
"""What an answer is of: the image, or the mean of it and its mirror image."""

Fault = Literal["unreadable", "duplicates", "near-duplicates", "labels"]
"""What a cleaned list of images can leave out."""

OPSET = 20
"""Version of the ONNX operators that an export is written in."""

IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".jfif", ".png", ".jpe", ".jp2", ".j2k", ".apng", ".dib", ".pnm"),
    *(".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".avif", ".heic", ".heif", ".hif"),
)
"""How the names of images end."""

RUN_FILES = (
    *("split.json", "images.json", "plan.json", "skipped.json", "config.json", "model.safetensors", "metrics.jsonl"),
    *("evaluation.json", "curves.png", "gates.png", "confusion.png", "confusion.csv", "log.txt", "checkpoints"),
    *("evaluation-*", "inspect", "mistakes.csv", "mistakes.png", "forecast", "tensorboard", "wandb", "tracking.json"),
    *("report.html", "reliability.png", "fold-[0-9]*", "folds.json", "out-of-fold.csv", "config.yaml"),
)
"""Everything that a run, and its evaluations, write into the folder, in the order in which ``--overwrite`` removes it.
If this is interrupted, the folder is still a run that can be overwritten, but not resumed."""
