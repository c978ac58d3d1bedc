"""A captured pass is the real one: the maps of the naive form, the logits of the model, and nothing left behind."""

import copy
import weakref
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from timm.models.convit import GPSA
from torch import Tensor, nn

from convit import InputError
from convit.analysis import average, capture, gates, non_locality, position_weights
from convit.grid import Grid
from convit.layers import GatedPositionalSelfAttention, PositionalSelfAttention
from convit.ops import naive
from tests.analysis.models import MODELS, images, ours, sped_up, timms, vit
from tests.helpers import relative_error


@pytest.fixture(params=MODELS, ids=lambda name: name.replace(" ", "-"))
def case(request: pytest.FixtureRequest) -> tuple[nn.Module, Tensor, tuple[int, int]]:
    build, size, grid = MODELS[request.param]
    return build(), images(size), grid


def attention_inputs(model: nn.Module, x: Tensor) -> tuple[list[Any], list[Tensor], list[Tensor]]:
    """The attention modules, what goes into each, and what their blocks return, in a pass of its own."""
    modules = [block.attn for block in model.blocks]
    inputs: list[Tensor] = []
    outputs: list[Tensor] = []
    handles = [m.register_forward_pre_hook(lambda _, args: inputs.append(args[0])) for m in modules]
    handles += [block.register_forward_hook(lambda _, args, out: outputs.append(out)) for block in model.blocks]
    with torch.no_grad():
        model(x)
    for handle in handles:
        handle.remove()
    return modules, inputs, outputs


def split(x: Tensor, parts: int, heads: int) -> list[Tensor]:
    return list(x.unflatten(-1, (parts, heads, -1)).permute(2, 0, 3, 1, 4))


def expected_maps(module: Any, x: Tensor, grid: tuple[int, int], prefix: int) -> dict[str, Tensor]:
    """The equations of ``convit.ops.naive`` on the layer's own q, k, v."""
    heads = module.num_heads
    if not hasattr(module, "pos_proj"):
        q, k, v = split(module.qkv(x), 3, heads)
        if hasattr(module, "q_norm"):
            q, k = module.q_norm(q), module.k_norm(k)
        return {"mixed": naive.self_attention(q, k, v)[1]}
    (q, k), (v,) = split(module.qk(x), 2, heads), split(module.v(x), 1, heads)
    weight = module.pos_proj.weight
    if not hasattr(module, "gating_param"):
        return {"mixed": naive.positional_attention(q, k, v, weight, Grid(*grid), prefix)[1]}
    return naive.gated_attention(q, k, v, module.gating_param, weight, Grid(*grid), prefix)[1]._asdict()


# -- the pass is the real one ------------------------------------------------------------------------------------------


def test_maps_are_the_naive_forms(case: tuple[nn.Module, Tensor, tuple[int, int]]) -> None:
    model, x, grid = case
    shot = capture(model, x)
    modules, inputs, outputs = attention_inputs(model, x)
    assert [layer.index for layer in shot.layers] == list(range(len(modules)))
    for layer, module, tokens, hidden in zip(shot.layers, modules, inputs, outputs, strict=True):
        assert layer.grid == grid
        prefix = tokens.shape[1] - grid[0] * grid[1]
        assert layer.num_prefix_tokens == prefix
        assert relative_error(layer.hidden, hidden) < 1e-4
        with torch.no_grad():
            expected = expected_maps(module, tokens, grid, prefix)
        for name in ("content", "positional", "mixed"):
            got = getattr(layer, name)
            assert (got is None) == (name not in expected), name
            if got is not None:
                assert relative_error(got, expected[name]) < 1e-4, name
                assert relative_error(got.sum(-1), torch.ones(())) < 1e-5
        if layer.kind == "gpsa":
            assert torch.equal(layer.gates, torch.sigmoid(module.gating_param.detach()))
        else:
            assert layer.gates is None
        assert (layer.pos_weight is None) == (layer.kind == "sa") == (layer.centres is None) == (layer.spans is None)


