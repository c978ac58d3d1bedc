"""What all tests share: one seed, and one profile of the property tests."""

import pytest
import torch
from hypothesis import settings

# A loaded machine is slow, not wrong: no deadline. The same examples every run: a failure can be repeated.
settings.register_profile("convit", deadline=None, derandomize=True, max_examples=25)
settings.load_profile("convit")


@pytest.fixture(autouse=True)
def _seed() -> None:
    """Every test starts from the same random state, alone or in a suite."""
    torch.manual_seed(0)
