"""Decided heads skip a path and nothing else changes: values by hand, bounds, and all that brings the whole back."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
from hypothesis import given
from hypothesis import strategies as st
from timm.models.convit import GPSA as TimmGPSA
from torch import Tensor, nn
from torch.nn.utils import prune as torch_prune

import convit
from convit import GPSA, InputError, ops, prune_gates, restore
from convit.analysis import gates_set
from convit.models import pruned_layers
from convit.models.prune import PruneReport
from convit.models.pruned_layers import PrunedFastGPSA, PrunedGPSA
from convit.models.speed_up import FastGPSA
from tests.helpers import gradients, randomise, relative_error, step, tiny_model

X = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))  # 4 x 4 patches
INF = float("inf")
MIXED = [-20.0, 20, 1, -1, -INF, INF, 9, -9, 20]  # of 9 heads
SHUT, OPEN = (0, 4), (1, 5, 8)


def set_gates(module: nn.Module, *logits: list[float]) -> None:
    """One list for each GPSA layer, in order."""
    layers = [layer for layer in module.modules() if hasattr(layer, "gating_param")]
    with torch.no_grad():
        for layer, values in zip(layers, logits, strict=True):
            layer.gating_param.copy_(torch.tensor(values, dtype=torch.float64))


def made(**overrides: Any) -> nn.Module:
    """Two GPSA blocks, the gates of the first decided in some heads, the second's in all but one."""
    model = randomise(tiny_model(**overrides), std=0.3).eval()
    set_gates(model, MIXED, [20.0] * 8 + [0.5])
    return model


