"""A timm ConViT that was sped up is the model it was: outputs, gradients, names, objects; and it can go back."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
import torch.distributed as dist
from timm.models.convit import GPSA, MHSA
from torch import Tensor, nn
from torch.nn.utils import prune

from convit import ops
from convit.models.speed_up import FastGPSA, FastMHSA, Swapped, _check_timm, restore, speed_up
from tests.analysis.models import timms
from tests.helpers import gradients, relative_error, step

NAMES = ("blocks.0.attn", "blocks.1.attn", "blocks.2.attn")
X = torch.randn(2, 3, 48, 48, generator=torch.Generator().manual_seed(0))  # 3 x 3 patches


@pytest.fixture
def model() -> nn.Module:
    return timms()


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one with each run of the fast form of GPSA."""
    _check_timm()  # it runs the fast form once a process
    made: list[int] = []
    original = ops.gated_attention

    def counted(*args: Any, **kwargs: Any) -> Tensor:
        made.append(1)
        return original(*args, **kwargs)

    monkeypatch.setattr(ops, "gated_attention", counted)
    return made


# -- the same model ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("overrides", [{}, {"qkv_bias": True}, {"local_up_to_layer": 0}, {"num_heads": 9}])
def test_same_outputs_and_gradients(overrides: dict[str, Any], calls: list[int]) -> None:
    plain = timms(**overrides)
    fast = copy.deepcopy(plain)
    assert speed_up(fast) == Swapped(NAMES, {})
    assert relative_error(step(fast, X), step(plain, X)) < 1e-4
    assert len(calls) == overrides.get("local_up_to_layer", 2)
    got, expected = gradients(fast), gradients(plain)
    assert list(got) == list(expected) == [name for name, _ in plain.named_parameters()]
    for name, gradient in expected.items():
        if name.endswith("pos_proj.bias"):  # it cancels: exactly zero here, rounding there
            assert not got[name].any()
            assert gradient.abs().max() < 1e-4 * expected[name.replace("bias", "weight")].abs().max()
        else:
            assert gradient.any(), name
            assert relative_error(got[name], gradient) < 1e-4, name


def test_in_fp64_nothing_but_rounding_differs() -> None:
    plain = timms().double()
    fast = copy.deepcopy(plain)
    speed_up(fast)
    with torch.inference_mode():
        assert relative_error(fast(X.double()), plain(X.double())) < 1e-12


def test_the_models_as_timm_makes_them() -> None:
    plain = timm.create_model("convit_small", img_size=64, depth=4, local_up_to_layer=3).eval()
    fast = copy.deepcopy(plain)
    assert len(speed_up(fast).changed) == 4
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert relative_error(fast(x), plain(x)) < 1e-4


def test_every_object_and_name_stays(model: nn.Module) -> None:
    modules, parameters = dict(model.named_modules()), dict(model.named_parameters())
    keys, buffers = list(model.state_dict()), dict(model.named_buffers())
    frozen = model.blocks[0].attn.pos_proj.bias.requires_grad_(False)
    for change in (speed_up, restore):
        change(model)
        assert list(dict(model.named_modules())) == list(modules)
        assert all(module is modules[name] for name, module in model.named_modules())
        assert list(dict(model.named_parameters())) == list(parameters)
        assert all(parameter is parameters[name] for name, parameter in model.named_parameters())
        assert all(buffer is buffers[name] for name, buffer in model.named_buffers())
        assert list(model.state_dict()) == keys
        assert not frozen.requires_grad


def test_an_optimiser_goes_on_where_it_was(model: nn.Module) -> None:
    plain = copy.deepcopy(model)
    optimizers = {id(m): torch.optim.SGD(m.parameters(), lr=1e-3, momentum=0.9) for m in (plain, model)}
    for number in range(4):
        if number == 2:
            speed_up(model)
        for one in (plain, model):
            step(one, X)
            optimizers[id(one)].step()
    assert relative_error(model(X), plain(X)) < 1e-4


def test_restored_is_bitwise_what_it_was(model: nn.Module) -> None:
    before = model(X)
    speed_up(model)
    model(X)
    assert restore(model) == Swapped(NAMES, {})
    assert torch.equal(model(X), before)
    assert [type(block.attn) for block in model.blocks] == [GPSA, GPSA, MHSA]
    assert restore(model) == Swapped((), {})


