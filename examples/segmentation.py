"""Dense prediction: the feature maps of a ConViT, of any input size, under a segmentation head.

    python examples/segmentation.py [RUN]

Learns to say of every pixel of a page which digit's stroke it is, or that it is paper. The pages have twelve of
scikit-learn's handwritten digits on 48 x 64 pixels: a size and a shape that the classifier never saw. The ConViT is
that of a run (``make demo`` makes one), or an untrained one; either way it is frozen, and the head alone learns.
"""

import sys

import numpy as np
import torch
import torch.nn.functional as F
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn

import convit
from convit.data import open_source

STEPS = 200
CELLS = (3, 4)
"""Rows and columns of digits on a page."""
PAPER = 10
"""The class of a pixel that is no ink; 0 to 9 are the digits."""


class SegmentationModel(nn.Module):
    """Feature maps of some layers, each projected, summed, and upsampled to the image.

    Args:
        backbone: any ConViT.
        layers: which blocks to look at.
        num_classes: classes of a pixel.
    """

    def __init__(self, backbone: convit.ConViT, layers: list[int], num_classes: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.layers = layers
        width = 64
        self.project = nn.ModuleList(nn.Conv2d(backbone.embed_dim, width, 1) for _ in layers)
        self.head = nn.Sequential(nn.GELU(), nn.Conv2d(width, num_classes * backbone.patch_size**2, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Images ``(B, 3, H, W)`` to logits of every pixel, ``(B, classes, H, W)``."""
        with torch.no_grad():  # (B, C, H / p, W / p) each; GPSA blocks have no class token, and none is in the maps
            maps = self.backbone.forward_intermediates(x, indices=self.layers, norm=True, intermediates_only=True)
        summed = torch.stack([project(m) for project, m in zip(self.project, maps, strict=True)]).sum(0)
        return F.pixel_shuffle(self.head(summed), self.backbone.patch_size)


def pages(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Pages of digits, ``(count, 3, 48, 64)``, and the class of every pixel, ``(count, 48, 64)``."""
    digits = [images for _, images in sorted(open_source("digits").splits.items())]
    pixels = np.concatenate([np.stack([np.asarray(s.read(i).convert("L")) for i in range(len(s))]) for s in digits])
    labels = np.concatenate([s.targets for s in digits])
    rows, columns = CELLS
    chosen = torch.randint(len(pixels), (count, rows, columns), generator=generator)
    cells = torch.from_numpy(pixels / 255).float()[chosen]  # (count, rows, columns, 8, 8)
    page = cells.transpose(2, 3).reshape(count, 1, 8 * rows, 8 * columns)
    page = F.interpolate(page, scale_factor=2, mode="bicubic").clamp(0, 1)  # as the run's images: 16 px a digit
    digit = torch.from_numpy(labels)[chosen].repeat_interleave(16, 1).repeat_interleave(16, 2)
    mean, std = (torch.tensor(values)[:, None, None] for values in (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD))
    return (page - mean) / std, torch.where(page[:, 0] > 0.5, digit, PAPER)


def main() -> None:
    """Trains the head, in half a minute on one core, and says how good it is on pages that it never saw."""
    torch.manual_seed(0)
    if len(sys.argv) > 1:
        backbone = convit.load(sys.argv[1]).model
    else:
        backbone = convit.create_model("convit_micro_patch4_16", num_classes=10)
    model = SegmentationModel(backbone.eval(), layers=[0, 1, 2], num_classes=11)
    optimizer = torch.optim.AdamW([*model.project.parameters(), *model.head.parameters()], lr=3e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(STEPS):
        images, classes = pages(16, generator)
        loss = F.cross_entropy(model(images), classes)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    images, classes = pages(64, generator)
    with torch.no_grad():
        predicted = model(images).argmax(1)
    ink = classes != PAPER
    right = (predicted == classes)[ink].float().mean().item()
    found = ((predicted != PAPER) & ink).sum().item() / ((predicted != PAPER) | ink).sum().item()
    print(f"pages of {images.shape[-2]} x {images.shape[-1]} pixels, never seen:")
    print(f"  ink against paper, intersection over union: {found:.1%}")
    print(f"  ink given the right one of ten digits:      {right:.1%}")


if __name__ == "__main__":
    main()
