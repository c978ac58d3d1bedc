"""Fixtures of the tests that look into models."""

import pytest
from torch import Tensor, nn

from tests.analysis.models import MODELS, images


@pytest.fixture(params=MODELS, ids=lambda name: name.replace(" ", "-"))
def case(request: pytest.FixtureRequest) -> tuple[nn.Module, Tensor, tuple[int, int]]:
    """Each of the models, with images and the grid that they make."""
    build, size, grid = MODELS[request.param]
    return build(), images(size), grid