def test_logits_are_the_models(case: tuple[nn.Module, Tensor, tuple[int, int]]) -> None:
    model, x, _ = case
    with torch.no_grad():
        assert relative_error(capture(model, x).logits, model(x)) < 1e-5


def test_maps_gave_the_hidden_states(case: tuple[nn.Module, Tensor, tuple[int, int]]) -> None:
    """From the map and the layer's input follows what the attention returned in that very pass."""
    model, x, _ = case
    seen: list[tuple[Tensor, Tensor]] = []
    for block in model.blocks:
        block.attn.register_forward_hook(lambda _, args, out: seen.append((args[0], out)))
    shot = capture(model, x)
    for layer, block, (tokens, out) in zip(shot.layers, model.blocks, seen, strict=True):
        attn = block.attn
        v = (
            split(attn.v(tokens), 1, attn.num_heads)[0]
            if hasattr(attn, "v")
            else split(attn.qkv(tokens), 3, attn.num_heads)[2]
        )
        assert relative_error(out, attn.proj((layer.mixed @ v).transpose(1, 2).flatten(2))) < 1e-6


def test_timms_maps_are_its_own_bitwise() -> None:
    model, x = timms(), images((48, 48))
    shot = capture(model, x)
    modules, inputs, _ = attention_inputs(model, x)
    for layer, module, tokens in zip(shot.layers, modules, inputs, strict=True):
        if isinstance(module, GPSA):
            with torch.no_grad():
                assert torch.equal(layer.mixed, module.get_attention(tokens))
            gate = layer.gates[:, None, None]
            assert relative_error(layer.mixed, (1 - gate) * layer.content + gate * layer.positional) < 1e-6


@pytest.mark.parametrize("build", [ours, timms, sped_up, vit])
def test_one_pass_only(build: Callable[[], nn.Module]) -> None:
    model = build()
    calls: list[int] = []
    for module in model.modules():
        if isinstance(module, nn.Linear) and module.in_features > 3:  # a hook makes pos_proj answer by calls
            module.register_forward_hook(lambda *_: calls.append(1))
    x = images((32, 48) if build is vit else (48, 48))
    with torch.no_grad():
        model(x)
    once = len(calls)
    calls.clear()
    capture(model, x)
    assert len(calls) == once


def test_class_token_apart() -> None:
    layer = capture(ours(), images((12, 20))).layers[2]
    assert layer.num_prefix_tokens == 1
    assert layer.patch_attention.shape == (2, 9, 15, 15)
    assert layer.prefix_attention.shape == (2, 9, 1, 3, 5)
    assert torch.equal(layer.prefix_attention[1, 4, 0].flatten(), layer.mixed[1, 4, 0, 1:])
    assert torch.equal(layer.patch_attention, layer.mixed[:, :, 1:, 1:])


def test_positional_maps_of_a_head_by_hand() -> None:
    """One row of two patches: the neighbour's logit is w0 + w2 = 1 - 3 = -2 to the right, -1 - 3 = -4 to the left."""
    model = ours()
    with torch.no_grad():
        model.blocks[0].attn.pos_proj.weight[5] = torch.tensor([1.0, 7.0, -3.0])
    layer = capture(model, images((4, 8)), layers=[0]).layers[0]
    right, left = 0.11920292, 0.01798621  # e^-2 / (1 + e^-2), e^-4 / (1 + e^-4)
    assert torch.allclose(layer.positional[5], torch.tensor([[1 - right, right], [left, 1 - left]]), atol=1e-6)
    assert torch.allclose(layer.centres[5], torch.tensor([1 / 6, 7 / 6]))
    assert layer.spans[5].item() == pytest.approx(6**-0.5)


# -- parts of it -------------------------------------------------------------------------------------------------------


