"""Isolation: random states, module modes, buffers and attributes are as before after an analysis."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from lightning_ifa.data.preserved_state import preserve
from lightning_ifa.data.seeding import isolate_host, seed_host
from lightning_ifa.errors import IFAWarning, LayerError


@contextmanager
def isolate(model: nn.Module, seed: int) -> Iterator[None]:
    """Run a block in evaluation mode with seeded random states, and put everything back, also after an error.

    Put back are the global random states, modes, buffers, attributes of the modules, and what lists, dicts, tensors,
    generators and objects of the user's own among these hold. Weights that a forward pass changes are not: one warning
    says so.

    Args:
        model: Network whose modules are switched to evaluation mode, and back to each one's own former mode.
        seed: Seed for torch (CPU and the model's own devices), NumPy and ``random``.
    """
    devices = _cuda_devices(model)
    versions = _versions(model)
    with preserve(model), isolate_host(), torch.random.fork_rng(devices=devices):
        seed_host(seed)
        for device in devices:
            torch.cuda.default_generators[device.index].manual_seed(seed)
        _set_to_evaluation(model)
        yield
    changed = [name for name, version in _versions(model).items() if version != versions.get(name)]
    if changed:
        warnings.warn(
            f"a forward pass of the network changes its weights ({changed[0]}); the analysis makes some more passes "
            "than the training, and cannot put the weights back",
            IFAWarning,
            stacklevel=3,
        )


def _versions(model: nn.Module) -> dict[str, tuple[int, int]]:
    """How often each weight was changed in place."""
    return {n: (id(p), -1 if p.is_inference() else p._version) for n, p in model.named_parameters()}


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
