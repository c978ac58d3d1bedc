"""What all tests share: one seed, and one profile of the property tests."""

import os

import pytest
import torch
from hypothesis import settings

# Without a GPU Triton's kernels are interpreted. It has to know before it is imported, which timm and torch.compile do.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

# A loaded machine is slow, not wrong: no deadline. The same examples every run: a failure can be repeated.
settings.register_profile("convit", deadline=None, derandomize=True, max_examples=25)
settings.load_profile("convit")


@pytest.fixture(autouse=True)
def _seed() -> None:
    """Every test starts from the same random state, alone or in a suite."""
    torch.manual_seed(0)
