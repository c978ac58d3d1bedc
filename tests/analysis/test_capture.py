"""A captured pass is the real one: the maps of the naive form, the logits of the model."""

import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from timm.models.convit import GPSA
from torch import Tensor, nn

from convit import InputError
from convit.analysis import average, capture, gates, non_locality, position_weights
from convit.grid import Grid
from convit.layers import AttentionBase, GatedPositionalSelfAttention, PositionalSelfAttention, SelfAttention
from convit.ops import naive
from tests.analysis.models import images, ours, sped_up, timms, vit
from tests.helpers import relative_error


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
    with pytest.raises(InputError, match="layer 0, which runs more than once"):
        capture(model, x)


def test_a_layer_that_runs_twice_is_refused() -> None:
    """Of two maps one would be taken for the layer's."""
    model, x = ours(), images((16, 16))
    model.blocks[1].attn = model.blocks[0].attn
    with pytest.raises(InputError, match="layer 0, which runs more than once"):
        capture(model, x)

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attn = GatedPositionalSelfAttention(36, 9)

        def forward(self, x: Tensor) -> Tensor:
            return self.attn(self.attn(x))

    with pytest.raises(InputError, match="layer 0, which runs more than once"):
        capture(Twice(), torch.randn(2, 36, 36))


@pytest.mark.parametrize("kind", [GatedPositionalSelfAttention, PositionalSelfAttention, SelfAttention])
def test_a_class_in_between_may_say_the_grid_and_the_prefix(kind: type[AttentionBase]) -> None:
    """36 patches that are 4 x 9, not 6 x 6, after one token; as in a model of timm's, whose blocks know no grid."""

    class Between(kind):  # type: ignore[misc, valid-type]
        def forward(self, x: Tensor, attn_mask: Tensor | None = None) -> Tensor:
            return super().forward(x, grid=(4, 9), num_prefix_tokens=1)

    layer = capture(nn.Sequential(Between(36, 9)), torch.randn(2, 37, 36)).layers[0]
    assert (layer.grid, layer.num_prefix_tokens) == ((4, 9), 1)
