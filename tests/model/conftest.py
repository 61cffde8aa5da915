"""Networks are random here, and the same in whatever order the tests run."""

import pytest
import torch


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)
