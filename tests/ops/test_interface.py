"""The two public functions: their errors, their choice of a backend, dropout, compilation."""

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from convit import ops
from convit.ops import factorized, gated_attention, naive, positional_attention

DROPOUT = ops.Through(mixed=nn.Dropout(0.25))


def inputs(**changes: Any) -> dict[str, Any]:
    """Arguments of both functions: 2 images, 3 heads, 6 tokens, width 4."""
    q, k, v = torch.randn(3, 2, 3, 6, 4).unbind()
    return {"q": q, "k": k, "v": v, "pos_weight": torch.randn(3, 3), "grid": (2, 3)} | changes


BAD_INPUT = {
    "q is not 4-dimensional": (
        {"q": torch.ones(3, 6, 4)},
        r"expected three .* \(batch, heads, .*got \(3, 6, 4\), \(2,",
    ),
    "k is shorter": ({"k": torch.ones(2, 3, 5, 4)}, r"q, k, v: .*got \(2, 3, 6, 4\), \(2, 3, 5, 4\), \(2, 3, 6, 4\)"),
    "v is wider": ({"v": torch.ones(2, 3, 6, 5)}, r"q, k, v: .*, \(2, 3, 6, 5\)$"),
    "pos_weight of other heads": ({"pos_weight": torch.ones(2, 3)}, r"got shape \(2, 3\), expected .* = \(3, 3\)"),
    "pos_weight of two columns": ({"pos_weight": torch.ones(3, 2)}, r"pos_weight: got shape \(3, 2\)"),
    "unknown backend": ({"backend": "fast"}, "backend: got 'fast', expected one of auto, factorized, naive, triton"),
    "factorized with a dropout": (
        {"backend": "factorized", "through": DROPOUT},
        "through: got it with backend 'factorized', which holds no map",
    ),
    "all tokens are prefix": ({"num_prefix_tokens": 6}, "num_prefix_tokens: got 6, expected 0 to 5"),
    "negative prefix": ({"num_prefix_tokens": -1}, "num_prefix_tokens: got -1, expected 0 to 5"),
    "grid of other patches": ({"grid": (2, 4)}, "got 6 patch tokens for a grid of 2 x 4 = 8"),
    "prefix counted as a patch": ({"num_prefix_tokens": 1}, "got 5 patch tokens for a grid of 2 x 3 = 6"),
    "no square and no grid": ({"grid": None}, "got 6 patch tokens, which is no square number; pass grid"),
}


@pytest.mark.parametrize(("changes", "message"), BAD_INPUT.values(), ids=list(BAD_INPUT))
def test_bad_input_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        positional_attention(**inputs(**changes))
    with pytest.raises(ValueError, match=message):
        gated_attention(gate=torch.ones(3), **inputs(**changes))


@pytest.mark.parametrize("shape", [(), (1,), (4,), (3, 1)])
def test_one_gate_per_head(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"gate: got shape .*, expected one logit per head, \(3,\)"):
        gated_attention(gate=torch.ones(shape), **inputs())


