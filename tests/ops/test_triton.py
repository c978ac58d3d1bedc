"""The fused kernel against the equation: output and every gradient. Interpreted on the CPU where there is no GPU.

Reference is the naive form in fp64 on the same numbers, as in ``test_parity.py``.
"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from convit import GPSA, ops
from convit.grid import Grid
from convit.ops import naive, why_not_triton

kernels = pytest.importorskip("convit.ops.triton", reason="triton is not installed")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
NAMES = ("output", "q", "k", "v", "gate", "pos_weight")

# The largest error allowed, over the largest value of the tensor. The worst measured is 6e-6, 8e-4 and 1.1e-2.
TOLERANCE = {torch.float32: 3e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}


@pytest.fixture(autouse=True)
def _interpreted_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter keeps bf16 as 16-bit integers, and up to Triton 3.9 multiplies those (triton issue 11584)."""
    from triton.runtime import interpreter

    multiply = interpreter.InterpreterBuilder.create_dot

    def fp32(handle):  # type: ignore[no-untyped-def]
        if handle.data.dtype != "uint16":
            return handle
        return interpreter.TensorHandle((handle.data.astype("uint32") << 16).view("float32"), interpreter.tl.float32)

    monkeypatch.setattr(
        interpreter.InterpreterBuilder, "create_dot", lambda self, a, b, *rest: multiply(self, fp32(a), fp32(b), *rest)
    )


