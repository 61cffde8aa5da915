"""The checkpoints that a training kept, made ready to become models of its run."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lightning_ifa.tracking.logged_models import Example, make_example
from lightning_ifa.training.loaders import ReferenceSamples


def kept_checkpoints(trainer: Any, which: str) -> list[Path]:
    """List the checkpoints that a training kept and that are still there, the best one first.

    Args:
        trainer: The trainer.
        which: ``"best"`` for the one best checkpoint, or ``"all"``.
    """
    found = dict.fromkeys(path for path in _paths(trainer, which) if path and Path(path).is_file())
    return [Path(path) for path in found]


def _paths(trainer: Any, which: str) -> Iterator[str]:
    best = [str(getattr(callback, "best_model_path", "") or "") for callback in trainer.checkpoint_callbacks]
    yield from list(filter(None, best))[:1] if which == "best" else best
    if which == "all":
        for callback in trainer.checkpoint_callbacks:
            yield from map(str, getattr(callback, "best_k_models", {}))
            yield str(getattr(callback, "last_model_path", "") or "")


def copy_to_cpu(module: nn.Module) -> nn.Module:
    """Copy a module to the CPU, in evaluation mode, without a second copy of its weights on its own device."""
    memo: dict[int, Any] = {}
    for parameter in module.parameters():
        memo[id(parameter)] = nn.Parameter(parameter.detach().to("cpu", copy=True), parameter.requires_grad)
    for buffer in module.buffers():
        memo[id(buffer)] = buffer.detach().to("cpu", copy=True)
    return copy.deepcopy(module, memo).eval()


def example_of(samples: ReferenceSamples, module: nn.Module, with_pixels: bool) -> Example | None:
    """Give an input of a network, and what the network makes of it; None where nothing but the user can call it so.

    Args:
        samples: The samples that were analysed.
        module: The network on the CPU.
        with_pixels: Whether a real input may leave the process; if not, it holds zeros.
    """
    if samples.extraction.forward_fn is not None:
        return None
    with samples.extraction.session():
        batches = samples.extraction.batches(samples.loader, samples.indices[:1])
        x = next(iter(batches)).x.detach().to("cpu", copy=True)
        batches.close()  # type: ignore[attr-defined]  # a generator, which holds the user's workers
        x = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
        return make_example(module, (x if with_pixels else torch.zeros_like(x)).numpy())