@pytest.mark.parametrize("name", ["gated_attention", "positional_attention"])
def test_auto_is_factorized_unless_a_map_is_wanted(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    called = []

    def recorded(module: Any, label: str) -> Callable[..., Any]:
        function = getattr(module, name)
        return lambda *args: (called.append(label), function(*args))[1]

    monkeypatch.setattr(factorized, name, recorded(factorized, "factorized"))
    monkeypatch.setattr(naive, name, recorded(naive, "naive"))
    arguments = inputs() | ({"gate": torch.ones(3)} if name == "gated_attention" else {})
    getattr(ops, name)(**arguments)
    getattr(ops, name)(**arguments, through=DROPOUT)
    getattr(ops, name)(**arguments, backend="naive")
    assert called == ["factorized", "naive", "naive"]


@pytest.mark.parametrize(("images", "tokens", "expected"), [(8, 36, "naive"), (7, 36, "fast"), (8, 37, "fast")])
def test_auto_is_naive_for_few_tokens_of_several_images(
    images: int, tokens: int, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    q, k, v = torch.randn(3, images, 3, tokens, 4).unbind()
    rest = (torch.ones(3), torch.randn(3, 3), (1, tokens))
    value = gated_attention(q, k, v, *rest, backend="naive")
    torch.testing.assert_close(gated_attention(q, k, v, *rest), value)
    monkeypatch.setattr(naive, "gated_attention", lambda *args: (torch.zeros(1), None))
    fast = gated_attention(q, k, v, *rest)
    assert ("fast" if fast.shape == value.shape else "naive") == expected


@pytest.mark.parametrize("gated", [True, False], ids=["gated", "ungated"])
def test_dropout_drops_entries_of_the_map(gated: bool) -> None:
    # One-hot values make the output the map itself: each entry is either dropped or made 1 / (1 - p) times larger.
    # Twice the same columns: what is dropped is an entry of the map, not one of the output.
    one_hot = torch.eye(6).repeat(1, 2).expand(2, 3, 6, 12)
    arguments = inputs(v=one_hot, q=torch.randn(2, 3, 6, 12), k=torch.randn(2, 3, 6, 12))
    function: Callable[..., Tensor] = gated_attention if gated else positional_attention
    gate = {"gate": torch.randn(3)} if gated else {}
    whole = function(**arguments, **gate)
    dropped = function(**arguments, **gate, through=DROPOUT)
    kept = dropped != 0
    torch.testing.assert_close(dropped[kept], whole[kept] / 0.75)
    assert 0.6 < kept.float().mean() < 0.9
    assert torch.equal(dropped[..., :6], dropped[..., 6:])


def compiled(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The whole function as one graph, forward and backward; without the 20 s that compiling C++ takes."""
    torch.compiler.reset()
    return torch.compile(function, fullgraph=True, backend="aot_eager")


@pytest.mark.parametrize("prefix", [0, 1])
@pytest.mark.parametrize("gated", [True, False], ids=["gated", "ungated"])
def test_compiles_to_one_graph(gated: bool, prefix: int) -> None:
    grid = (2, 3) if prefix == 0 else (1, 5)
    arguments = inputs(grid=grid, num_prefix_tokens=prefix) | ({"gate": torch.randn(3)} if gated else {})
    names = [name for name, value in arguments.items() if isinstance(value, Tensor)]
    for name in names:
        arguments[name].requires_grad_()
    function = gated_attention if gated else positional_attention
    expected, out = function(**arguments), compiled(function)(**arguments)
    torch.testing.assert_close(out, expected)
    leaves = [arguments[name] for name in names]
    expected_gradients = torch.autograd.grad(expected.square().sum(), leaves)
    torch.testing.assert_close(torch.autograd.grad(out.square().sum(), leaves), expected_gradients)


def test_triton_is_asked_for_by_name_where_it_runs() -> None:
    arguments = inputs()
    with pytest.raises(ValueError, match="backend: got 'triton' for ungated attention, expected one of auto, factor"):
        positional_attention(**arguments, backend="triton")
    with pytest.raises(ValueError, match="through: got it with backend 'triton', which holds no map"):
        gated_attention(gate=torch.ones(3), **arguments, through=DROPOUT, backend="triton")
    double = {name: arguments[name].double() for name in ("q", "k", "v")}
    with pytest.raises(ValueError, match=r"got q, k, v in torch.float64, .*; backend 'auto' does"):
        gated_attention(gate=torch.ones(3), **(arguments | double), backend="triton")


def test_without_triton_everything_else_works() -> None:
    """In a process where ``import triton`` fails, as on a machine that has none."""
    script = (
        "import sys; sys.modules['triton'] = None\n"
        "import importlib.util; importlib.util.find_spec = lambda name: None\n"
        "import torch; from convit import ops\n"
        "x = torch.randn(1, 2, 4, 8)\n"
        "assert ops.gated_attention(x, x, x, torch.ones(2), torch.randn(2, 3)).isfinite().all()\n"
        "assert ops.why_not_triton(x, x, x) == 'triton is not installed'\n"
        "assert 'convit.ops.triton' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
