"""Leave no trace: random states, module modes and compiled code as they were found."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from lightning_ifa.data.seeding import seed_host


@contextmanager
def isolate(model: nn.Module, seed: int) -> Iterator[None]:
    """Run a block in evaluation mode with seeded random states, and put everything back, also after an error.

    Args:
        model: Its modules are switched to evaluation mode and each gets its own former mode back.
        seed: Seed of torch (CPU and the model's own devices), NumPy and ``random``.
    """
    modes = [(module, module.training) for module in model.modules()]
    states = (random.getstate(), np.random.get_state())  # noqa: NPY002 - the user's legacy state is at stake
    devices = _cuda_devices(model)
    with torch.random.fork_rng(devices=devices):
        try:
            seed_host(seed)
            for device in devices:
                torch.cuda.default_generators[device.index].manual_seed(seed)
            model.eval()
            yield
        finally:
            for module, training in modes:
                module.training = training
            random.setstate(states[0])
            np.random.set_state(states[1])  # noqa: NPY002


def _cuda_devices(model: nn.Module) -> list[torch.device]:
    return sorted({p.device for p in model.parameters() if p.device.type == "cuda"}, key=lambda d: d.index)
