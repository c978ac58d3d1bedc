"""``torch.func`` and derivatives of every kind and order: on our layers as on plain attention."""

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.func import functional_call, grad, hessian, jacrev, jvp, stack_module_state, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from tests.helpers import relative_error
from tests.layers.subjects import F32, F64, assert_close, draw, layers, loss, quiet, results, subjects


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