def test_layers_and_heads(case: tuple[nn.Module, Tensor, tuple[int, int]]) -> None:
    model, x, _ = case
    everything = capture(model, x).layers
    (some,) = capture(model, x, layers=[1], heads=[3, 0]).layers
    assert (some.index, some.heads) == (1, (3, 0))
    assert relative_error(some.hidden, everything[1].hidden) < 1e-5
    for name, axis in {"mixed": 1, "content": 1, "positional": 0, "gates": 0, "pos_weight": 0}.items():
        got, full = getattr(some, name), getattr(everything[1], name)
        assert (got is None) == (full is None)
        if got is not None:
            assert relative_error(got, full.index_select(axis, torch.tensor([3, 0]))) < 1e-4


def test_layers_left_out_stay_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    original = naive.gated_attention
    monkeypatch.setattr(naive, "gated_attention", lambda *args: (calls.append(1), original(*args))[1])
    capture(ours(), images((16, 16)), layers=[1, 2])
    assert calls == [1]
    assert capture(ours(), images((16, 16)), layers=[]).layers == ()


def test_batches_and_means() -> None:
    model, x = ours(), images((12, 20), batch=5)
    whole = capture(model, x)
    batches = [(x[:2], "labels"), (x[2:],)]
    means = average(lambda layer: non_locality(layer.mixed, layer.grid, layer.num_prefix_tokens), model, batches)
    for layer in whole.layers:
        expected = non_locality(layer.mixed, layer.grid, layer.num_prefix_tokens).mean(0)
        assert relative_error(means[layer.index], expected) < 1e-6


def test_a_mean_holds_one_layer_at_a_time() -> None:
    alive: list[int] = []
    maps: list[Any] = []

    def metric(layer: Any) -> Tensor:
        alive.append(sum(ref() is not None for ref in maps))
        maps.append(weakref.ref(layer.mixed))
        return layer.mixed.sum((1, 2, 3))

    average(metric, ours(), [images((16, 16))] * 2)
    assert len(alive) == 6
    assert max(alive) <= 1  # the one before may still be on its way out


def test_gates_and_positions_without_a_pass() -> None:
    for model in (ours(), timms(), sped_up()):
        assert list(gates(model)) == list(position_weights(model)) == [0, 1]
        assert torch.equal(gates(model)[1], torch.sigmoid(model.blocks[1].attn.gating_param.detach()))
        assert torch.equal(position_weights(model)[1], model.blocks[1].attn.pos_proj.weight)
    assert gates(vit()) == position_weights(vit()) == gates(ours(gated=False)) == {}
    assert list(position_weights(ours(gated=False))) == [0, 1]


# -- mode, type, wrappers ----------------------------------------------------------------------------------------------


def state(model: nn.Module) -> dict[str, Any]:
    """All that a capture could leave behind."""
    return {
        "modules": {
            name: (id(m), type(m), m.training, list(vars(m)), vars(m).get("fused_attn"))
            for name, m in model.named_modules()
        },
        "parameters": {name: (id(p), p.requires_grad, p.grad is None) for name, p in model.named_parameters()},
        "buffers": {name: id(b) for name, b in model.named_buffers()},
        "hooks": {
            name: [len(d) for key, d in vars(m).items() if key.endswith("_hooks")] for name, m in model.named_modules()
        },
    }


def same_weights(model: nn.Module, before: dict[str, Tensor]) -> bool:
    return list(before) == list(model.state_dict()) and all(
        torch.equal(model.state_dict()[n], t) for n, t in before.items()
    )