def test_mode_and_type_of_a_restored_model_are_the_last_ones(model: nn.Module) -> None:
    plain = copy.deepcopy(model)
    speed_up(model)
    model.train().double()
    restore(model)
    assert all(module.training for module in model.modules())
    assert torch.equal(model(X.double()), plain.train().double()(X.double()))


# -- what is done to a model -------------------------------------------------------------------------------------------


def by_pickle(model: nn.Module) -> nn.Module:
    return pickle.loads(pickle.dumps(model))


@pytest.mark.parametrize("copied", [copy.deepcopy, by_pickle])
def test_a_copy_is_fast_too_and_shares_nothing(copied: Callable[[nn.Module], nn.Module], model: nn.Module) -> None:
    speed_up(model)
    other = copied(model)
    assert torch.equal(other(X), model(X))
    assert [type(block.attn) for block in other.blocks] == [FastGPSA, FastGPSA, FastMHSA]
    assert not {id(p) for p in model.parameters()} & {id(p) for p in other.parameters()}
    assert restore(other).changed == NAMES
    assert [type(block.attn) for block in model.blocks] == [FastGPSA, FastGPSA, FastMHSA]


def test_states_go_both_ways(model: nn.Module) -> None:
    plain, fast = timms(), timms()
    speed_up(fast)
    fast.load_state_dict(model.state_dict(), strict=True)
    plain.load_state_dict(fast.state_dict(), strict=True)
    assert relative_error(fast(X), model(X)) < 1e-4
    assert torch.equal(plain(X), model(X))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_lower_precision(model: nn.Module, dtype: torch.dtype) -> None:
    expected = model(X)
    speed_up(model)
    out = model.to(dtype)(X.to(dtype))
    assert out.dtype == dtype
    assert relative_error(out, expected) < 0.1
    assert relative_error(model.float()(X), expected) < 0.05  # the weights were rounded


def test_meta_device(model: nn.Module) -> None:
    speed_up(model)
    assert model.to("meta")(X.to("meta")).device.type == "meta"
    assert restore(model).changed == NAMES


@pytest.mark.parametrize("training", [False, True])
def test_compiles_to_one_graph(model: nn.Module, training: bool) -> None:
    speed_up(model)
    compiled = torch.compile(model.train(training), backend="aot_eager", fullgraph=True)
    assert relative_error(step(compiled, X), step(model, X)) < 1e-4


def test_a_compiled_model_notices(model: nn.Module, calls: list[int]) -> None:
    compiled = torch.compile(model, backend="eager")
    expected = compiled(X)
    assert speed_up(compiled).changed == tuple(f"_orig_mod.{name}" for name in NAMES)
    assert relative_error(compiled(X), expected) < 1e-4
    assert len(calls) == 2
    restore(compiled)
    assert torch.equal(compiled(X), expected)


def test_distributed(model: nn.Module) -> None:
    if not dist.is_available() or not dist.is_gloo_available():
        pytest.skip("this PyTorch has no gloo")
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        wrapped = nn.parallel.DistributedDataParallel(model)
        expected = step(wrapped, X)
        speed_up(wrapped)
        for _ in range(2):  # the second one waits for every gradient of the first
            assert relative_error(step(wrapped, X), expected) < 1e-4
    finally:
        dist.destroy_process_group()


def test_nested_shared_and_alone(model: nn.Module) -> None:
    nested = nn.ModuleDict({"teacher": model, "again": model, "head": nn.Linear(5, 2)})
    assert speed_up(nested).changed == tuple(f"teacher.{name}" for name in NAMES)
    alone = GPSA(8, num_heads=2)
    assert speed_up(alone).changed == ("",)
    assert type(alone) is FastGPSA


def test_some_already_fast(model: nn.Module) -> None:
    speed_up(model.blocks[1])
    assert speed_up(model).changed == (NAMES[0], NAMES[2])
    assert speed_up(model) == Swapped((), {})


