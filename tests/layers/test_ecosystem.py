"""What users and libraries do to modules: on our layers each act has the same effect as on plain attention.

Every test is one such act: pruning, adapters, copies, compilers; hooks are in ``test_hooks.py``, ``torch.func`` in
``test_derivatives.py``. Most run on five subjects: the three layers, a small ConViT, and the same model with plain
attention alone, for comparison.
"""

import copy
import io
import pickle
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from timm.models import create_feature_extractor
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune

from convit import InputError
from convit.analysis.attention_layers import attention_layers
from convit.export import trace
from tests.helpers import randomise, relative_error
from tests.layers.subjects import (
    DIM,
    F32,
    F64,
    HEADS,
    MODELS,
    TOKENS,
    Arguments,
    assert_close,
    build,
    draw,
    loss,
    models,
    positional,
    quiet,
    results,
    subjects,
)

weights = pytest.mark.parametrize(
    ("name", "linear"), [("sa", "qkv"), ("psa", "v"), ("psa", "pos_proj"), ("gpsa", "v"), ("gpsa", "pos_proj")]
)


def through_file(save: Callable[[Any, Any], None], load: Callable[[Any], Any], thing: Any) -> Any:
    file = io.BytesIO()
    save(thing, file)
    file.seek(0)
    return load(file)


# -- weights made of other parameters ----------------------------------------------------------------------------------


def assert_computes(
    changed: nn.Module, plain: nn.Module, args: Arguments, made: dict[str, Callable[[], Tensor]]
) -> None:
    """``changed`` is ``plain`` with some weights made of other parameters: same output, gradients by the chain rule.

    Args:
        changed: the module after the act.
        plain: a copy from before; the weights are written into it.
        args: what to call both with.
        made: how each weight of ``plain`` that is made of others now is made.
    """
    got = results(changed, args)
    assert_close(results(changed, args), got, 0.0)  # a second pass is like the first
    before = plain(*args)
    new = {name: make() for name, make in made.items()}
    for name, weight in new.items():
        plain.get_parameter(name).data.copy_(weight)
    assert relative_error(got["output"], before) > 1e-3
    expected = results(plain, args)
    upstream = [expected[name] for name in new]
    for key in got.keys() - expected.keys():
        leaf = changed.get_parameter(key)
        (expected[key],) = torch.autograd.grad(list(new.values()), leaf, upstream, retain_graph=True)
        assert expected[key].any(), key
    assert_close(got, {key: expected[key] for key in got})