@pytest.fixture
def model() -> nn.Module:
    return made()


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The class of each layer whose pruned form ran."""
    ran: list[str] = []
    original = pruned_layers.attend_in_groups

    def counted(layer: Any, *args: Any) -> Tensor:
        ran.append(type(layer).__name__)
        return original(layer, *args)

    monkeypatch.setattr(pruned_layers, "attend_in_groups", counted)
    return ran


@torch.no_grad()
def run(model: nn.Module, x: Tensor = X, *args: Any) -> Tensor:
    return model(x, *args)


def naive_forward(layer: Any, x: Tensor, gates: Tensor, grid: tuple[int, int], prefix: int) -> Tensor:
    """The layer by its equation, with gates of these logits."""
    q, k, v = layer.project(x)
    weight = layer.pos_proj.weight
    out = ops.gated_attention(q, k, v, gates, weight, grid, prefix, backend="naive")
    return layer.proj(out.transpose(1, 2).flatten(2))


# -- the same function -------------------------------------------------------------------------------------------------


GATES = {  # fp64 calls 40 decided and tells 20 from it
    "mixed": MIXED,
    "all shut": [-40.0] * 9,
    "all open": [40.0] * 9,
    "shut and open": [-40.0, 40] * 4 + [40],
    "shut and both": [1.0, -40, -40, 1, 1, -40, 0, 0, 0],
    "open and both": [1.0, 40, 40, 1, 1, 40, 0, 0, 0],
    "one open, last": [1.0] * 8 + [40],
}


@pytest.mark.parametrize("prefix", [0, 1, 3])
@pytest.mark.parametrize("gates", GATES.values(), ids=GATES)
@pytest.mark.parametrize("tolerance", [0.0, 0.02, 0.3])
def test_is_the_equation_with_gates_of_0_and_1(
    tolerance: float, gates: list[float], prefix: int, runs: list[str]
) -> None:
    layer = randomise(GPSA(36, num_heads=9, qkv_bias=True), std=0.5).double().eval()
    set_gates(layer, gates)
    grid = (2, 5)
    x = torch.randn(2, prefix + 10, 36, dtype=torch.float64)
    bound = max(tolerance, torch.finfo(torch.float64).eps / 4)
    logits = torch.tensor(gates, dtype=torch.float64)
    forced = torch.where(
        torch.sigmoid(logits) <= bound, -INF, torch.where(torch.sigmoid(-logits) <= bound, INF, logits)
    )
    nested = nn.ModuleDict({"attn": layer})
    nested.forward = lambda tokens: layer(tokens, grid, prefix)
    prune_gates(nested, tolerance, images=x)
    runs.clear()
    assert relative_error(run(layer, x, grid, prefix), naive_forward(layer, x, forced, grid, prefix)) < 1e-13
    assert len(runs) == 1


def test_by_hand() -> None:
    """Two heads of width 1, no weights but v: a shut one gives the mean of all, an open sharp one what it looks at."""
    layer = GPSA(2, num_heads=2, conv_init=False).eval()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.zero_()
        layer.v.weight.copy_(torch.eye(2))
        layer.proj.weight.copy_(torch.eye(2))
        layer.pos_proj.weight.copy_(torch.tensor([[0.0, 0, 0], [200, 0, -100]]))  # -100 (dx - 1)^2: one to the right
    set_gates(layer, [-20.0, 20.0])
    nested = nn.Sequential(layer)
    x = torch.tensor([[[1.0, 1], [2, 2], [4, 4], [9, 9]]])  # 2 x 2: 1 2 / 4 9
    report = prune_gates(nested, images=x)
    assert (report.shut, report.open, report.num_heads) == ({"0": (0,)}, {"0": (1,)}, 2)
    assert run(nested, x)[0].tolist() == [[4, 2], [4, 2], [4, 9], [4, 9]]


@pytest.mark.parametrize("size", [(16, 16), (12, 20), (4, 8)])
@pytest.mark.parametrize("overrides", [{}, {"local_up_to_layer": 3, "qkv_bias": True}])
def test_models_keep_their_output_at_tolerance_0(overrides: dict[str, Any], size: tuple[int, int]) -> None:
    model = randomise(tiny_model(**overrides), std=0.3).eval()
    set_gates(model, *[MIXED, [-20.0] * 9, [20.0] * 9][: overrides.get("local_up_to_layer", 2)])
    x = torch.randn(2, 3, *size)
    expected = run(model, x)
    prune_gates(model)
    assert relative_error(run(model, x), expected) < 1e-5


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_what_tolerance_0_calls_decided(dtype: torch.dtype) -> None:
    """The last logit on either side of a gate of eps / 4, to the type's next number."""
    layer = GPSA(8, num_heads=4).to(dtype).eval()
    eps = torch.finfo(dtype).eps
    edge = torch.logit(torch.tensor(eps / 4, dtype=torch.float64)).item()
    inside, outside = edge * (1 + 2 * eps), edge * (1 - 2 * eps)
    set_gates(layer, [inside, outside, -outside, -inside])
    report = prune_gates(nn.Sequential(layer), images=torch.randn(1, 4, 8, dtype=dtype))
    assert (report.shut, report.open) == ({"0": (0,)}, {"0": (3,)})


@given(
    logit=st.floats(-30, 30),
    tolerance=st.floats(0, 0.49),
    seed=st.integers(0, 1000),
)
def test_no_number_moves_by_more_than_promised(logit: float, tolerance: float, seed: int) -> None:
    torch.manual_seed(seed)
    layer = randomise(GPSA(4, num_heads=1), std=1.0).double().eval()
    with torch.no_grad():
        layer.proj.weight.copy_(torch.eye(4))
        layer.proj.bias.zero_()
    set_gates(layer, [logit])
    x = torch.randn(2, 9, 4, dtype=torch.float64)
    before = run(layer, x)
    prune_gates(nn.Sequential(layer), tolerance, images=x)
    limit = 2 * max(tolerance, 6e-17) * run(layer.v, x).abs().max() + 1e-14
    assert (run(layer, x) - before).abs().max() <= limit


