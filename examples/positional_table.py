"""GPSA with another positional function: a table with one logit for each offset, in place of the paper's quadratic.

python examples/positional_table.py

The table starts as the paper's convolution and can become any pattern, at the price of N x N positional maps and of one
size of grid. The layer stands in the place of GPSA in a model of ``convit.create_model``; the model trains, and
analysis reads its maps and gates.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

import convit
from convit.analysis import capture, gates, non_locality
from convit.data import ImageSet, Preprocess, evaluation_transform, open_source
from convit.grid import Grid
from convit.layers import AttentionBase
from convit.layers.init import convolutional_pos_weight
from convit.ops.naive import content_map

STEPS, BATCH = 150, 64


class TableAttention(AttentionBase):
    """Each head mixes content attention and a learned table of offsets through its gate.

        A = (1 - g) softmax_j(q_i . k_j / sqrt(d)) + g softmax_j(table[j - i]),    g = sigmoid(gating_param)

    Args:
        dim: width C.
        num_heads: number of heads h.
        grid: of the patches; the table has ``(h, 2 height - 1, 2 width - 1)`` logits.
        gate_init: the start of every gate's logit.
    """

    kind = "gpsa"

    def __init__(self, dim: int, num_heads: int, grid: Grid, gate_init: float = 1.0) -> None:
        super().__init__(dim, num_heads, attn_drop=0.0, proj_drop=0.0, weight_std=0.02)
        self.grid = grid
        self.qk = nn.Linear(dim, 2 * dim, bias=False)
        self.v = nn.Linear(dim, dim, bias=False)
        self.proj = nn.Linear(dim, dim)
        nn.init.trunc_normal_(self.qk.weight, std=0.02)
        nn.init.eye_(self.v.weight)
        self.gating_param = nn.Parameter(torch.full((num_heads,), gate_init))
        dy, dx = torch.meshgrid(
            torch.arange(1 - grid.height, grid.height), torch.arange(1 - grid.width, grid.width), indexing="ij"
        )
        start = convolutional_pos_weight(num_heads, 1.0) @ torch.stack((dx, dy, dx**2 + dy**2)).flatten(1).float()
        self.table = nn.Parameter(start.unflatten(1, dx.shape))
        self.content_map = nn.Identity()  # analysis reads the maps as they pass through these
        self.positional_map = nn.Identity()

    @property
    def gates(self) -> Tensor:
        """The weight of positional attention in each head, ``(h,)``."""
        return self.gating_param.detach().sigmoid()

    def position_weight(self, like: Tensor | None = None) -> None:
        """None: there is no ``v_pos``."""

    def positional(self) -> Tensor:
        """Positional attention of every patch, ``(h, N, N)``."""
        height, width = self.grid
        y, x = (place.flatten() for place in torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij"))
        logits = self.table[:, y - y[:, None] + height - 1, x - x[:, None] + width - 1]
        return logits.softmax(dim=-1)

    def forward(self, x: Tensor, grid: tuple[int, int] | None = None, num_prefix_tokens: int = 0) -> Tensor:
        """``(B, N, C)`` to ``(B, N, C)``; of one grid, without prefix tokens."""
        if num_prefix_tokens or (grid or self.grid) != self.grid:
            raise ValueError(f"grid: got {grid} with {num_prefix_tokens} prefix tokens, expected {self.grid} with none")
        q, k = self.qk(x).unflatten(-1, (2, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        v = self.v(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        gate = self.gating_param.sigmoid()[:, None, None]
        content, positional = self.content_map(content_map(q, k)), self.positional_map(self.positional())
        mixed = self.attn_drop((1 - gate) * content + gate * positional)
        return self.proj_drop(self.proj((mixed @ v).transpose(1, 2).flatten(2)))


def pixels(images: ImageSet) -> tuple[Tensor, Tensor]:
    """All images of a split, ``(n, 3, 16, 16)``, and their classes, ``(n,)``."""
    prepare = evaluation_transform(Preprocess(image_size=(16, 16), crop_pct=1.0))
    return torch.stack([prepare(images.read(i)) for i in range(len(images))]), torch.as_tensor(images.targets)


def main() -> None:
    """Puts the layer into a model, trains it on handwritten digits, and looks inside."""
    torch.manual_seed(0)
    model = convit.create_model("convit_nano_patch4_16", num_classes=10)
    for block in model.blocks[: model.local_up_to_layer]:
        block.attn = TableAttention(model.embed_dim, block.attn.num_heads, Grid(4, 4))
    images = {split: pixels(digits) for split, digits in open_source("digits").splits.items()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for _ in range(STEPS):
        taken = torch.randint(len(images["train"][0]), (BATCH,))
        loss = functional.cross_entropy(model(images["train"][0][taken]), images["train"][1][taken])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        right = (model(images["test"][0]).argmax(1) == images["test"][1]).float().mean()
    print(f"{right:.1%} of the test digits after {STEPS} steps")
    inside = capture(model, images["test"][0][:32])
    for number, found in gates(model).items():
        layer = inside.layers[number]
        far = non_locality(layer.mixed, layer.grid, layer.num_prefix_tokens).mean()
        print(f"layer {number + 1}: gates {found.min():.2f} to {found.max():.2f}, non-locality {far:.2f} patches")


if __name__ == "__main__":
    main()