class Scaled(nn.Module):
    """A parametrisation with a parameter of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(1.7, dtype=F64))

    def forward(self, weight: Tensor) -> Tensor:
        return self.factor * weight


PARAMETRISATIONS: dict[str, Callable[[nn.Module], Any]] = {
    "scaled": lambda linear: parametrize.register_parametrization(linear, "weight", Scaled()),
    "weight_norm": lambda linear: parametrizations.weight_norm(linear).parametrizations.weight.original0.data.mul_(2),
    "spectral_norm": lambda linear: parametrizations.spectral_norm(linear).eval(),
    "orthogonal": lambda linear: parametrizations.orthogonal(linear, orthogonal_map="cayley"),
}


@pytest.mark.parametrize("kind", list(PARAMETRISATIONS))
@weights
def test_parametrised_weight(name: str, linear: str, kind: str) -> None:
    layer, args = draw(name)
    plain, module = copy.deepcopy(layer), layer.get_submodule(linear)
    PARAMETRISATIONS[kind](module)
    assert_computes(layer, plain, args, {f"{linear}.weight": lambda: module.weight})
    parametrize.remove_parametrizations(module, "weight")
    torch.testing.assert_close(layer(*args), plain(*args))


@weights
def test_pruned_weight(name: str, linear: str) -> None:
    layer, args = draw(name)
    plain, module = copy.deepcopy(layer), layer.get_submodule(linear)
    prune.l1_unstructured(module, "weight", 0.5)
    assert_computes(layer, plain, args, {f"{linear}.weight": lambda: module.weight_orig * module.weight_mask})
    prune.remove(module, "weight")
    got, expected = results(layer, args), results(plain, args)
    assert_close({key: got[key] for key in expected}, expected)


@weights
def test_pruned_layer_moves_to_another_type(name: str, linear: str) -> None:
    """Pruning leaves a tensor ``weight`` that no move takes along: each call of the module makes it anew."""
    layer, (x, *rest) = draw(name, F32)
    prune.l1_unstructured(layer.get_submodule(linear), "weight", 0.5)
    before = layer(x, *rest)
    assert relative_error(layer.double()(x.double(), *rest), before) < 1e-5


@subjects
def test_low_rank_adapters(name: str) -> None:
    peft = pytest.importorskip("peft", reason="LoRA needs peft")
    model, args = draw(name)
    plain = copy.deepcopy(model)
    targets = ["pos_proj", "qk", "v", "qkv"]
    config = peft.LoraConfig(r=2, lora_alpha=3, target_modules=targets, init_lora_weights=False)
    adapted = peft.PeftModel(model, config)
    low_rank = {key: m for key, m in model.named_modules() if isinstance(m, peft.tuners.lora.LoraLayer)}
    assert any("pos_proj" in key for key in low_rank) == (name not in ("sa", "twin"))

    def added(layer: Any) -> Tensor:
        first, second = layer.lora_A["default"].weight, layer.lora_B["default"].weight
        return layer.get_base_layer().weight + 1.5 * second @ first

    assert_computes(model, plain, args, {f"{key}.weight": partial(added, layer) for key, layer in low_rank.items()})
    merged = adapted.merge_and_unload()
    torch.testing.assert_close(merged(*args), plain(*args))
    assert_close(merged.state_dict(), plain.state_dict())


# -- copies, places, types ---------------------------------------------------------------------------------------------


def by_state(module: nn.Module, made: nn.Module, assign: bool = False) -> nn.Module:
    """Through a state dict whose names one hook changes as it is written, and another as it is read."""

    def rename(new: Callable[[str], str], _module: nn.Module, state: dict[str, Tensor], *_: Any) -> None:
        for key in list(state):
            state[new(key)] = state.pop(key)

    source = copy.deepcopy(module)
    source.register_state_dict_post_hook(partial(rename, "old.{}".format))
    made.register_load_state_dict_pre_hook(partial(rename, lambda key: key.removeprefix("old.")))
    made.load_state_dict(source.state_dict(), assign=assign)
    return made.eval()


COPIES: dict[str, Callable[[nn.Module, Callable[..., nn.Module]], nn.Module]] = {
    "deepcopy": lambda module, new: copy.deepcopy(module),
    "pickle": lambda module, new: pickle.loads(pickle.dumps(module)),
    "torch.save": lambda module, new: through_file(torch.save, partial(torch.load, weights_only=False), module),
    "state": lambda module, new: by_state(module, new()),
    "state assigned": lambda module, new: by_state(module, new(), assign=True),
    "meta assigned": lambda module, new: by_state(module, new(device="meta"), assign=True),
    "meta emptied": lambda module, new: by_state(module, new(device="meta").to_empty(device="cpu")),
}


@pytest.mark.parametrize("way", list(COPIES))
@subjects
def test_copies(name: str, way: str) -> None:
    module, args = draw(name)
    expected = results(module, args)  # what is copied has run
    copied = COPIES[way](module, partial(build, name, dtype=F64))
    assert_close(results(copied, args), expected, 0.0)
    assert not {p.data_ptr() for p in copied.parameters()} & {p.data_ptr() for p in module.parameters()}


@pytest.mark.parametrize("place", ["cpu_offload", "disk_offload"])
@models
def test_offloaded_model(name: str, place: str, tmp_path: Path) -> None:
    accelerate = pytest.importorskip("accelerate", reason="offloading needs accelerate")
    model, args = draw(name)
    expected = model(*args)
    folder = [tmp_path] if place == "disk_offload" else []
    getattr(accelerate, place)(model, *folder, execution_device=torch.device("cpu"))
    assert {p.device.type for p in model.parameters()} == {"meta"}
    for _ in range(2):
        assert torch.equal(model(*args), expected)
    with pytest.raises(InputError, match="got parameters that are not in memory"):
        attention_layers(model)


@pytest.mark.parametrize(("move", "tolerance"), [("bfloat16", 0.1), ("half", 0.02), ("double", 1e-5)])
@subjects
def test_moves_between_types(name: str, move: str, tolerance: float) -> None:
    module, (x, *rest) = draw(name, F32)
    expected = module(x, *rest)
    x = getattr(x, move)()
    out = getattr(module, move)()(x, *rest)
    assert out.dtype == x.dtype
    assert relative_error(out, expected) < tolerance


@subjects
def test_autocast(name: str) -> None:
    module, args = draw(name, F32)
    expected = results(module, args)
    with torch.autocast("cpu", torch.bfloat16):
        got = results(module, args)
        for part in module.modules():
            if hasattr(part, "pos_proj"):  # not rounded to bf16, which keeps 8 bits
                torch.testing.assert_close(part.position_weight(), part.pos_proj.weight, atol=1e-7, rtol=0)
    for key in got.keys() & {"output", "pos_proj.weight", "gating_param", "proj.weight"}:
        assert relative_error(got[key], expected[key]) < 0.1, key


@pytest.mark.parametrize("dtype", [F32, torch.bfloat16, torch.float16, F64], ids=str)
@positional
def test_position_weight_is_the_weight(name: str, dtype: torch.dtype) -> None:
    layer, _ = draw(name, dtype)
    for _ in range(100):  # how it is rounded depends on weight and bias
        randomise(layer.pos_proj)
        weight = layer.position_weight()
        assert weight.tolist() == layer.pos_proj.weight.tolist()
    of_weight, of_bias = torch.autograd.grad(loss(weight), [layer.pos_proj.weight, layer.pos_proj.bias])
    assert torch.equal(of_weight, torch.linspace(-1, 1, 3 * HEADS, dtype=dtype).view(HEADS, 3))
    assert not of_bias.any()


# -- compilers, exporters, quantisers ----------------------------------------------------------------------------------


@quiet
@pytest.mark.parametrize(("name", "dynamic"), [("sa", False), ("psa", False), ("gpsa", False), ("gpsa", True)])
def test_compiled(name: str, dynamic: bool) -> None:
    torch.compiler.reset()
    layer, (x, *_) = draw(name)
    call = lambda x: layer(x, (2, 3), 1)  # noqa: E731
    compiled = torch.compile(call, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    assert_close(results(layer, (x,), compiled), results(layer, (x,), call))
    if dynamic:
        with torch.compiler.set_stance("fail_on_recompile"):
            more = (torch.randn(5, TOKENS, DIM, dtype=F64),)
            assert_close(results(layer, more, compiled), results(layer, more, call))


@quiet
@subjects
def test_exported(name: str) -> None:
    module, args = draw(name, F32)
    program = trace(module, (8, 8), dynamic_size=True) if name in MODELS else torch.export.export(module, args)
    loaded = through_file(torch.export.save, torch.export.load, program).module()
    # A model's graph takes images of any size: 8 x 12 and 8 x 8, neither of which it was traced with.
    for inputs in (args, (args[0][..., :8],)) if name in MODELS else (args,):
        assert relative_error(loaded(*inputs), module(*inputs)) < 1e-6


@quiet
@pytest.mark.parametrize("way", ["script", "trace"])
@models
def test_torchscript(name: str, way: str) -> None:
    model, args = draw(name)
    graph = torch.jit.script(model) if way == "script" else torch.jit.trace(model, args)
    expected = results(model, args)
    assert_close(results(graph, args), expected)
    assert_close(results(through_file(torch.jit.save, torch.jit.load, graph), args), expected)


@models
def test_traced_by_fx(name: str) -> None:
    model, args = draw(name)
    graph = create_feature_extractor(model, ["blocks.0", "head"])
    assert torch.equal(graph(*args)["head"], model(*args))


@quiet
@pytest.mark.parametrize("library", ["torch.ao.quantization", "torchao.quantization"])
@models
def test_quantised_to_8_bits(name: str, library: str) -> None:
    quantisation = pytest.importorskip(library, reason=f"needs {library}")
    model, args = draw(name, F32)
    if library == "torch.ao.quantization":
        quantised = quantisation.quantize_dynamic(model, {nn.Linear}, torch.qint8)
    else:
        quantised = copy.deepcopy(model)
        quantisation.quantize_(quantised, quantisation.Int8WeightOnlyConfig())
    linear = quantised.blocks[0].attn.get_submodule("pos_proj" if name == "convit" else "qkv")
    assert type(linear.weight) is not nn.Parameter
    assert 0 < relative_error(quantised(*args), model(*args)) < 0.1


@positional
def test_a_steep_weight_in_fp16(name: str) -> None:
    layer, _ = draw(name, torch.float16)
    layer.pos_proj.weight.data[:, 2] = -900
    layer.pos_proj.register_forward_hook(lambda *_: None)
    torch.testing.assert_close(layer.position_weight(), layer.pos_proj.weight, atol=0.02, rtol=1e-3)
