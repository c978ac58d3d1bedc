"""A training step: which parameters get a gradient, checkpointing, and that a forward pass changes nothing."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from convit import ConViT
from convit.layers import GatedPositionalSelfAttention, PositionalSelfAttention, SelfAttention
from convit.ops import gated_attention
from tests.helpers import biases_of_pos_proj, gradients, randomise, relative_error, step, tiny_model, without_gradient


def small_cnn() -> nn.Module:
    """A CNN of stride 4."""
    return nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 8, 3, 2, 1))


MODELS: dict[str, dict[str, Any]] = {
    "gated": {},
    "ungated": {"gated": False},
    "plain attention twin": {"local_up_to_layer": 0},
    "biases": {"qkv_bias": True},
    "without position embedding": {"use_pos_embed": False},
    "without the convolutional start": {"conv_init": False},
    "attention dropout": {"attn_drop_rate": 0.1},
    "every dropout": {"drop_rate": 0.1, "pos_drop_rate": 0.1, "proj_drop_rate": 0.1},
    "hybrid": {"hybrid_backbone": "small_cnn"},
    "one block": {"depth": 1, "local_up_to_layer": 0},
}
ALL_LOCAL: dict[str, dict[str, Any]] = {
    "all GPSA": {"local_up_to_layer": 3},
    "all PSA": {"local_up_to_layer": 3, "gated": False},
}


def build(options: dict[str, Any], **more: Any) -> ConViT:
    options = options | more
    if options.get("hybrid_backbone") == "small_cnn":
        options["hybrid_backbone"] = small_cnn()
    return tiny_model(**options)


@pytest.mark.parametrize("pool", ["token", "avg"])
@pytest.mark.parametrize("options", MODELS.values(), ids=list(MODELS))
def test_no_parameter_is_left_without_a_gradient(options: dict[str, Any], pool: str) -> None:
    model = randomise(build(options, global_pool=pool), std=0.2)
    step(model, torch.randn(2, 3, 16, 24))
    assert without_gradient(model) == biases_of_pos_proj(model)


@pytest.mark.parametrize("options", ALL_LOCAL.values(), ids=list(ALL_LOCAL))
def test_all_local_models_have_their_class_token(options: dict[str, Any]) -> None:
    model = randomise(build(options), std=0.2)
    x = torch.randn(2, 3, 16, 24)
    assert model.forward_features(x).shape == (2, 1 + 24, 36)
    step(model, x)
    # The class token attends by content alone, and nothing but it is read: the last block's positions cannot matter.
    unused = {"blocks.2.attn.pos_proj.weight", "blocks.2.attn.gating_param"} & set(model.state_dict())
    assert without_gradient(model) == biases_of_pos_proj(model) | unused
    assert model.cls_token.grad.any()

    model = randomise(build(options, global_pool="avg"), std=0.2)
    step(model, x)
    assert without_gradient(model) == biases_of_pos_proj(model)


def test_a_fresh_model_trains_every_parameter_too() -> None:
    model = tiny_model()
    step(model, torch.randn(4, 3, 16, 16))
    assert without_gradient(model) == biases_of_pos_proj(model)


def test_kinds_of_attention() -> None:
    def kinds(**options: Any) -> list[type]:
        return [type(block.attn) for block in tiny_model(**options).blocks]

    assert kinds() == [GatedPositionalSelfAttention] * 2 + [SelfAttention]
    assert kinds(gated=False) == [PositionalSelfAttention] * 2 + [SelfAttention]
    assert kinds(local_up_to_layer=0) == [SelfAttention] * 3
    assert kinds(local_up_to_layer=3) == [GatedPositionalSelfAttention] * 3


def test_options_reach_every_block() -> None:
    model = tiny_model(locality_strength=0.25, gate_init=-1.0, mlp_ratio=3.0, qkv_bias=True, drop_path_rate=0.2)
    for block in model.blocks[:2]:
        assert block.attn.gating_param.tolist() == [-1.0] * 9
        assert block.attn.pos_proj.weight[:, 2].tolist() == [-0.25] * 9
    assert [block.mlp.fc1.out_features for block in model.blocks] == [108] * 3
    assert {"attn.qk.bias", "attn.v.bias"} <= set(model.blocks[0].state_dict())
    assert "attn.qkv.bias" in model.blocks[2].state_dict()
    assert [getattr(block.drop_path, "drop_prob", 0) for block in model.blocks] == pytest.approx([0, 0.1, 0.2])
    randomly = tiny_model(conv_init=False)
    assert randomly.blocks[0].attn.pos_proj.weight.abs().max() < 0.2


@pytest.mark.parametrize("name", ["drop_rate", "pos_drop_rate", "proj_drop_rate", "attn_drop_rate", "drop_path_rate"])
def test_dropout_is_for_training(name: str) -> None:
    model = randomise(tiny_model(**{name: 0.5}), std=0.2)
    without = tiny_model().eval()
    without.load_state_dict(model.state_dict())
    x = torch.randn(4, 3, 16, 16)
    assert not torch.equal(model(x), model(x))
    torch.testing.assert_close(model.eval()(x), without(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("options", [*MODELS.values(), *ALL_LOCAL.values()], ids=[*MODELS, *ALL_LOCAL])
def test_forward_changes_nothing(options: dict[str, Any]) -> None:
    model = build(options).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    attributes = set(vars(model)) | set(vars(model.blocks[0].attn))
    with torch.no_grad():
        first = model(torch.ones(1, 3, 16, 16))
        other = model(torch.ones(1, 3, 24, 8))
        assert torch.equal(model(torch.ones(1, 3, 16, 16)), first)
        assert torch.equal(model(torch.ones(1, 3, 24, 8)), other)
    assert set(vars(model)) | set(vars(model.blocks[0].attn)) == attributes
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], value) for name, value in before.items())


CHECKPOINTED = [{}, {"drop_path_rate": 0.5}, {"attn_drop_rate": 0.3}, {"local_up_to_layer": 3}]


@pytest.mark.parametrize("options", CHECKPOINTED, ids=str)
def test_checkpointing_gives_the_same_gradients(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    model = randomise(tiny_model(**options), std=0.2).double()
    x = torch.randn(4, 3, 16, 24, dtype=torch.float64)
    calls = []
    model.blocks[1].attn.register_forward_hook(lambda *_: calls.append(1))

    def run() -> tuple[Tensor, dict[str, Tensor], int]:
        calls.clear()
        torch.manual_seed(5)
        return step(model, x), gradients(model), len(calls)

    out, plain, once = run()
    model.set_grad_checkpointing()
    checkpointed_out, checkpointed, twice = run()
    assert (once, twice) == (1, 2)  # the block did run again
    assert torch.equal(checkpointed_out, out)
    assert list(checkpointed) == list(plain)
    for name, gradient in plain.items():
        torch.testing.assert_close(checkpointed[name], gradient, atol=1e-14, rtol=1e-12, msg=name)
    model.set_grad_checkpointing(False)
    assert run()[2] == 1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_type_and_device_keywords(dtype: torch.dtype) -> None:
    model = tiny_model(dtype=dtype)
    assert {p.dtype for p in model.parameters()} == {dtype}
    assert model(torch.randn(1, 3, 16, 16, dtype=dtype)).dtype == dtype
    on_meta = tiny_model(device="meta")
    assert {p.device.type for p in on_meta.parameters()} == {"meta"}
    assert on_meta(torch.empty(2, 3, 16, 24, device="meta")).shape == (2, 5)


def test_compiles_to_one_graph() -> None:
    torch.compiler.reset()
    model = randomise(tiny_model(depth=2, local_up_to_layer=1), std=0.2)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    for size in ((16, 16), (8, 24)):
        x = torch.randn(2, 3, *size)
        expected, wanted = step(model, x), gradients(model)
        torch.testing.assert_close(step(compiled, x), expected, atol=1e-5, rtol=1e-4)
        assert list(gradients(model)) == list(wanted)
        for name, gradient in gradients(model).items():
            torch.testing.assert_close(gradient, wanted[name], atol=1e-4, rtol=1e-3, msg=name)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_a_traced_model_is_the_model() -> None:
    """With gradients and without, whichever it was traced with."""
    model = randomise(tiny_model()).eval()
    x = torch.randn(2, 3, 16, 16)
    traced = torch.jit.trace(model, x)
    with torch.no_grad():
        without = torch.jit.trace(model, x)
    assert relative_error(traced(x), model(x)) < 1e-6
    without(x).sum().backward()


def test_vmap_over_gates() -> None:
    q, k, v = torch.randn(3, 2, 4, 6, 8)
    gates, weight = torch.randn(5, 4), torch.randn(4, 3)
    with torch.no_grad():
        mapped = torch.func.vmap(lambda gate: gated_attention(q, k, v, gate, weight, (2, 3)))(gates)
        expected = torch.stack([gated_attention(q, k, v, gate, weight, (2, 3)) for gate in gates])
    assert relative_error(mapped, expected) < 1e-6


def test_dropout_of_the_attention_follows_its_own_mode() -> None:
    """As Monte Carlo dropout wants it: the model in evaluation, its dropouts in training."""
    model = randomise(tiny_model(attn_drop_rate=0.5)).eval()
    x = torch.randn(2, 3, 16, 16)
    assert torch.equal(model(x), model(x))
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.train()
    assert not torch.equal(model(x), model(x))
