"""Batch norm of tokens, against its formula."""

from typing import Any

import pytest
import torch
from timm.models import create_feature_extractor

from convit.layers import TokenBatchNorm
from tests.helpers import tiny_model


def test_by_the_formula_in_training_and_by_running_means_in_evaluation() -> None:
    x = torch.randn(3, 5, 7, dtype=torch.float64) * 2 + 1
    norm = TokenBatchNorm(7, dtype=torch.float64)
    torch.nn.init.uniform_(norm.weight)
    torch.nn.init.uniform_(norm.bias)
    mean, variance = x.mean((0, 1)), x.var((0, 1), unbiased=False)
    expected = (x - mean) / (variance + norm.eps).sqrt() * norm.weight + norm.bias
    assert torch.allclose(norm(x), expected)
    assert torch.allclose(norm.running_mean, 0.1 * mean)
    running = 0.9 + 0.1 * x.var((0, 1), unbiased=True)
    assert torch.allclose(norm.running_var, running)
    expected = (x - norm.running_mean) / (running + norm.eps).sqrt() * norm.weight + norm.bias
    assert torch.allclose(norm.eval()(x), expected)


@pytest.mark.parametrize("options", [{}, {"batch_norm": True, "hybrid_backbone": "conv"}])
def test_torchscript_and_fx_read_it(options: dict[str, Any]) -> None:
    model = tiny_model(**options).eval()
    x = torch.randn(2, 3, 16, 16)
    assert torch.allclose(torch.jit.script(model)(x), model(x), atol=1e-6)
    (features,) = create_feature_extractor(model, ["blocks.1"])(x).values()
    assert features.shape == (2, 16, 36)
