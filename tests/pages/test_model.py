"""The JavaScript forward pass gives what PyTorch gives, for every ConViT that the page takes."""

import gzip
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from convit import ConViT
from convit.analysis import capture, relevance
from convit.analysis.masking import gates_set
from convit.errors import InputError
from convit.export_web import SCRIPTS, coded, described
from convit.pages import letters
from tests.helpers import randomise, relative_error, tiny_model
from tests.pages.node import needs_node, run

FORWARD = [
    name
    for name in SCRIPTS
    if name.split("/")[1] in ("bytes.js", "position.js", "matrix.js", "model.js", "relevance.js", "weights.js")
]
ONE = """async (given) => {
  const weights = tensorsOf(given.tensors, await unpacked(given.content));
  const model = makeModel(given.spec, weights), pixels = floats(given.pixels);
  const pass = model.begin(pixels, given.height, given.width);
  const gates = model.blocks.map((block, index) =>
    block.gates && block.gates.map((gate, head) => given.gates?.[`${index}:${head}`] ?? gate));
  for (const block of model.blocks) model.step(pass, block.index, gates[block.index]);
  %s
}"""
LOGITS = "return [...pass.logits];"

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


class Case:
    """A model and an image ``(3, H, W)`` for JavaScript; ``given`` is what its code reads besides."""

    def __init__(self, model: ConViT, image: torch.Tensor, half: bool = False, **given: Any) -> None:
        self.model, self.image, self.half, self.given = model, image, half, given

    def expected(self) -> torch.Tensor:
        with torch.no_grad():
            return self.model(self.image[None])[0]


def passed(cases: Sequence[Case], folder: Path, then: str) -> list[Any]:
    """What JavaScript returns after its pass over each image: one process for all, as node takes long to start."""
    plain = []
    for number, case in enumerate(cases):
        spec, tensors = described(case.model, tuple(case.image.shape[1:]))
        listed, content = coded(tensors, case.half)
        pixels = folder / f"pixels-{number}.bin"
        case.image.permute(1, 2, 0).contiguous().numpy().tofile(pixels)
        height, width = case.image.shape[1:]
        own = {"spec": spec, "tensors": listed, "content": letters(gzip.compress(content)), "pixels": str(pixels)}
        plain.append(case.given | own | {"height": height, "width": width})
    each = "const out = []; for (const each of given.cases) out.push(await one(each)); return out;"
    code = f"const one = {ONE % then}; {each}"
    return run(FORWARD, code, folder, {"cases": plain})


def named_case(name: str, half: bool = False) -> Case:
    model = made(**MODELS[name])
    return Case(model, torch.randn(3, *model.img_size), half)


@needs_node
@pytest.mark.parametrize(("half", "most"), [(True, 1e-3), (False, 1e-5)])
def test_logits_are_pytorchs(half: bool, most: float, tmp_path: Path) -> None:
    cases = {name: named_case(name, half) for name in MODELS}
    cases["another size than the model's"] = Case(made(), torch.randn(3, 24, 16), half)
    for (name, case), logits in zip(cases.items(), passed([*cases.values()], tmp_path, LOGITS), strict=True):
        found, expected = torch.tensor(logits), case.expected()
        assert relative_error(found, expected) <= most, name
        assert found.argmax() == expected.argmax(), name


@needs_node
def test_gates_set_by_hand(tmp_path: Path) -> None:
    """As in ``analysis.masking``; and what is computed anew from the changed block on is what the whole pass gives."""
    model = made(local_up_to_layer=3, global_pool="avg")
    image = torch.randn(3, *model.img_size)
    settings: list[dict[int, dict[int, float]]] = [
        {0: {0: 0.0, 3: 1.0}, 1: {8: 0.25}},
        {1: dict.fromkeys(range(9), 1.0)},
    ]
    cases = []
    for values in settings:
        named = {f"{layer}:{head}": value for layer, heads in values.items() for head, value in heads.items()}
        cases.append(Case(model, image, gates=named, first=min(values)))
    again = """
      const later = model.begin(pixels, given.height, given.width);
      for (const block of model.blocks) model.step(later, block.index, block.gates);
      for (let index = given.first; index < model.blocks.length; index++) model.step(later, index, gates[index]);
      return [[...pass.logits], [...later.logits]];
    """
    for values, (whole, resumed) in zip(settings, passed(cases, tmp_path, again), strict=True):
        with gates_set(model, values):
            assert relative_error(torch.tensor(whole), cases[0].expected()) <= 1e-5
        assert resumed == whole


@needs_node
def test_maps_are_those_that_python_captures(tmp_path: Path) -> None:
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
    cases = [named_case(name) for name in ("token", "all gated", "ungated", "plain")]
    for case, found in zip(cases, passed(cases, tmp_path, rows), strict=True):
        for layer, maps in zip(capture(case.model, case.image[None]).layers, found, strict=True):
            expected = layer.mixed if layer.content is None else layer.content
            assert np.abs(np.array(maps) - expected[0].numpy()).max() < 1e-5


@needs_node
def test_relevance_is_pythons(tmp_path: Path) -> None:
    """By hand in JavaScript, by autograd in Python."""
    back = """
      const relevance = makeRelevance(given.spec, weights, model), state = relevance.begin(pass, given.target);
      for (const { index } of [...model.blocks].reverse()) relevance.step(state, pass, index, gates[index]);
      return relevance.end(state);
    """
    cases = {name: named_case(name) for name in MODELS}
    for case in cases.values():
        case.given["target"] = 2
    for (name, case), found in zip(cases.items(), passed([*cases.values()], tmp_path, back), strict=True):
        shot = capture(case.model, case.image[None], keep_graph=True)
        expected = relevance(shot, 2).flatten()
        assert expected.max() > 0, name
        assert relative_error(torch.tensor(found), expected) < 1e-3, name  # in Python a sum of fp32 less the identity


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