def test_of_open_heads_no_queries_and_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = randomise(GPSA(36, num_heads=9)).eval()
    seen: list[tuple[int, ...]] = []
    original = pruned_layers.F.scaled_dot_product_attention

    def counted(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        seen.append(tuple(q.shape))
        return original(q, k, v)

    for gates, heads in ((MIXED, 6), ([-20.0] * 9, 9), ([20.0] * 9, None)):
        set_gates(layer, gates)
        prune_gates(nn.Sequential(layer), images=torch.randn(1, 9, 36))
        seen.clear()
        with monkeypatch.context() as patch:
            patch.setattr(pruned_layers.F, "scaled_dot_product_attention", counted)
            run(layer, torch.randn(1, 9, 36))
        assert seen == ([] if heads is None else [(1, heads, 9, 4)])


def test_shut_heads_have_no_positional_work(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = randomise(GPSA(36, num_heads=9)).eval()
    heads: list[int] = []
    original = pruned_layers.attend_by_position

    def counted(v: Tensor, *args: Any) -> Tensor:
        heads.append(v.shape[1])
        return original(v, *args)

    for gates, expected in ((MIXED, [7]), ([-20.0] * 9, [])):
        set_gates(layer, gates)
        prune_gates(nn.Sequential(layer), images=torch.randn(1, 9, 36))
        heads.clear()
        with monkeypatch.context() as patch:
            patch.setattr(pruned_layers, "attend_by_position", counted)
            run(layer, torch.randn(1, 9, 36))
        assert heads == expected


# -- the report --------------------------------------------------------------------------------------------------------


def test_report(model: nn.Module) -> None:
    before = run(model)
    report = prune_gates(model, 0.01, images=X)
    assert report.shut == {"blocks.0.attn": (0, 4, 7), "blocks.1.attn": ()}
    assert report.open == {"blocks.0.attn": (1, 5, 6, 8), "blocks.1.attn": tuple(range(8))}
    assert (report.num_shut, report.num_open, report.num_heads, report.left) == (3, 12, 18, {})
    change = (run(model) - before).abs().max().item()
    assert report.largest_change == pytest.approx(change, abs=0, rel=1e-6)
    assert change > 0
    assert report.relative_change == pytest.approx(change / before.abs().max().item(), rel=1e-6)
    assert report.speed > 0


def test_report_reads() -> None:
    report = PruneReport(
        tolerance=0.01,
        shut={"a": (0, 2), "b": (), "c": ()},
        open={"a": (1,), "b": (), "c": (3, 4)},
        num_heads=15,
        largest_change=2.5e-3,
        relative_change=1e-3,
        speed=1.234,
        left={"d": "got X"},
    )
    assert str(report).splitlines() == [
        "gates pruned at a tolerance of 0.01: 2 shut and 3 open, of 15 heads in 3 layers",
        "speed: 1.23 times; largest change of the output: 2.5e-03, 1.0e-03 of the largest",
        "  a: shut 0, 2; open 1",
        "  c: open 3, 4",
        "  d: left, got X",
    ]


def test_random_images_are_of_the_models_size_and_always_the_same() -> None:
    seen: list[Tensor] = []
    model = made(img_size=(12, 20), in_chans=2)
    model.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    before = torch.get_rng_state()
    prune_gates(model)
    prune_gates(model.double(), 0.01)
    assert torch.equal(torch.get_rng_state(), before)
    assert {tuple(x.shape) for x in seen} == {(4, 2, 12, 20)}
    assert {x.dtype for x in seen} == {torch.float32, torch.float64}
    assert torch.equal(seen[0].double(), seen[-1])


def test_nothing_to_prune_runs_nothing() -> None:
    model = tiny_model()
    model.register_forward_pre_hook(lambda *_: pytest.fail("it ran"))
    report = prune_gates(model, 0.2)
    assert (report.num_shut, report.num_open, report.largest_change, report.speed) == (0, 0, 0.0, 1.0)
    assert type(model.blocks[0].attn) is GPSA


# -- what stays, and when the whole layer runs -------------------------------------------------------------------------


def test_objects_modes_and_state_stay(model: nn.Module) -> None:
    model.blocks[1].train()
    modes = {name: module.training for name, module in model.named_modules()}
    parameters, state = dict(model.named_parameters()), copy.deepcopy(model.state_dict())
    buffers = list(dict(model.named_buffers()))
    prune_gates(model)
    assert {name: module.training for name, module in model.named_modules()} == modes
    assert all(parameter is parameters[name] for name, parameter in model.named_parameters())
    assert list(dict(model.named_buffers())) == buffers
    assert list(model.state_dict()) == list(state)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_training_is_that_of_the_whole_layer(model: nn.Module, runs: list[str]) -> None:
    whole = copy.deepcopy(model)
    prune_gates(model, 0.01)
    runs.clear()
    for training in (True, False):  # in evaluation too, as the gates want gradients
        assert torch.equal(step(model.train(training), X), step(whole.train(training), X))
        got = gradients(model)
        for name, gradient in gradients(whole).items():
            assert torch.equal(got[name], gradient), name
    assert torch.equal(run(model.train()), run(whole.train()))
    assert not runs
    run(model.eval())
    assert runs == ["PrunedGPSA"] * 2


def test_gradients_of_the_images_pass_through_a_frozen_model(model: nn.Module, runs: list[str]) -> None:
    found = []
    for one in (copy.deepcopy(model), model):
        if one is model:
            prune_gates(model)
            runs.clear()
        x = X.clone().requires_grad_()
        one.requires_grad_(False)(x).square().sum().backward()
        found.append(x.grad)
    assert len(runs) == 2
    assert relative_error(found[1], found[0]) < 1e-4


def test_dropout_of_the_attention_is_the_whole_layers(runs: list[str]) -> None:
    model = made(attn_drop_rate=0.5)
    prune_gates(model)
    runs.clear()
    for block in model.blocks:  # Monte Carlo dropout: the rest of the model in evaluation
        block.attn.attn_drop.train()
    assert not torch.equal(run(model), run(model))
    assert not runs


def by_state(model: nn.Module, other: nn.Module) -> None:
    model.load_state_dict(other.state_dict())


def by_assignment(model: nn.Module, other: nn.Module) -> None:
    model.load_state_dict(copy.deepcopy(other.state_dict()), assign=True)


def in_place(model: nn.Module, other: nn.Module) -> None:
    with torch.no_grad():
        for mine, new in zip(model.parameters(), other.parameters(), strict=True):
            mine.copy_(new)


def by_data(model: nn.Module, other: nn.Module) -> None:
    for mine, new in zip(model.parameters(), other.parameters(), strict=True):
        mine.data = new.data.clone()


CHANGES = [by_state, by_assignment, in_place, by_data]


@pytest.mark.parametrize("change", CHANGES)
def test_other_gates_get_the_whole_layer(
    change: Callable[[nn.Module, nn.Module], None], model: nn.Module, runs: list[str]
) -> None:
    prune_gates(model, 0.3)
    other = randomise(tiny_model()).eval()
    change(model, other)
    runs.clear()
    assert torch.equal(run(model), run(other))
    assert not runs
    set_gates(other, MIXED, MIXED)
    change(model, other)
    prune_gates(model)
    assert relative_error(run(model), run(other)) < 1e-5


def test_another_type_gets_the_whole_layer(model: nn.Module, runs: list[str]) -> None:
    """What is exact in one type is not in another."""
    prune_gates(model)
    whole = made().double()
    whole.load_state_dict(model.state_dict())
    runs.clear()
    assert torch.equal(run(model.double(), X.double()), run(whole, X.double()))
    assert not runs
    run(model.float())
    assert runs == ["PrunedGPSA"] * 2


def test_gates_set_by_hand(model: nn.Module) -> None:
    whole = copy.deepcopy(model)
    prune_gates(model)
    values = {0: {0: 0.5, 1: 0.25}, 1: {0: 0.0}}
    with gates_set(model, values), gates_set(whole, values):
        assert torch.equal(run(model), run(whole))


def test_autocast_and_lower_precision(model: nn.Module) -> None:
    expected, low = run(model), copy.deepcopy(model).bfloat16()
    prune_gates(model)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert relative_error(run(model), expected) < 0.05
    prune_gates(low)
    out = run(low, X.bfloat16())
    assert out.dtype == torch.bfloat16
    assert relative_error(out, expected) < 0.1


def by_pickle(model: nn.Module) -> nn.Module:
    return pickle.loads(pickle.dumps(model))


@pytest.mark.parametrize("copied", [copy.deepcopy, by_pickle])
def test_copies(copied: Callable[[nn.Module], nn.Module], model: nn.Module, runs: list[str]) -> None:
    prune_gates(model)
    other = copied(model)
    runs.clear()
    assert torch.equal(run(other), run(model))
    assert runs == ["PrunedGPSA"] * 4
    restore(other)
    assert type(model.blocks[0].attn) is PrunedGPSA


def test_restored_is_bitwise_what_it_was(model: nn.Module) -> None:
    before, attributes = run(model), set(vars(model.blocks[0].attn))
    prune_gates(model, 0.1)
    result = restore(model)
    assert result.changed == ("blocks.0.attn", "blocks.1.attn")
    assert type(model.blocks[0].attn) is GPSA
    assert set(vars(model.blocks[0].attn)) == attributes
    assert torch.equal(run(model), before)


def test_a_second_call_starts_anew(model: nn.Module) -> None:
    prune_gates(model, 0.3)
    set_gates(model, MIXED, [0.5] * 9)
    attributes = set(vars(GPSA(36, 9)))
    report = prune_gates(model)
    assert report.shut == {"blocks.0.attn": SHUT, "blocks.1.attn": ()}
    assert report.open == {"blocks.0.attn": OPEN, "blocks.1.attn": ()}
    assert type(model.blocks[1].attn) is GPSA
    assert set(vars(model.blocks[1].attn)) == attributes


def test_a_model_that_fails_is_not_pruned(model: nn.Module) -> None:
    model.train()
    with pytest.raises(ValueError, match="15"):
        prune_gates(model, images=torch.randn(1, 3, 15, 16))
    assert type(model.blocks[0].attn) is GPSA
    assert "head_plan" not in vars(model.blocks[0].attn)
    assert all(module.training for module in model.modules())


def test_hooks_on_the_projections_run(model: nn.Module) -> None:
    seen: list[str] = []
    attention = model.blocks[0].attn
    expected = run(model)
    prune_gates(model)
    for name in ("qk", "v", "proj"):
        attention.get_submodule(name).register_forward_hook(lambda *_, name=name: seen.append(name))
    assert relative_error(run(model), expected) < 1e-5
    assert sorted(seen) == ["proj", "qk", "v"]


def test_pruned_weights_of_queries_and_keys(model: nn.Module) -> None:
    whole = copy.deepcopy(model)
    for one in (model, whole):
        torch_prune.l1_unstructured(one.blocks[0].attn.qk, "weight", 50)
    prune_gates(model)
    assert relative_error(run(model), run(whole)) < 1e-5


# -- compiled ----------------------------------------------------------------------------------------------------------


def test_compiles_to_one_graph_and_notices_new_gates(model: nn.Module) -> None:
    prune_gates(model)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    assert relative_error(run(compiled), run(model)) < 1e-5
    other = randomise(tiny_model()).eval()
    model.load_state_dict(other.state_dict())
    assert relative_error(run(compiled), run(other)) < 1e-5
    set_gates(model, MIXED, MIXED)
    prune_gates(model)
    assert relative_error(run(compiled), run(model)) < 1e-5
    set_gates(model, [0.3] * 9, [0.1] * 9)
    model.eval()
    assert relative_error(run(compiled), run(model)) < 1e-5
    restore(model)
    assert relative_error(run(compiled), run(model)) < 1e-5


def test_compiled_code_notices_another_type(model: nn.Module) -> None:
    prune_gates(model)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    run(compiled)
    whole = made().double()
    whole.load_state_dict(model.state_dict())
    model.double()
    assert relative_error(run(compiled, X.double()), run(whole, X.double())) < 1e-13


def test_a_compiled_model(model: nn.Module) -> None:
    expected = run(model)
    compiled = torch.compile(model, backend="eager")
    report = prune_gates(compiled)
    assert list(report.shut) == ["_orig_mod.blocks.0.attn", "_orig_mod.blocks.1.attn"]
    assert relative_error(run(compiled), expected) < 1e-5


# -- timm's ------------------------------------------------------------------------------------------------------------


def timms() -> nn.Module:
    shape = {"img_size": 48, "depth": 3, "local_up_to_layer": 2, "embed_dim": 6, "num_heads": 4, "num_classes": 5}
    model = randomise(timm.create_model("convit_tiny", **shape), std=0.3).eval()
    set_gates(model, [-20.0, 20, 1, 1], [20.0] * 4)
    return model


def test_timms_convit_after_speed_up(runs: list[str]) -> None:
    model = timms()
    x = torch.randn(2, 3, 48, 48)
    expected = run(model, x)
    with pytest.raises(InputError, match=r"got timm's own GPSA, expected the fast one: call convit.speed_up"):
        prune_gates(model)
    convit.speed_up(model)
    report = prune_gates(model)
    assert report.shut == {"blocks.0.attn": (0,), "blocks.1.attn": ()}
    assert report.open == {"blocks.0.attn": (1,), "blocks.1.attn": (0, 1, 2, 3)}
    runs.clear()
    assert relative_error(run(model, x), expected) < 1e-4
    assert runs == ["PrunedFastGPSA"] * 2
    assert convit.speed_up(model).changed == ()
    assert type(model.blocks[0].attn) is PrunedFastGPSA

    handle = model.blocks[0].attn.attn_drop.register_forward_hook(lambda *_: None)
    runs.clear()
    assert relative_error(run(model, x), expected) < 1e-4
    assert len(runs) == 1  # timm's code in the other: the hook wants the map
    handle.remove()

    assert len(restore(model).changed) == 3
    assert type(model.blocks[0].attn) is TimmGPSA
    assert torch.equal(run(model, x), expected)


def test_undecided_layers_of_timm_stay_fast() -> None:
    model = timms()
    set_gates(model, [-20.0, 20, 1, 1], [1.0] * 4)
    convit.speed_up(model)
    prune_gates(model)
    assert [type(block.attn) for block in model.blocks[:2]] == [PrunedFastGPSA, FastGPSA]


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tolerance", [-0.1, 0.5, float("nan")])
def test_tolerances(tolerance: float, model: nn.Module) -> None:
    with pytest.raises(InputError, match=r"tolerance: got .*, expected from 0 to below 0.5"):
        prune_gates(model, tolerance)


@pytest.mark.parametrize("overrides", [{"gated": False}, {"local_up_to_layer": 0}])
def test_models_without_gates(overrides: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="got ConViT without a GPSA layer that can be pruned: got none; expected"):
        prune_gates(tiny_model(**overrides))
    with pytest.raises(InputError, match=r"got str, expected an nn\.Module with a GPSA layer"):
        prune_gates("convit_tiny")  # type: ignore[arg-type]


class Doubled(GPSA):
    def forward(self, *args: Any) -> Tensor:
        return 2 * super().forward(*args)


def test_what_may_compute_something_else_is_left(model: nn.Module) -> None:
    model.blocks[1].attn.__class__ = Doubled
    report = prune_gates(model)
    assert report.left == {"blocks.1.attn": "got Doubled, whose code may differ; expected the GPSA layer itself"}
    assert list(report.shut) == ["blocks.0.attn"]
    model.blocks[0].attn.__class__ = Doubled
    with pytest.raises(InputError, match="got Doubled, whose code may differ"):
        prune_gates(model)


def test_a_model_that_does_not_tell_its_size() -> None:
    layer = GPSA(36, num_heads=9)
    set_gates(layer, MIXED)
    with pytest.raises(InputError, match=r"images: got none for a Sequential, .*expected images="):
        prune_gates(nn.Sequential(layer))
    assert type(layer) is GPSA


def test_an_output_that_is_no_tensor() -> None:
    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attn = GPSA(36, num_heads=9)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return self.attn(x), x

    pair = Pair()
    set_gates(pair, MIXED)
    with pytest.raises(InputError, match="got an output of type tuple, expected a tensor"):
        prune_gates(pair, images=torch.randn(1, 9, 36))
    assert type(pair.attn) is GPSA
