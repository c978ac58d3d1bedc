"""The models that the study small-data compares.

All are trained by the recipe of ConViT: same images, order, augmentation, batch, optimiser and schedule, none of it
chosen for one of them but the learning rate.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import timm
import torch
from timm.layers import resample_abs_pos_embed
from timm.models.resnet import BasicBlock
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from convit.training.other_model import Build, OtherModel


@dataclass(frozen=True, kw_only=True, slots=True)
class Rival:
    """A model of the study."""

    name: str
    title: str
    build: Build | None = None
    """None for ConViT itself, with some options."""
    changes: Mapping[str, Any] = field(default_factory=dict)
    """Options of :class:`convit.training.options.Asked`."""
    rate: float = 1.0
    """Factor of the recipe's peak learning rate."""

    @property
    def other(self) -> OtherModel | None:
        """What is trained in place of the ConViT; None for ConViT itself."""
        return None if self.build is None else OtherModel(name=self.name, build=self.build)


class _Network(nn.Module):
    """What the trainer and a run folder ask a model for."""

    def __init__(self, num_classes: int, first_conv: str) -> None:
        super().__init__()
        self.num_classes, self.in_chans, self.first_conv = num_classes, 3, first_conv

    def no_weight_decay(self) -> set[str]:
        """Parameters that do not decay, besides biases and norms."""
        return set()


class ResNet18(_Network):
    """ResNet-18 (He et al. 2016, arXiv 1512.03385) as timm has it; 11.17 million parameters at 10 classes.

    For images up to 64 px with the stem that is usual there: a 3 x 3 convolution of stride 1, and no pooling after it.
    Larger images have the published stem, 7 x 7 of stride 2 and max pooling; 11.18 million parameters.
    """

    def __init__(self, num_classes: int, image_size: tuple[int, int]) -> None:
        super().__init__(num_classes, "body.conv1")
        self.body = timm.create_model("resnet18", num_classes=0)
        if min(image_size) <= 64:
            self.body.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
            nn.init.kaiming_normal_(self.body.conv1.weight, mode="fan_out", nonlinearity="relu")  # as timm's others
            self.body.maxpool = nn.Identity()
        self.head = nn.Linear(512, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """``(B, 3, H, W)`` to logits ``(B, classes)``."""
        logits: Tensor = self.head(self.body(images))
        return logits


class SmallCNN(_Network):
    """A plain residual CNN of seven 3 x 3 convolutions.

    A 3 x 3 stem, three stages of one basic block of ResNet (two 3 x 3 convolutions with batch norm and ReLU; from one
    stage to the next half the side, and a 1 x 1 shortcut), the mean over the places, and a linear head. Source: He et
    al. 2016 (arXiv 1512.03385), section 4.2, with one block in place of n, and wider. Parameters at 10 classes: 0.31
    million of widths 32, 64, 128; 0.17 million of widths 24, 48, 96. It is meant to take about as long as
    ``convit_nano_patch4_32``.

    Args:
        num_classes: outputs.
        image_size: height and width; it takes any.
        width: channels of the first stage; each of the next has twice as many.
    """

    def __init__(self, num_classes: int, image_size: tuple[int, int], *, width: int = 32) -> None:
        super().__init__(num_classes, "stem.0")
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        self.stages = nn.Sequential(
            BasicBlock(width, width),
            *(BasicBlock(w, 2 * w, stride=2, downsample=_shortcut(w)) for w in (width, 2 * width)),
        )
        self.head = nn.Linear(4 * width, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """``(B, 3, H, W)`` to logits ``(B, classes)``."""
        logits: Tensor = self.head(self.stages(self.stem(images)).mean((2, 3)))
        return logits


def _shortcut(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(width, 2 * width, 1, stride=2, bias=False), nn.BatchNorm2d(2 * width))


class CompactTransformer(_Network):
    """CCT-2/3x2 (Hassani et al. 2021, arXiv 2104.05704), written from the paper; 0.28 million parameters, as there.

    Two 3 x 3 convolutions, each with ReLU and 3 x 3 max pooling of stride 2, make the tokens (a quarter of the image's
    side); a learned position embedding; two encoder layers of ViT with width 128, two heads and a perceptron that is as
    wide; layer norm; sequence pooling: the mean of the tokens, weighted by a softmax of a learned linear map of each.
    Drop path and dropout of attention, which the paper's training has, are off: the recipe is that of the others.

    Args:
        num_classes: outputs.
        image_size: height and width that the position embedding is for; for others it is interpolated.
    """

    def __init__(self, num_classes: int, image_size: tuple[int, int]) -> None:
        super().__init__(num_classes, "tokenizer.0")
        width = 128
        self.tokenizer = nn.Sequential(*_tokenizer_step(3, 64), *_tokenizer_step(64, width))
        height, across = (-(-side // 4) for side in image_size)
        self.grid = [height, across]
        self.position = nn.Parameter(torch.empty(1, height * across, width))
        self.blocks = nn.Sequential(*(Block(width, num_heads=2, mlp_ratio=1.0) for _ in range(2)))
        self.norm = nn.LayerNorm(width)
        self.pool = nn.Linear(width, 1)
        self.head = nn.Linear(width, num_classes)
        nn.init.trunc_normal_(self.position, std=0.2)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
            elif isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def no_weight_decay(self) -> set[str]:
        """The position embedding."""
        return {"position"}

    def forward(self, images: Tensor) -> Tensor:
        """``(B, 3, H, W)`` to logits ``(B, classes)``."""
        tokens: Tensor = self.tokenizer(images)  # (B, 128, H / 4, W / 4)
        grid = list(tokens.shape[2:])
        position: Tensor = self.position
        if grid != self.grid:
            position = resample_abs_pos_embed(position, grid, self.grid, num_prefix_tokens=0)
        x: Tensor = self.norm(self.blocks(tokens.flatten(2).mT + position))
        pooled = (self.pool(x).softmax(dim=1) * x).sum(dim=1)
        logits: Tensor = self.head(pooled)
        return logits


def _tokenizer_step(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    conv = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    return conv, nn.ReLU(), nn.MaxPool2d(3, stride=2, padding=1)


# The rates are to be those that are best on the validation images: `convit experiment small-data DATA --rates 0.5 1 2`
# trains every model with each factor, and its table marks the best. All are 1 until that search is made.
_ALL = (
    Rival(name="convit", title="ConViT", rate=1.0),
    Rival(name="twin", title="plain attention", changes={"local_up_to_layer": 0}, rate=1.0),
    Rival(name="cnn", title="small CNN", build=SmallCNN, rate=1.0),
    Rival(name="cnn-24", title="small CNN, width 24", build=partial(SmallCNN, width=24), rate=1.0),
    Rival(name="resnet18", title="ResNet-18", build=ResNet18, rate=1.0),
    Rival(name="cct", title="CCT-2/3x2", build=CompactTransformer, rate=1.0),
)
RIVALS = {rival.name: rival for rival in _ALL}
"""By name. ConViT is the model that is asked for, the twin is of the same size."""
