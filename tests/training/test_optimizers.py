"""Muon beside timm's, whose iterations are computed in fp32 for it."""

import copy
import functools
from collections.abc import Callable, Iterator
from typing import get_args
from unittest import mock

import pytest
import timm.optim.muon as of_timm
import torch
from timm.optim import create_optimizer_v2
from torch import Tensor, nn

import convit
from convit.choices import OptimizerName
from convit.training.optimizers import is_matrix, kept_of, make_optimizer, orthogonalized
from convit.training.parameters import parameter_groups


@pytest.fixture
def timm_in_fp32() -> Iterator[None]:
    precise = functools.partial(of_timm.zeropower_via_newtonschulz, dtype=torch.float32)
    with mock.patch.object(of_timm, "zeropower_via_newtonschulz", precise):
        yield


def model() -> convit.ConViT:
    torch.manual_seed(0)
    return convit.create_model("convit_nano_patch4_32", num_classes=10)


def groups_of(model: convit.ConViT) -> list[dict[str, object]]:
    return parameter_groups(model, weight_decay=0.05, layer_decay=0.8, position_lr=3.0)


@pytest.mark.usefixtures("timm_in_fp32")
def test_moves_as_timm_does() -> None:
    ours, theirs = model(), model()
    optimizers = (
        make_optimizer(groups_of(ours), "muon", 1e-2),
        create_optimizer_v2(groups_of(theirs), opt="muon", lr=1e-2),
    )
    for _ in range(5):
        for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            one.grad = torch.randn_like(one)
            other.grad = one.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    for (name, one), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("name", ["convit_nano_patch4_32", "convit_tiny_patch16_224", "convit_base_patch16_224"])
def test_takes_the_parameters_that_timm_takes(name: str) -> None:
    parameters = list(convit.create_model(name, device="meta").named_parameters())
    odd = [(3, 64), (4, 513), (4, 512), (16, 1, 3, 3), (1, 5, 8), (8, 3, 1, 1), (64,), (16, 3, 2), (5, 0), (0, 5), ()]
    parameters += [(str(shape), nn.Parameter(torch.empty(shape, device="meta"))) for shape in odd]
    taken = [name for name, parameter in parameters if is_matrix(parameter)]
    assert taken == [name for name, parameter in parameters if of_timm._is_suitable_for_muon(parameter)]
    assert 0 < len(taken) < len(parameters)


@pytest.mark.parametrize("shape", [(3, 12, 12), (2, 8, 40), (1, 40, 8)])
def test_the_nearest_orthogonal_matrix(shape: tuple[int, ...]) -> None:
    """Whatever the size of the matrix; U and V as the singular value decomposition has them."""
    u, _, vt = torch.linalg.svd(torch.randn(shape, dtype=torch.float64), full_matrices=False)
    values = torch.linspace(1, 0.03, u.shape[-1], dtype=torch.float64)
    for scale in (1e-3, 1.0, 1e3):
        found = orthogonalized((u * values * scale) @ vt)
        assert found.dtype == torch.float64
        ratios = torch.diagonal(u.mT @ found @ vt.mT, dim1=-2, dim2=-1)
        assert ratios.min() > 0.85
        assert ratios.max() < 1.15
        torch.testing.assert_close(found, (u * ratios[:, None]) @ vt, rtol=0, atol=1e-9)


def test_small_values() -> None:
    """Down to 0.003 of the norm."""
    for least in torch.logspace(-2.5, 0, 40, dtype=torch.float64).tolist():
        found = orthogonalized(torch.diag(torch.tensor([1.0, least], dtype=torch.float64))[None])[0].diagonal()
        assert found.min() > 0.85
        assert found.max() < 1.15


def test_nothing_to_learn_from() -> None:
    """A gradient of zeros moves nothing, none at all leaves no trace; neither makes numbers that are none."""
    zeros, none = nn.Parameter(torch.randn(8, 8)), nn.Parameter(torch.randn(8, 8))
    before = [zeros.detach().clone(), none.detach().clone()]
    optimizer = make_optimizer([{"params": [zeros, none]}], "muon", 0.1)
    zeros.grad = torch.zeros_like(zeros)
    optimizer.step()
    assert torch.equal(zeros, before[0])
    assert torch.equal(none, before[1])
    assert none not in optimizer.state


def test_matrices_of_one_shape_do_not_touch_each_other() -> None:
    """Those of a shape are moved together: each as if it were alone."""
    starts = [torch.randn(8, 6), torch.randn(8, 6), torch.randn(8, 2, 3), torch.randn(6, 8)]
    grads = [torch.randn_like(start) * 10**i for i, start in enumerate(starts)]

    def moved(chosen: list[int]) -> list[Tensor]:
        parameters = [nn.Parameter(starts[i].clone()) for i in chosen]
        optimizer = make_optimizer([{"params": parameters, "weight_decay": 0.1}], "muon", 0.1)
        for _ in range(2):
            for parameter, i in zip(parameters, chosen, strict=True):
                parameter.grad = grads[i].clone()
            optimizer.step()
        return [parameter.detach() for parameter in parameters]

    together = moved([0, 1, 2, 3])
    for i, found in enumerate(together):
        torch.testing.assert_close(found, moved([i])[0], rtol=1e-5, atol=1e-6)
        assert not torch.equal(found, starts[i])


@pytest.mark.parametrize("opt", get_args(OptimizerName))
def test_layout_in_memory_makes_no_difference(opt: OptimizerName) -> None:
    """Of parameters, gradients and moments, each with its own."""
    starts = {"matrix": torch.randn(6, 8), "narrow": torch.randn(6, 3), "kernel": torch.randn(8, 4, 3, 3)}

    def moved(change: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
        torch.manual_seed(1)
        found = {name: nn.Parameter(change(start)) for name, start in starts.items()}
        optimizer = make_optimizer([{"params": list(found.values())}], opt, 0.1)
        for step in range(3):
            for parameter in found.values():
                parameter.grad = torch.randn(parameter.shape)
                if step == 1:
                    parameter.grad = change(parameter.grad)
            optimizer.step()
            for state in optimizer.state.values():  # as a state that was read has them
                state.update({name: value.contiguous() for name, value in state.items()})
        return {name: parameter.detach() for name, parameter in found.items()}

    rows = moved(lambda tensor: tensor.clone())
    columns = moved(lambda tensor: tensor.transpose(0, 1).clone(memory_format=torch.contiguous_format).transpose(0, 1))
    for name, start in starts.items():
        torch.testing.assert_close(columns[name], rows[name], rtol=1e-5, atol=1e-6)
        assert not torch.equal(rows[name], start)


@pytest.mark.parametrize("opt", get_args(OptimizerName))
def test_a_copy_goes_on_as_the_original(opt: OptimizerName) -> None:
    parameters = [nn.Parameter(torch.randn(shape)) for shape in [(6, 8), (6, 3), (5,)]]
    optimizer = make_optimizer([{"params": parameters}], opt, 0.1)
    for _ in range(2):
        for parameter in parameters:
            parameter.grad = torch.randn_like(parameter)
        optimizer.step()
    assert all(optimizer.state[parameter].keys() == kept_of(optimizer, parameter) for parameter in parameters)
    other = copy.deepcopy(optimizer)
    for one in (optimizer, other):
        for number, parameter in enumerate(one.param_groups[0]["params"]):
            torch.manual_seed(number)
            parameter.grad = torch.randn_like(parameter)
        one.step()
    assert all(map(torch.equal, parameters, other.param_groups[0]["params"]))
