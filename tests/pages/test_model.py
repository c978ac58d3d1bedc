"""The JavaScript forward pass gives what PyTorch gives, for every ConViT that the page takes."""

import base64
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from convit import ConViT
from convit.analysis import capture
from convit.analysis.masking import gates_set
from convit.errors import InputError
from convit.export_web import SCRIPTS, coded, described
from tests.helpers import randomise, relative_error, tiny_model
from tests.pages.node import needs_node, run

FORWARD = [name for name in SCRIPTS if name.split("/")[1] in ("position.js", "matrix.js", "model.js", "weights.js")]
RUN = """
  const weights = tensorsOf(given.tensors, await unpacked(given.content));
  const model = makeModel(given.spec, weights), pixels = floats(given.pixels);
  const pass = model.begin(pixels, given.height, given.width);
  const gates = model.blocks.map((block, index) => block.gates && block.gates.map((gate, head) => given.gates?.[`${index}:${head}`] ?? gate));
  for (const block of model.blocks) model.step(pass, block.index, gates[block.index]);
"""

MODELS: dict[str, dict[str, Any]] = {
    "token": {},
    "rectangle": {"img_size": (12, 20)},
    "one row": {"img_size": (4, 28)},
    "mean of patches": {"global_pool": "avg"},
    "no class token": {"global_pool": "avg", "class_token": False},
    "all gated": {"local_up_to_layer": 3},
    "plain": {"local_up_to_layer": 0},
    "ungated": {"gated": False},
    "ungated, all": {"gated": False, "local_up_to_layer": 3},
    "batch norm": {"batch_norm": True},
    "conv stem": {"hybrid_backbone": "conv", "img_size": (20, 12)},
    "conv stem, batch norm": {"hybrid_backbone": "conv", "batch_norm": True},
    "biases of queries": {"qkv_bias": True},
    "no position embedding": {"use_pos_embed": False},
    "odd widths": {"embed_dim": 35, "num_heads": 5, "patch_size": 3, "img_size": (15, 9), "num_classes": 3},
}


def made(**overrides: Any) -> ConViT:
    torch.manual_seed(0)
    model = randomise(tiny_model(**overrides), std=0.15).eval()
    for module in model.modules():
        if hasattr(module, "running_mean"):
            module.running_mean.normal_(std=0.3)
            module.running_var.uniform_(0.5, 2)
    return model


def passed(model: ConViT, image: torch.Tensor, folder: Path, then: str, half: bool = True, **given: Any) -> Any:
    """What JavaScript returns after its pass over an image ``(3, H, W)``."""
    spec, tensors = described(model, tuple(image.shape[1:]))
    listed, content = coded(tensors, half)
    given |= {"spec": spec, "tensors": listed, "content": base64.b64encode(content).decode()}
    given |= {"pixels": image.permute(1, 2, 0).contiguous().numpy(), "height": image.shape[1], "width": image.shape[2]}
    return run(FORWARD, RUN + then, folder, given)


@needs_node
@pytest.mark.parametrize(("half", "most"), [(True, 1e-3), (False, 1e-5)])
@pytest.mark.parametrize("name", MODELS)
def test_logits_are_pytorchs(name: str, half: bool, most: float, tmp_path: Path) -> None:
    model = made(**MODELS[name])
    image = torch.randn(3, *model.img_size)
    with torch.no_grad():
        expected = model(image[None])[0]
    found = torch.tensor(passed(model, image, tmp_path, "return [...pass.logits];", half))
    assert relative_error(found, expected) <= most
    assert found.argmax() == expected.argmax()


@needs_node
def test_another_size_than_the_models(tmp_path: Path) -> None:
    model, image = made(), torch.randn(3, 24, 16)
    with torch.no_grad():
        expected = model(image[None])[0]
    found = torch.tensor(passed(model, image, tmp_path, "return [...pass.logits];", half=False))
    assert relative_error(found, expected) <= 1e-5


@needs_node
@pytest.mark.parametrize("values", [{0: {0: 0.0, 3: 1.0}, 1: {8: 0.25}}, {1: dict.fromkeys(range(9), 1.0)}])
def test_gates_set_by_hand(values: dict[int, dict[int, float]], tmp_path: Path) -> None:
    """As in ``analysis.masking``; and what is computed anew from the changed block on is what the whole pass gives."""
    model = made(local_up_to_layer=3, global_pool="avg")
    image = torch.randn(3, *model.img_size)
    with torch.no_grad(), gates_set(model, values):
        expected = model(image[None])[0]
    named = {f"{layer}:{head}": value for layer, heads in values.items() for head, value in heads.items()}
    whole = passed(model, image, tmp_path, "return [...pass.logits];", half=False, gates=named)
    again = """
      const later = model.begin(pixels, given.height, given.width);
      for (const block of model.blocks) model.step(later, block.index, block.gates);
      for (let index = given.first; index < model.blocks.length; index++) model.step(later, index, gates[index]);
      return [...later.logits];
    """
    resumed = passed(model, image, tmp_path, again, half=False, gates=named, first=min(values))
    assert relative_error(torch.tensor(whole), expected) <= 1e-5
    assert resumed == whole


@needs_node
@pytest.mark.parametrize("name", ["token", "all gated", "ungated", "plain"])
def test_maps_are_those_that_python_captures(name: str, tmp_path: Path) -> None:
    model = made(**MODELS[name])
    image = torch.randn(3, *model.img_size)
    shot = capture(model, image[None])
    rows = """
      return model.blocks.map((block, index) => Array.from({ length: given.spec.heads }, (_, head) => {
        const tokens = pass.qkv[index].length / (3 * given.spec.dim);
        return Array.from({ length: tokens }, (_, token) => {
          const out = new Float64Array(tokens);
          model.addContent(pass, index, head, token, 1, out);
          return [...out];
        });
      }));
    """
    found = passed(model, image, tmp_path, rows, half=False)
    for layer, maps in zip(shot.layers, found, strict=True):
        expected = layer.mixed if layer.content is None else layer.content
        assert np.abs(np.array(maps) - expected[0].numpy()).max() < 1e-5


def test_what_the_page_cannot_do_is_refused() -> None:
    model = tiny_model(hybrid_backbone="resnet18", patch_size=4, img_size=32)
    with pytest.raises(InputError, match="stem"):
        described(model, (32, 32))
    model = tiny_model()
    model.blocks[1].mlp.act = torch.nn.ReLU()
    with pytest.raises(InputError, match=r"blocks\.1\.mlp\.act"):
        described(model, (16, 16))
    model = tiny_model()
    model.blocks[0].attn = torch.nn.Identity()
    with pytest.raises(InputError, match=r"blocks\.0\.attn"):
        described(model, (16, 16))
