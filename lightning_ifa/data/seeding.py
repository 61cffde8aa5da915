"""Seed Python's and NumPy's generators of this process."""

from __future__ import annotations

import random

import numpy as np
import torch


def seed_host(seed: int) -> None:
    """Seed torch's CPU generator, NumPy's legacy one and ``random``.

    ``torch.manual_seed`` would also reseed every GPU of the process, not only the model's own.
    """
    torch.default_generator.manual_seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    random.seed(seed)
