"""Files of weights as others write them, and what it takes for one to be refused."""

from argparse import Namespace
from pathlib import Path
from typing import Any

import safetensors.torch
import timm
import torch
from torch import Tensor, nn

import convit
from convit import Classifier, ConViT
from convit.data import Preprocess
from tests.helpers import randomise, refused, tiny_model

Weights = dict[str, Tensor]


def authors_model(size: str, **options: Any) -> nn.Module:
    """timm's own ConViT, every parameter drawn anew: gates wide open and closed, heads that look elsewhere."""
    model = randomise(timm.create_model(f"convit_{size}", **options), std=0.1).eval()
    for name, parameter in model.named_parameters():
        if "gating_param" in name or "pos_proj" in name:
            nn.init.normal_(parameter)
    return model


def snapshot(model: nn.Module) -> Weights:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same_weights(a: Weights, b: Weights, without: tuple[str, ...] = ()) -> bool:
    """Whether two states have the same names, and the same bits under them."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a if name not in without)


def saved(content: Any, path: Path, **options: Any) -> Path:
    path.parent.mkdir(exist_ok=True)
    torch.save(content, path, **options)
    return path


def saved_safely(weights: Weights, path: Path, metadata: dict[str, str] | None = None) -> Path:
    path.parent.mkdir(exist_ok=True)
    safetensors.torch.save_file(weights, path, metadata=metadata)
    return path


def classifier(model: ConViT, name: str, image_size: tuple[int, int] | None = None, **model_args: Any) -> Classifier:
    """A classifier to save; ``model_args`` are what the model of that name was made with."""
    names = [f"class {number}" for number in range(model.num_classes)]
    preprocess = Preprocess(image_size=image_size or model.img_size)
    return Classifier(model, preprocess, names, model_name=name, model_args=model_args)


def training_state() -> dict[str, Any]:
    """What training scripts save beside the weights: optimiser, scheduler, epoch and their command line."""
    parameter = nn.Parameter(torch.ones(3))
    optimizer = torch.optim.AdamW([parameter])
    parameter.sum().backward()
    optimizer.step()
    args = Namespace(model="convit_tiny", lr=5e-4, output_dir="runs/7", aa=None, data_set="IMNET", local_up_to_layer=10)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 30).state_dict()
    return {"optimizer": optimizer.state_dict(), "lr_scheduler": scheduler, "epoch": 299, "args": args}


def taken(path: str | Path, expected: Weights, **options: Any) -> None:
    """Loads a file into a small model, which then has these weights."""
    model = tiny_model()
    convit.load_weights(model, path, **options)
    assert same_weights(model.state_dict(), expected)


def not_loaded(model: ConViT, path: str | Path, *words: str, **options: Any) -> str:
    """The one line with which a file is not loaded into a model, every bit of which is as it was."""
    before = snapshot(model)
    message = refused(lambda: convit.load_weights(model, path, **options), *words)
    assert same_weights(model.state_dict(), before)
    return message