@pytest.mark.parametrize("fails", [False, True])
def test_everything_is_put_back(case: tuple[nn.Module, Tensor, tuple[int, int]], fails: bool) -> None:
    model, x, _ = case
    model.train()
    model.blocks[1].eval()  # each module has its own mode
    if fails:
        model.head.register_forward_pre_hook(lambda *_: 1 // 0)
    before, weights, random = state(model), copy.deepcopy(model.state_dict()), torch.get_rng_state()
    with pytest.raises(ZeroDivisionError) if fails else nullcontext():
        capture(model, x, keep_graph=True)
    assert state(model) == before
    assert same_weights(model, weights)
    assert torch.equal(torch.get_rng_state(), random)
    assert torch.is_grad_enabled()


def test_evaluation_whatever_the_mode() -> None:
    model = ours(drop_rate=0.5, pos_drop_rate=0.5, proj_drop_rate=0.5, attn_drop_rate=0.5, drop_path_rate=0.5)
    x = images((16, 16))
    expected = capture(model, x)
    got = capture(model.train(), x)
    assert torch.equal(got.logits, expected.logits)
    assert all(torch.equal(a.mixed, b.mixed) for a, b in zip(got.layers, expected.layers, strict=True))


@pytest.mark.parametrize("build", [ours, timms, sped_up, vit])
def test_bf16(build: Callable[[], nn.Module]) -> None:
    x = images((32, 48) if build is vit else (48, 48))
    model = build()
    expected = capture(model, x)
    got = capture(model.bfloat16(), x.bfloat16())
    assert got.logits.dtype == torch.bfloat16
    with torch.no_grad():
        assert relative_error(got.logits, model(x.bfloat16())) < 0.05
    assert (got.layers[0].mixed - expected.layers[0].mixed).abs().max() < 0.05
    assert got.layers[0].mixed.dtype == (torch.float32 if build is ours else torch.bfloat16)


def test_autocast() -> None:
    model, x = ours(), images((16, 16))
    expected = capture(model, x)
    with torch.autocast("cpu", torch.bfloat16):
        got = capture(model, x)
    assert torch.equal(got.layers[0].positional, expected.layers[0].positional)
    assert (got.layers[0].mixed - expected.layers[0].mixed).abs().max() < 0.05


@pytest.mark.parametrize("keep_graph", [False, True])
def test_the_graph_is_there_when_asked_for(case: tuple[nn.Module, Tensor, tuple[int, int]], keep_graph: bool) -> None:
    model, x, _ = case
    model.requires_grad_(False)
    with torch.no_grad() if keep_graph else torch.enable_grad():
        shot = capture(model, x, keep_graph=keep_graph)
    assert shot.logits.requires_grad == keep_graph
    assert not x.requires_grad
    if keep_graph:
        maps = [layer.mixed for layer in shot.layers]
        assert all(g is not None and g.any() for g in torch.autograd.grad(shot.logits[:, 0].sum(), maps))
        assert all(p.grad is None for p in model.parameters())


def test_inference_mode_and_checkpointing() -> None:
    model, x = vit(), images((32, 48))
    model.set_grad_checkpointing()
    with torch.inference_mode():
        shot = capture(model, x.clone(), keep_graph=True)  # an image that is an inference tensor
        plain = capture(model, x)
    assert torch.equal(plain.logits, shot.logits.detach())
    assert model.grad_checkpointing
    assert torch.autograd.grad(shot.logits.sum(), shot.layers[0].mixed)[0].any()


@pytest.mark.parametrize("build", [ours, timms, vit])
def test_data_parallel_and_compiled_models(build: Callable[[], nn.Module]) -> None:
    model, x = build(), images((32, 48) if build is vit else (48, 48))
    expected = capture(model, x)
    compilations: list[int] = []

    def backend(graph: torch.fx.GraphModule, _inputs: list[Tensor]) -> Callable[..., Any]:
        compilations.append(1)
        return graph.forward

    compiled = torch.compile(copy.deepcopy(model), backend=backend)
    in_place = copy.deepcopy(model)
    for block in in_place.blocks:
        block.compile(backend=backend)
    with torch.no_grad():
        for _ in range(2):  # before any hook is there; timm's ConViT compiles twice, as it caches positions
            compiled(x)
            in_place(x)
    count = len(compilations)
    assert count > 0
    for wrapped in (nn.DataParallel(model), compiled, in_place):
        for _ in range(2):
            got = capture(wrapped, x)
            assert torch.equal(got.logits, expected.logits)
            assert torch.equal(got.layers[1].mixed, expected.layers[1].mixed)
    assert len(compilations) == count
    with torch.no_grad():
        compiled(x)
        in_place(x)
    assert len(compilations) == count  # what was compiled is still good


def test_a_layer_in_ones_own_model() -> None:
    class Mine(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attn = GatedPositionalSelfAttention(8, num_heads=4)
            self.more = nn.ModuleList([PositionalSelfAttention(8, num_heads=2)])

        def forward(self, x: Tensor) -> Tensor:
            tokens = x.flatten(2).transpose(1, 2)
            return self.more[0](self.attn(tokens, grid=(2, 3)), grid=(2, 3)).mean(1)

    with pytest.raises(InputError, match=r"got layers that ran not once but \{1: 0\}"):
        capture(Mine(), torch.randn(2, 8, 2, 3))  # a ModuleList is no block: it is never called
    (layer,) = capture(Mine(), torch.randn(2, 8, 2, 3), layers=[0]).layers
    assert (layer.kind, layer.grid, layer.hidden.shape) == ("gpsa", (2, 3), (2, 8))


# -- errors ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"layers": [0, 3, -1]}, r"layers: got \[-1, 3\], expected some of 0 to 2"),
        ({"heads": [9]}, r"heads: got \[9\], expected some of 0 to 8, the heads of layer 0"),
        ({"heads": [0], "keep_graph": True}, "heads: got some with keep_graph=True, expected all"),
    ],
)
def test_wrong_choices(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        capture(ours(), images((16, 16)), **wrong)


def test_wrong_models_and_batches() -> None:
    with pytest.raises(InputError, match=r"got Linear with no attention of a known kind in it, expected"):
        capture(nn.Linear(2, 2), images((16, 16)))
    with pytest.raises(InputError, match=r"model: got str, expected an nn\.Module"):
        capture("convit_tiny", images((16, 16)))  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"batches: got int, expected images"):
        average(lambda layer: layer.mixed, ours(), [3])
    with pytest.raises(InputError, match="batches: got none"):
        average(lambda layer: layer.mixed, ours(), [])
    with pytest.raises(InputError, match=r"metric: got a result of shape \(\), expected \(2, \.\.\.\)"):
        average(lambda layer: layer.mixed.mean(), ours(), [images((16, 16))])


