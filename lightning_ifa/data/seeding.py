"""Seed Python's and NumPy's generators of this process."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def seed_host(seed: int) -> None:
    """Seed torch's CPU generator, NumPy's legacy one and ``random``.

    ``torch.manual_seed`` would also reseed every GPU of the process, not only the model's own.
    """
    torch.default_generator.manual_seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    random.seed(seed)


@contextmanager
def isolate_host() -> Iterator[None]:
    """Put the states of these three back after a block, also after an error."""
    states = (torch.default_generator.get_state(), random.getstate(), np.random.get_state())  # noqa: NPY002
    try:
        yield
    finally:
        torch.default_generator.set_state(states[0])
        random.setstate(states[1])
        np.random.set_state(states[2])  # noqa: NPY002