def test_dropout_of_the_attention_is_timms(calls: list[int]) -> None:
    plain = timms(attn_drop_rate=0.4, proj_drop_rate=0.3)
    fast = copy.deepcopy(plain)
    speed_up(fast)
    for mode in (nn.Module.eval, nn.Module.train, nn.Module.eval):
        outputs = []
        for one in (plain, fast):
            torch.manual_seed(1)
            outputs.append(mode(one)(X))
        assert relative_error(outputs[1], outputs[0]) < 1e-4
    assert len(calls) == 4  # in evaluation alone
    for block in fast.blocks:  # Monte Carlo dropout: the rest of the model in evaluation
        block.attn.attn_drop.train()
    assert not torch.equal(fast(X), fast(X))


def test_random_states_stay(model: nn.Module) -> None:
    _check_timm.cache_clear()
    before = torch.get_rng_state()
    with torch.device("meta"), torch.autocast("cpu", dtype=torch.bfloat16):
        speed_up(model)
    assert torch.equal(torch.get_rng_state(), before)


# -- hooks and maps ----------------------------------------------------------------------------------------------------


def test_hooks_on_the_attention_and_its_projections_run(model: nn.Module, calls: list[int]) -> None:
    seen: list[str] = []
    attention = model.blocks[0].attn
    for name in ("", "qk", "v", "proj", "proj_drop"):
        attention.get_submodule(name).register_forward_hook(lambda *_, name=name: seen.append(name))
    attention.register_full_backward_hook(lambda *_: seen.append("backward"))
    assert speed_up(model).changed == NAMES
    step(model, X)
    assert seen == ["qk", "v", "proj", "proj_drop", "", "backward"]
    assert len(calls) == 2


@pytest.mark.parametrize("part", ["attn_drop", "pos_proj"])
def test_a_hook_on_what_the_fast_form_passes_by(model: nn.Module, part: str, calls: list[int]) -> None:
    expected, seen = model(X), []

    def hook(_module: nn.Module, _inputs: Any, out: Tensor) -> None:
        seen.append(out)

    handle = model.blocks[0].attn.get_submodule(part).register_forward_hook(hook)
    result = speed_up(model)
    assert result.changed == NAMES[1:]
    assert f"{part} has a hook" in result.left[NAMES[0]]
    assert f"left as they were: 1\n  blocks.0.attn: {part} has a hook" in str(result)
    handle.remove()
    assert speed_up(model).changed == NAMES[:1]

    model.blocks[0].attn.get_submodule(part).register_forward_hook(hook)  # too late to leave it: timm's code runs
    calls.clear()
    assert relative_error(model(X), expected) < 1e-4
    assert (len(seen), len(calls)) == (1, 1)


def test_pruned_positions(model: nn.Module) -> None:
    plain = copy.deepcopy(model)
    speed_up(model)
    for one in (plain, model):
        prune.l1_unstructured(one.blocks[0].attn.pos_proj, "weight", 5)
    with torch.no_grad():
        model.blocks[0].attn.pos_proj.weight.fill_(9.0)  # what a read of the weight would see, until the hook runs
    assert relative_error(model(X), plain(X)) < 1e-4


def test_a_replaced_projection_is_called(model: nn.Module) -> None:
    class Scaled(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    plain = copy.deepcopy(model)
    speed_up(model)
    for one in (plain, model):
        for part in ("qk", "v", "pos_proj", "proj"):
            one.blocks[0].attn.get_submodule(part).__class__ = Scaled
    assert relative_error(model(X), plain(X)) < 1e-4


def test_timms_attention_maps(model: nn.Module) -> None:
    tokens = torch.randn(2, 9, 24)
    plain, fast = model.blocks[0].attn, copy.deepcopy(model.blocks[0].attn)
    plain(tokens)  # timm's distances are those of the last forward pass
    speed_up(fast)
    fast(tokens)
    for got, expected in zip(fast.get_attention_map(tokens, True), plain.get_attention_map(tokens, True), strict=True):
        assert torch.equal(got, expected)
    patched = fast.get_attention
    seen: list[Tensor] = []
    fast.get_attention = lambda x: seen.append(x) or patched(x)
    assert relative_error(fast(tokens), plain(tokens)) < 1e-4
    assert len(seen) == 1
