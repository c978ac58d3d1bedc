"""What users and libraries do to modules: on our layers each act has the same effect as on plain attention.

Every test is one such act: pruning, adapters, hooks, ``torch.func``, copies, compilers. Most run on five subjects: the
three layers, a small ConViT, and the same model with plain attention alone, for comparison.
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
from timm.utils import AttentionExtract
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck
from torch.func import functional_call, grad, hessian, jacrev, jvp, stack_module_state, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils import parametrizations, parametrize, prune

from convit import GPSA, InputError
from convit.analysis.attention_layers import attention_layers
from convit.export import trace
from convit.layers import PositionalSelfAttention, SelfAttention
from tests.helpers import randomise, relative_error, tiny_model

F32, F64 = torch.float32, torch.float64
DIM, HEADS, GRID, PREFIX = 6, 3, (2, 3), 1  # a rectangle, and a token without a position
TOKENS = PREFIX + GRID[0] * GRID[1]
LAYERS = {"sa": SelfAttention, "psa": PositionalSelfAttention, "gpsa": GPSA}
MODELS = {"convit": 1, "twin": 0}  # how many of the two blocks are GPSA

layers = pytest.mark.parametrize("name", list(LAYERS))
positional = pytest.mark.parametrize("name", ["psa", "gpsa"])
models = pytest.mark.parametrize("name", list(MODELS))
subjects = pytest.mark.parametrize("name", [*LAYERS, *MODELS])
weights = pytest.mark.parametrize(
    ("name", "linear"), [("sa", "qkv"), ("psa", "v"), ("psa", "pos_proj"), ("gpsa", "v"), ("gpsa", "pos_proj")]
)
quiet = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning", "ignore::torch.jit.TracerWarning"
)

Arguments = tuple[Any, ...]


def build(name: str, **keywords: Any) -> nn.Module:
    """One of the five subjects, with its weights as they start."""
    if name in MODELS:
        return tiny_model(depth=2, local_up_to_layer=MODELS[name], qkv_bias=True, **keywords)
    return LAYERS[name](DIM, HEADS, qkv_bias=True, **keywords)


def draw(name: str, dtype: torch.dtype = F64, batch: int = 2) -> tuple[nn.Module, Arguments]:
    """The same with every parameter at random, and what to call it with: images, or tokens and where they lie."""
    module = randomise(build(name)).to(dtype).eval()
    if name in MODELS:
        return module, (torch.randn(batch, 3, 8, 12, dtype=dtype),)
    return module, (torch.randn(batch, TOKENS, DIM, dtype=dtype), GRID, PREFIX)


def loss(out: Tensor) -> Tensor:
    """A number that no symmetry of the outputs leaves unchanged."""
    return (out * torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)).sum()


def results(module: nn.Module, args: Arguments, call: Callable[..., Tensor] | None = None) -> dict[str, Tensor]:
    """The output of the module, or of ``call``, and the gradient of every trainable parameter and of the input."""
    wanted = {name: p for name, p in module.named_parameters() if p.requires_grad}
    wanted["input"] = x = args[0].detach().clone().requires_grad_()
    out = (call or module)(x, *args[1:])
    gradients = torch.autograd.grad(loss(out), list(wanted.values()))
    return {"output": out.detach()} | dict(zip(wanted, gradients, strict=True))


def assert_close(got: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float = 1e-10) -> None:
    """Relative to the largest value of each tensor; some gradients are zero but for rounding."""
    assert list(got) == list(expected)
    for key, value in expected.items():
        bound = tolerance * value.abs().max().clamp_min(1e-2).item()
        torch.testing.assert_close(got[key], value, atol=bound, rtol=0, msg=lambda text, key=key: f"{key}: {text}")


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


# -- hooks -------------------------------------------------------------------------------------------------------------


def heads_of(x: Tensor) -> Tensor:
    """``(B, T, C)`` to ``(B, h, T, d)``."""
    return x.unflatten(-1, (HEADS, -1)).transpose(1, 2)


def values(layer: nn.Module, x: Tensor) -> Tensor:
    """The values of all heads, ``(B, T, C)``."""
    return layer.qkv(x)[..., 2 * DIM :] if isinstance(layer, SelfAttention) else layer.v(x)


@layers
def test_hooks_on_attn_drop_see_the_map_and_its_gradient(name: str) -> None:
    layer, args = draw(name)
    fast, maps, gradients = results(layer, args), [], []
    forward = layer.attn_drop.register_forward_hook(lambda _m, _args, out: maps.append(out))
    assert_close(results(layer, args), fast)
    forward.remove()
    backward = layer.attn_drop.register_full_backward_hook(lambda _m, _in, out: gradients.append(out[0]))
    assert_close(results(layer, args), fast)
    backward.remove()
    assert_close(results(layer, args), fast, 0.0)

    (attention,), (gradient,), value = maps, gradients, heads_of(values(layer, args[0]))
    assert attention.shape == (2, HEADS, TOKENS, TOKENS)
    torch.testing.assert_close(attention.sum(-1), torch.ones(2, HEADS, TOKENS, dtype=F64))
    out = (attention @ value).requires_grad_()
    projected = layer.proj(out.transpose(1, 2).flatten(2))
    torch.testing.assert_close(projected, fast["output"])
    (upstream,) = torch.autograd.grad(loss(projected), out)
    torch.testing.assert_close(gradient, upstream @ value.transpose(-2, -1))


@pytest.mark.parametrize(
    ("name", "points"), [*((name, ["attn_drop"]) for name in LAYERS), ("gpsa", ["content_map", "positional_map"])]
)
def test_map_that_a_hook_returns_is_used(name: str, points: list[str]) -> None:
    """With the identity matrix as its map every token sees itself alone."""
    layer, args = draw(name)
    outputs, handles = [layer(*args)], []

    def identity(_module: nn.Module, _args: Arguments, out: Tensor) -> Tensor:
        return torch.eye(out.shape[-1], dtype=out.dtype).expand_as(out)

    for point in points:
        handles.append(layer.get_submodule(point).register_forward_hook(identity))
        outputs.append(layer(*args))
        assert relative_error(outputs[-1], outputs[-2]) > 1e-3, point
    torch.testing.assert_close(outputs[-1], layer.proj(values(layer, args[0])))
    for handle in handles:
        handle.remove()
    assert torch.equal(layer(*args), outputs[0])


def test_maps_of_gpsa_give_the_mixed_one() -> None:
    layer, args = draw("gpsa")
    seen: list[Tensor] = []
    for module in (layer.content_map, layer.positional_map, layer.attn_drop):
        module.register_forward_hook(lambda _m, _args, out: seen.append(out))
    layer(*args)
    content, positional, mixed = seen
    assert positional.shape == (HEADS, TOKENS - PREFIX, TOKENS - PREFIX)
    gate, expected = layer.gates[:, None, None], content.clone()  # a prefix token attends by content alone
    expected[:, :, PREFIX:] *= 1 - gate
    expected[:, :, PREFIX:, PREFIX:] += gate * positional
    torch.testing.assert_close(mixed, expected)


@quiet  # that no input of pos_proj needs a gradient
@positional
def test_hooks_on_pos_proj(name: str) -> None:
    layer, args = draw(name)
    doubled, calls = copy.deepcopy(layer), []
    doubled.pos_proj.weight.data.mul_(2)
    layer.pos_proj.register_forward_pre_hook(lambda *_: calls.append("before"))
    layer.pos_proj.register_forward_hook(lambda _m, _args, out: 2 * out)
    layer.pos_proj.register_full_backward_hook(lambda *_: calls.append("backward"))
    got, expected = results(layer, args), results(doubled, args)
    expected["pos_proj.weight"] *= 2
    assert_close(got, expected)
    assert set(calls) == {"before", "backward"}


@models
def test_attention_extract_of_timm(name: str) -> None:
    model, args = draw(name)
    before = model(*args)
    maps = AttentionExtract(model, method="hook")(*args)
    sizes = [6, 7] if name == "convit" else [7, 7]  # the class token joins after the GPSA block
    assert {key: tuple(value.shape) for key, value in maps.items()} == {
        f"blocks.{block}.attn.attn_drop": (2, 9, size, size) for block, size in enumerate(sizes)
    }
    for attention in maps.values():
        torch.testing.assert_close(attention.sum(-1), torch.ones_like(attention[..., 0]))
    torch.testing.assert_close(model(*args), before)


# -- torch.func and derivatives ----------------------------------------------------------------------------------------


@subjects
def test_functional_call(name: str) -> None:
    module, args = draw(name)
    other, _ = draw(name)
    parameters = {key: p.detach() for key, p in other.named_parameters()}
    expected = results(other, args)
    assert torch.equal(functional_call(module, parameters, args), expected["output"])
    gradients = grad(lambda p: loss(functional_call(module, p, args)))(parameters)
    assert_close(gradients, {key: expected[key] for key in gradients})


@quiet  # that PyTorch has no fast rule of vmap for its attention
@pytest.mark.parametrize("dtype", [F32, F64], ids=str)
@subjects
def test_ensemble_by_vmap(name: str, dtype: torch.dtype) -> None:
    ensemble = [draw(name, dtype)[0] for _ in range(3)]
    x, *rest = draw(name, dtype)[1]
    stacked, _ = stack_module_state(ensemble)
    one = lambda parameters, x: functional_call(ensemble[0], parameters, (x, *rest))  # noqa: E731
    tolerance = 1e-5 if dtype == F32 else 1e-12
    got = vmap(one, in_dims=(0, None))(stacked, x)
    assert relative_error(got, torch.stack([member(x, *rest) for member in ensemble])) < tolerance
    batches = torch.stack((x, 2 * x, -x))
    expected = torch.stack([member(batch, *rest) for member, batch in zip(ensemble, batches, strict=True)])
    assert relative_error(vmap(one)(stacked, batches), expected) < tolerance


@subjects
def test_gradients_of_each_sample_by_vmap(name: str) -> None:
    module, (x, *rest) = draw(name, batch=3)
    parameters = {key: p.detach() for key, p in module.named_parameters()}
    one = lambda p, sample: loss(functional_call(module, p, (sample[None], *rest)))  # noqa: E731
    got = vmap(grad(one), in_dims=(None, 0))(parameters, x)
    for i, sample in enumerate(x):
        expected = results(module, (sample[None], *rest))
        assert_close({key: value[i] for key, value in got.items()}, {key: expected[key] for key in got})


@quiet
@layers
def test_forward_and_reverse_derivatives(name: str) -> None:
    layer, (x, *rest) = draw(name, batch=1)
    call = lambda x: layer(x, *rest)  # noqa: E731
    direction = torch.randn_like(x)
    _, tangent = jvp(call, (x,), (direction,))
    torch.testing.assert_close(jacrev(call)(x).flatten(3) @ direction.flatten(), tangent)
    numeric = (call(x + 1e-5 * direction) - call(x - 1e-5 * direction)) / 2e-5
    torch.testing.assert_close(tangent, numeric, atol=1e-8, rtol=1e-6)
    layer.float()
    with sdpa_kernel(SDPBackend.MATH):  # PyTorch's fused attention has no forward derivative
        _, single = jvp(call, (x.float(),), (direction.float(),))
    assert relative_error(single, tangent) < 1e-5


@layers
def test_first_and_second_derivatives(name: str) -> None:
    layer, (x, *rest) = draw(name, batch=1)
    chosen = {key: p for key, p in layer.named_parameters() if key in ("pos_proj.weight", "gating_param", "proj.bias")}

    def call(x: Tensor, *parameters: Tensor) -> Tensor:
        return functional_call(layer, dict(zip(chosen, parameters, strict=True)), (x, *rest))

    inputs = [tensor.detach().clone().requires_grad_() for tensor in (x, *chosen.values())]
    assert gradcheck(call, inputs)
    assert gradgradcheck(call, inputs)


@layers
def test_second_derivative_in_fp32(name: str) -> None:
    """PyTorch's fused attention has none; its plain one does."""
    layer, (x, *rest) = draw(name, batch=1)
    curved = lambda x: loss(layer(x, *rest).sin())  # noqa: E731
    expected = hessian(curved)(x).flatten(3) @ grad(curved)(x).flatten()
    layer.float()
    x = x.float().requires_grad_()
    with sdpa_kernel(SDPBackend.MATH):
        (first,) = torch.autograd.grad(curved(x), x, create_graph=True)
        (second,) = torch.autograd.grad(first.square().sum() / 2, x)  # the Hessian times the gradient
    assert relative_error(second, expected) < 1e-4


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
