"""Isolation: random states and module modes are as before after an analysis."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from lightning_ifa.data.seeding import seed_host
from lightning_ifa.errors import LayerError


@contextmanager
def isolate(model: nn.Module, seed: int) -> Iterator[None]:
    """Run a block in evaluation mode with seeded random states, and put everything back, also after an error.

    Args:
        model: Network whose modules are switched to evaluation mode, and back to each one's own former mode.
        seed: Seed for torch (CPU and the model's own devices), NumPy and ``random``.
    """
    modes = [(module, module.training) for module in model.modules()]
    states = (random.getstate(), np.random.get_state())  # noqa: NPY002 - the user's legacy state is at stake
    devices = _cuda_devices(model)
    with torch.random.fork_rng(devices=devices):
        try:
            seed_host(seed)
            for device in devices:
                torch.cuda.default_generators[device.index].manual_seed(seed)
            _set_to_evaluation(model)
            yield
        finally:
            for module, training in modes:
                module.training = training
            random.setstate(states[0])
            np.random.set_state(states[1])  # noqa: NPY002


def _set_to_evaluation(model: nn.Module) -> None:
    try:
        model.eval()
    except NotImplementedError as error:
        raise LayerError(
            "the model is an exported program, whose graph has a fixed mode and no layers to look at; analyse the "
            "module that it was exported from"
        ) from error


def _cuda_devices(model: nn.Module) -> list[torch.device]:
    return sorted({p.device for p in model.parameters() if p.device.type == "cuda"}, key=lambda d: d.index)
