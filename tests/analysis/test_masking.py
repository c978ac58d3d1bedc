"""What is masked is off, nothing else changes, and everything is back afterwards."""

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import convit
from convit import InputError
from convit.analysis import capture, gates, gates_set, masked, without_position_embedding
from tests.analysis.models import images, ours, same_weights, sped_up, state, timms, vit
from tests.helpers import relative_error

GATED = [ours, timms, sped_up]
X = images((48, 48))

Mask = Callable[[nn.Module], AbstractContextManager[None]]
MASKS: dict[str, Mask] = {
    "embedding": without_position_embedding,
    "content": lambda model: masked(model, content=2),
    "position": lambda model: masked(model, position=[1]),
    "gates": lambda model: gates_set(model, {0: {1: 0.25, 2: 1.0}}),
}


def output(model: nn.Module, x: Tensor = X) -> Tensor:
    with torch.no_grad():
        return model(x)


def edited(model: nn.Module, edit: Callable[[nn.Module], None]) -> nn.Module:
    """A copy whose parameters were changed for good."""
    other = copy.deepcopy(model)
    with torch.no_grad():
        edit(other)
    return other


# -- the paper's tables, against models whose parameters were edited ---------------------------------------------------


@pytest.mark.parametrize("build", [*GATED, vit])
def test_table_5(build: Callable[[], nn.Module]) -> None:
    model, x = build(), images((32, 48)) if build is vit else X
    expected = output(edited(model, lambda m: m.pos_embed.zero_()), x)
    with without_position_embedding(model):
        got = output(model, x)
    assert torch.equal(got, expected)
    assert not torch.equal(got, output(model, x))


@pytest.mark.parametrize("build", GATED)
@pytest.mark.parametrize(("kind", "logit"), [("content", 100.0), ("position", -200.0)])
@pytest.mark.parametrize("layers", [1, 2, [1], range(1, 2)])
def test_table_6(build: Callable[[], nn.Module], kind: str, logit: float, layers: Any) -> None:
    model = build()
    numbers = range(layers) if isinstance(layers, int) else layers

    def edit(other: nn.Module) -> None:
        for number in numbers:
            other.blocks[number].attn.gating_param.fill_(logit)

    with masked(model, **{kind: layers}):
        got = output(model)
    assert torch.equal(got, output(edited(model, edit)))
    assert not torch.equal(got, output(model))


@pytest.mark.parametrize("build", GATED)
def test_masked_means_exactly_one_kind(build: Callable[[], nn.Module]) -> None:
    model = build()
    with masked(model, content=[0], position=[1]):
        first, second, _ = capture(model, X).layers
        expected = output(model)
        for name, parameter in model.named_parameters():
            if name in ("blocks.0.attn.qk.weight", "blocks.1.attn.pos_proj.weight", "blocks.1.attn.pos_proj.bias"):
                parameter.data.mul_(-2.5)  # what is off makes no difference at all
        assert torch.equal(output(model), expected)
    assert not torch.equal(output(model), expected)
    assert relative_error(first.mixed, first.positional.expand_as(first.mixed)) < 1e-6  # timm normalises it once more
    assert relative_error(second.mixed, second.content) < 1e-6
    assert first.gates.eq(1).all()
    assert second.gates.eq(0).all()


@pytest.mark.parametrize("build", GATED)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_zero_and_one_are_exact_in_every_type(build: Callable[[], nn.Module], dtype: torch.dtype) -> None:
    model = build().to(dtype)
    with masked(model, content=1, position=[1]):
        assert gates(model)[0].eq(1).all()
        assert gates(model)[1].eq(0).all()
        assert output(model, X.to(dtype)).isfinite().all()


def test_no_nan_in_a_backward_pass() -> None:
    for build in GATED:
        model = build().train()
        with masked(model, content=1, position=[1]):
            model(X).sum().backward()
        for name, parameter in model.named_parameters():
            if name.endswith("gating_param"):
                assert parameter.grad is None, name
            else:
                assert parameter.grad.isfinite().all(), name


def test_a_class_token_attends_by_content_all_the_same() -> None:
    model = ours(local_up_to_layer=3)
    with masked(model, content=3):
        last = capture(model, X).layers[2]
    assert last.num_prefix_tokens == 1
    assert torch.equal(last.mixed[:, :, 0], last.content[:, :, 0])
    assert not last.mixed[:, :, 1:, 0].any()


# -- gates by hand -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("build", GATED)
def test_gates_by_hand(build: Callable[[], nn.Module]) -> None:
    model = build()
    before = gates(model)
    plain = capture(model, X).layers
    with gates_set(model, {1: {0: 0.0, 1: 1.0, 3: 0.3}}):
        got = capture(model, X).layers
        assert torch.equal(gates(model)[0], before[0])
    expected = before[1].clone()
    expected[[0, 1, 3]] = torch.tensor([0.0, 1.0, 0.3])
    assert torch.allclose(got[1].gates, expected, rtol=1e-6, atol=0)
    gate = expected[:, None, None]
    assert relative_error(got[1].mixed, (1 - gate) * got[1].content + gate * got[1].positional) < 1e-5
    # Layers before are what they were, bit by bit; layers behind get something else to look at.
    assert torch.equal(got[0].mixed, plain[0].mixed)
    assert torch.equal(got[0].hidden, plain[0].hidden)
    assert torch.equal(got[1].content, plain[1].content)
    assert not torch.equal(got[1].hidden, plain[1].hidden)
    same = [head for head in range(len(expected)) if torch.equal(got[1].mixed[:, head], plain[1].mixed[:, head])]
    assert same == [head for head in range(len(expected)) if head not in (0, 1, 3)]