def test_a_layer_that_attends_in_its_own_way() -> None:
    class Own(GatedPositionalSelfAttention):
        def forward(self, x: Tensor, *_: Any) -> Tensor:
            return x

    model = ours()
    model.blocks[1].attn.__class__ = Own
    with pytest.raises(InputError, match="layer 1 of type Own, whose map does not pass through its attn_drop"):
        capture(model, images((16, 16)))
    assert len(capture(model, images((16, 16)), layers=[0, 2]).layers) == 2


def test_an_attention_of_another_kind_is_refused_not_skipped() -> None:
    """Skipped, the layers after it would have other numbers, and masking would act on the wrong one."""
    model = ours()
    model.blocks[0].attn = nn.Identity()
    with pytest.raises(InputError, match="got Identity as the attention of block 0, which does not hand out its maps"):
        gates(model)


def test_what_hangs_on_timms_pos_proj_takes_part() -> None:
    model = timms()
    model.blocks[0].attn.pos_proj.register_forward_hook(lambda _module, _args, out: 3 * out)
    layer = capture(model, images((48, 48))).layers[0]
    gate = layer.gates[:, None, None]
    assert relative_error(layer.mixed, (1 - gate) * layer.content + gate * layer.positional) < 1e-6


@pytest.mark.parametrize("build", [ours, timms])
def test_a_pass_within_a_pass_is_refused(build: Callable[[], nn.Module]) -> None:
    """Its maps would be taken for those of the outer one."""
    model, x = build(), images((48, 48))
    busy: list[int] = []

    def again(_module: nn.Module, _args: Any, _out: Tensor) -> None:
        if not busy:
            busy.append(1)
            model(x)

    model.blocks[0].attn.attn_drop.register_forward_hook(again)
    with pytest.raises(InputError, match=r"another pass of the model within that of layer 0|ran not once"):
        capture(model, x)