def draw(
    grid: tuple[int, int], prefix: int = 0, dim: int = 16, dtype: torch.dtype = torch.float32, batch: int = 2
) -> list[Tensor]:
    """q, k, v, gate and pos_weight of 3 heads."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(batch, 3, prefix + grid[0] * grid[1], dim)] * 3 + [(3,), (3, 3)]
    return [torch.randn(shape, generator=generator, dtype=torch.float64).to(DEVICE, dtype) for shape in shapes]


def fused(q: Tensor, k: Tensor, v: Tensor, gate: Tensor, pos_weight: Tensor, grid: tuple[int, int], p: int) -> Tensor:
    if DEVICE == "cpu" and q.dtype == torch.bfloat16:  # refused there by why_not_triton; right as patched above
        return kernels.gated_attention(q, k, v, gate, pos_weight, grid, p)
    return ops.gated_attention(q, k, v, gate, pos_weight, grid, p, backend="triton")


def output_and_gradients(function: Callable[..., Tensor], inputs: list[Tensor], *shape: object) -> list[Tensor]:
    """The output and the gradient of every input, with a random gradient of the output."""
    leaves = [tensor.detach().requires_grad_() for tensor in inputs]
    out = function(*leaves, *shape)
    generator = torch.Generator().manual_seed(1)
    out_grad = torch.randn(out.shape, generator=generator, dtype=torch.float64).to(inputs[0].dtype).to(out)
    return [out.detach(), *torch.autograd.grad(out, leaves, out_grad)]


def assert_parity(inputs: list[Tensor], grid: tuple[int, int], prefix: int = 0) -> None:
    def exact(*arguments: object) -> Tensor:
        return naive.gated_attention(*arguments)[0]  # type: ignore[arg-type]

    got = output_and_gradients(fused, inputs, grid, prefix)
    expected = output_and_gradients(exact, [tensor.double() for tensor in inputs], Grid(*grid), prefix)
    scale = max(tensor.abs().max().item() for tensor in expected)
    for name, value, right, given in zip(NAMES, got, expected, [inputs[2], *inputs], strict=True):
        assert value.dtype == given.dtype
        # A gradient that is next to nothing beside the others has no scale of its own.
        tolerance = TOLERANCE[inputs[0].dtype] * max(right.abs().max().item(), 1e-2 * scale)
        error = (value.double() - right).abs().max().item()
        assert error <= tolerance, f"{name} in {value.dtype} on {grid}: {error:.2e} > {tolerance:.2e}"


@pytest.mark.parametrize(
    ("grid", "prefix", "dim", "dtype"),
    [
        ((1, 1), 0, 16, torch.float32),
        ((1, 37), 1, 16, torch.float32),  # longer than one block of an axis
        ((19, 2), 0, 18, torch.float32),
        ((5, 7), 3, 48, torch.float32),
        ((3, 5), 1, 128, torch.float32),
        ((5, 3), 0, 5, torch.float32),
        ((6, 11), 3, 48, torch.float16),
        ((3, 5), 0, 128, torch.float16),
        ((4, 5), 0, 32, torch.bfloat16),
        ((8, 8), 1, 64, torch.bfloat16),
    ],
)
def test_is_the_equation(grid: tuple[int, int], prefix: int, dim: int, dtype: torch.dtype) -> None:
    assert_parity(draw(grid, prefix, dim, dtype), grid, prefix)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    "pos_weight",
    [
        pytest.param([[100.0, -100, -50], [0, 0, -50], [-250, 150, -50]], id="strength 50"),
        pytest.param([[0.0, 0, 50], [3, -2, 0.5], [-90, 40, 7]], id="away from the centre"),
        pytest.param([[500.0, 0, 0], [0, -500, 0], [0, 0, 0]], id="linear and flat"),
    ],
)
def test_sharp_heads(pos_weight: list[list[float]], dtype: torch.dtype) -> None:
    *inputs, _ = draw((5, 7), 1, dtype=dtype)
    assert_parity([*inputs, torch.tensor(pos_weight, dtype=dtype, device=DEVICE)], (5, 7), 1)


@pytest.mark.parametrize("along", [0, 1], ids=["x", "y"])
def test_sharp_heads_that_look_far_away(along: int) -> None:
    # Logits of tens of thousands, of which fp32 has steps of 4e-3: only differences of neighbours are exact enough.
    grid = ((1, 60), (60, 1))[along]
    strength = torch.tensor([37.3, 11.1, 3.7])
    pos_weight = torch.zeros(3, 3)
    pos_weight[:, along], pos_weight[:, 2] = strength * torch.tensor([2 * 40.1, -2 * 30.2, 50.3]), -strength
    *inputs, _ = draw(grid, 1)
    assert_parity([*inputs, pos_weight.to(DEVICE)], grid, 1)


def test_large_content_logits() -> None:
    q, k, *rest = draw((3, 5), 1)
    out = output_and_gradients(fused, [q * 100, k * 10, *rest], (3, 5), 1)  # logits of a few thousand
    assert all(tensor.isfinite().all() for tensor in out)


@pytest.mark.filterwarnings("ignore:overflow")  # the interpreter's: sigmoid(-100) is 1 / inf
def test_open_and_closed_gates() -> None:
    q, k, v, _, pos_weight = draw((3, 5), 1)
    gate = torch.tensor([-20.0, 20.0, -100.0], device=DEVICE)
    assert_parity([q, k, v, gate, pos_weight], (3, 5), 1)
    grad = output_and_gradients(fused, [q, k, v, gate, pos_weight], (3, 5), 1)[4]
    assert grad[0] != 0  # 2e-9 is small, not nothing
    assert grad[1] != 0
    assert grad[2] == 0


def test_views_are_read_in_place() -> None:
    torch.manual_seed(3)
    layer = GPSA(48, 3).to(DEVICE)
    x = torch.randn(2, 16, 48, device=DEVICE)
    qkv, gate, pos_weight = layer.project(x), layer.gating_param, layer.pos_proj.weight
    assert not any(tensor.is_contiguous() for tensor in qkv)
    assert_parity([*(tensor.detach() for tensor in qkv), gate, pos_weight], (4, 4))


def test_any_strides() -> None:
    q, k, v, gate, pos_weight = draw((3, 5), 1)
    crossed = [tensor.mT.contiguous().mT for tensor in (q, k, v)]
    weights = [gate.repeat_interleave(2)[::2], pos_weight.mT.contiguous().mT]
    got = output_and_gradients(fused, [*crossed, *weights], (3, 5), 1)
    for tensor, expected in zip(got, output_and_gradients(fused, draw((3, 5), 1), (3, 5), 1), strict=True):
        assert torch.equal(tensor, expected)
    # The gradient of a sum is one number, expanded.
    leaf = q.clone().requires_grad_()
    fused(leaf, k, v, gate, pos_weight, (3, 5), 1).sum().backward()
    again = q.clone().requires_grad_()
    out = fused(again, k, v, gate, pos_weight, (3, 5), 1)
    out.backward(torch.ones_like(out))
    assert torch.equal(leaf.grad, again.grad)


def test_twice_the_same_bits() -> None:
    inputs = draw((5, 13), 1, dtype=torch.float16)  # more than one block of everything
    first, second = (output_and_gradients(fused, inputs, (5, 13), 1) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("wanted", [[0], [1], [2], [3], [4], [2, 4]])
def test_gradients_of_some_inputs(wanted: list[int]) -> None:
    inputs = draw((3, 5), 1)
    expected = output_and_gradients(fused, inputs, (3, 5), 1)[1:]
    for index in wanted:
        inputs[index].requires_grad_()
    out = fused(*inputs, (3, 5), 1)
    out.backward(torch.randn(out.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(out))
    for index, tensor in enumerate(inputs):
        assert (tensor.grad is not None) == (index in wanted)
        assert tensor.grad is None or torch.equal(tensor.grad, expected[index])


def test_inference_keeps_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = draw((3, 5), 1)
    tokens, weights = inputs[:3], inputs[3:]
    out, *kept = torch.ops.convit.gated_attention(*tokens, *weights, 3, 5, False)
    assert [tensor.numel() for tensor in kept] == [0, 0, 0]
    asked = []
    monkeypatch.setattr(kernels, "_forward", lambda *arguments: (asked.append(arguments[-1]), (out,))[1])
    fused(*inputs, (3, 5), 1)
    leaves = [tensor.requires_grad_() for tensor in tokens]
    fused(*leaves, *weights, (3, 5), 1)
    with torch.no_grad():
        fused(*leaves, *weights, (3, 5), 1)
    assert asked == [False, True, False]
    # Heads of a token lie side by side: merging them is free.
    assert out.transpose(1, 2).flatten(2).data_ptr() == out.data_ptr()


def test_no_images() -> None:
    grads = output_and_gradients(fused, draw((3, 5), 1, batch=0), (3, 5), 1)
    assert grads[0].shape == (0, 3, 16, 16)
    assert not grads[4].any()


def test_mixed_types() -> None:
    """As under autocast: tokens in bf16, parameters in fp32."""
    q, k, v, gate, pos_weight = draw((3, 5), 1, dtype=torch.bfloat16)
    assert_parity([q, k, v, gate.float() * 1.1, pos_weight.float() * 1.1], (3, 5), 1)


@pytest.mark.parametrize("keep", [True, False])
def test_is_a_well_behaved_operator(keep: bool) -> None:
    inputs = [tensor.requires_grad_(keep) for tensor in draw((2, 3), 1, batch=1)]
    torch.library.opcheck(torch.ops.convit.gated_attention.default, (*inputs, 2, 3, keep))
    if keep:
        inputs = [tensor.detach() for tensor in inputs]
        out, *kept = torch.ops.convit.gated_attention(*inputs, 2, 3, keep)
        torch.library.opcheck(torch.ops.convit.gated_attention_backward.default, (out, *inputs, *kept, 2, 3))


def test_compiles_to_one_graph() -> None:
    torch.compiler.reset()
    inputs = draw((2, 3), 1)
    compiled = torch.compile(fused, fullgraph=True, backend="aot_eager")
    expected, got = (output_and_gradients(function, inputs, (2, 3), 1) for function in (fused, compiled))
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))
    with torch.no_grad():
        assert torch.equal(compiled(*inputs, (2, 3), 1), expected[0])


def test_is_differentiable_once() -> None:
    leaf, *rest = draw((2, 3))
    leaf.requires_grad_()
    (grad,) = torch.autograd.grad(fused(leaf, *rest, (2, 3), 0).square().sum(), leaf, create_graph=True)
    with pytest.raises(RuntimeError, match=r"convit\.gated_attention_backward.*no autograd formula"):
        grad.sum().backward()


def test_why_not(monkeypatch: pytest.MonkeyPatch) -> None:
    q, k, v, gate, pos_weight = draw((2, 3))
    assert why_not_triton(q, k, v) is None
    assert "got q, k, v in torch.float64, torch.float64, torch.float64, expected one of float32" in str(
        why_not_triton(q.double(), k.double(), v.double())
    )
    assert "torch.float32, torch.float32, torch.float16, expected" in str(why_not_triton(q, k, v.half()))
    wide = torch.ones(1, 1, 4, 129, device=DEVICE)
    assert why_not_triton(wide, wide, wide) == "got a head width of 129, expected at most 128"
    with pytest.raises(ValueError, match=r"backend: got 'triton', which does not cover this case: got a head width"):
        ops.gated_attention(wide, wide, wide, gate[:1], pos_weight[:1], backend="triton")
    with pytest.raises(ValueError, match=r"inside torch.func \(vmap, grad, jvp\)"):
        torch.vmap(lambda x: ops.gated_attention(x, x, x, gate, pos_weight, (2, 3), backend="triton"))(q[None])
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(ops, "_cuda_capability", lambda device: (7, 5))
    if DEVICE == "cuda":
        assert why_not_triton(q, k, v) == "got a GPU of compute capability 7.5, expected 8.0 or newer"
    monkeypatch.setattr(ops, "_HAS_TRITON", False)
    assert why_not_triton(q, k, v) == "triton is not installed"


@pytest.mark.skipif(DEVICE == "cuda", reason="the interpreter is for machines without a GPU")
def test_tensors_on_the_cpu_are_for_the_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    q, k, v, *_ = draw((2, 3))
    brain = [tensor.bfloat16() for tensor in (q, k, v)]
    assert "got bfloat16 in Triton's interpreter" in str(why_not_triton(*brain))
    monkeypatch.delenv("TRITON_INTERPRET")
    assert why_not_triton(q, k, v) == "got tensors on cpu, expected cuda"


# On a GPU everything above runs there too; these are the sizes of real models.
@pytest.mark.gpu
@pytest.mark.skipif(DEVICE != "cuda", reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("dim", [16, 18, 32, 48, 64, 128])
@pytest.mark.parametrize(("grid", "prefix"), [((14, 14), 0), ((14, 14), 1), ((24, 24), 3), ((9, 31), 0)])
def test_is_the_equation_on_a_gpu(grid: tuple[int, int], prefix: int, dim: int, dtype: torch.dtype) -> None:
    assert_parity(draw(grid, prefix, dim, dtype, batch=8), grid, prefix)


@pytest.mark.gpu
@pytest.mark.skipif(DEVICE != "cuda", reason="needs a CUDA device")
def test_auto_is_triton_for_16_bits_on_a_gpu() -> None:
    inputs = draw((14, 14), 1, 48, torch.bfloat16)
    assert torch.equal(ops.gated_attention(*inputs, (14, 14), 1), fused(*inputs, (14, 14), 1))