def test_nested() -> None:
    model = ours()
    plain = gates(model)
    with masked(model, content=1):
        with gates_set(model, {0: {2: 0.5}, 1: {0: 0.0}}), masked(model, position=[1]):
            assert gates(model)[0].tolist() == [1, 1, 0.5, 1, 1, 1, 1, 1, 1]
            assert gates(model)[1].eq(0).all()
        assert gates(model)[0].eq(1).all()
        assert torch.equal(gates(model)[1], plain[1])
    assert torch.equal(gates(model)[0], plain[0])


def test_nothing_masked_changes_nothing() -> None:
    model = ours()
    with masked(model), gates_set(model, {}):
        assert torch.equal(output(model), output(edited(model, lambda m: None)))


# -- everything is put back --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize("build", GATED)
@pytest.mark.parametrize("fails", [False, True])
def test_everything_is_put_back(build: Callable[[], nn.Module], mask: Mask, fails: bool) -> None:
    model = build()
    model(X).sum().backward()
    model.blocks[0].attn.gating_param.requires_grad_(False)
    grads = {name: p.grad.clone() for name, p in model.named_parameters()}
    before, weights, expected = state(model), copy.deepcopy(model.state_dict()), output(model)
    with ExitStack() as stack:
        if fails:
            stack.enter_context(pytest.raises(ZeroDivisionError))
        stack.enter_context(mask(model))
        assert not torch.equal(output(model), expected)
        assert list(model.state_dict()) == list(weights)
        if fails:
            raise ZeroDivisionError
    assert state(model) == before
    assert same_weights(model, weights)
    assert all(torch.equal(p.grad, grads[name]) for name, p in model.named_parameters())
    assert torch.equal(output(model), expected)


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_compiled_models_notice(mask: Mask) -> None:
    model = ours()
    compiled = torch.compile(model, backend="eager")
    expected = output(compiled)
    with mask(model):
        masked_output = output(model)
        assert torch.equal(output(compiled), masked_output)
    with mask(compiled):
        assert torch.equal(output(compiled), masked_output)
    assert not torch.equal(masked_output, expected)
    assert torch.equal(output(compiled), expected)


def test_in_inference_mode_and_wrapped() -> None:
    model = ours()
    with torch.inference_mode(), masked(nn.DataParallel(model), content=2):
        inside = model(X)
    with masked(model, content=2):
        assert torch.equal(output(model), inside)
        assert torch.autograd.grad(model(X).sum(), model.head.weight)[0].any()


# -- errors ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda m: masked(m, content=3),
            r"content: got layers \[2\], expected some of \[0, 1\], the layers with gates",
        ),
        (lambda m: masked(m, position=[1, 7, -1]), r"position: got layers \[-1, 7\], expected some of \[0, 1\]"),
        (lambda m: masked(m, position=-1), "position: got -1, expected a number of layers from 0 to 2"),
        (lambda m: masked(m, content=2, position=[1]), r"content, position: got layers \[1\] in both"),
        (lambda m: gates_set(m, {2: {0: 1.0}}), r"values: got layers \[2\], expected some of \[0, 1\]"),
        (lambda m: gates_set(m, {0: {9: 1.0, 0: 0.5}}), r"values: got heads \[9\], expected some of 0 to 8"),
        (lambda m: gates_set(m, {0: {1: 1.01}}), r"values: got 1\.01 for head 1 of layer 0, expected 0 to 1"),
        (lambda m: gates_set(m, {0: {1: float("nan")}}), "values: got nan for head 1"),
    ],
)
def test_wrong_masks(call: Mask, message: str) -> None:
    model = ours()
    before = state(model)
    with pytest.raises(InputError, match=message), call(model):
        pass
    assert state(model) == before


@pytest.mark.parametrize("build", [vit, lambda: ours(local_up_to_layer=0), lambda: ours(gated=False)])
@pytest.mark.parametrize("call", [lambda m: masked(m, content=1), lambda m: gates_set(m, {0: {0: 0.5}})])
def test_models_without_gates(build: Callable[[], nn.Module], call: Mask) -> None:
    with pytest.raises(InputError, match="without a GPSA layer, expected one with gates"), call(build()):
        pass


def test_models_without_a_position_embedding() -> None:
    for model in (ours(use_pos_embed=False), timms(use_pos_embed=False), nn.Linear(2, 2)):
        with (
            pytest.raises(InputError, match="without pos_embed, expected one with position embeddings"),
            without_position_embedding(model),
        ):
            pass


def test_a_model_that_is_restored_inside() -> None:
    """speed_up and restore change classes, not parameters: the gates stay what they were set to."""
    model = sped_up()
    with masked(model, content=2):
        fast = output(model)
        convit.restore(model)
        assert relative_error(output(model), fast) < 1e-4
