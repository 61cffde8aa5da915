"""Fresh weights for a network that keeps its own: the weight-randomisation check."""

from __future__ import annotations

import math
from itertools import chain

import torch
from torch import Tensor, nn


def fresh_weights(model: nn.Module, seed: int) -> dict[str, Tensor]:
    """Draw a state for the model as before any training; the model is not touched.

    Matrices and kernels come from He's normal distribution (arXiv 1502.01852), scales are 1, shifts 0, running
    means 0 and running variances 1, so that activations keep their order of magnitude. The whole network is
    randomised at once (Adebayo et al., arXiv 1810.03292, whose cascading variant ends there).

    Args:
        model: The network.
        seed: Seed of the draw.

    Returns:
        Parameters and floating-point buffers by name, on their own devices.
    """
    generator = torch.Generator().manual_seed(seed)
    state = chain(model.named_parameters(), model.named_buffers())
    return {name: _fresh(name, tensor, generator) for name, tensor in state if tensor.is_floating_point()}


def _fresh(name: str, tensor: Tensor, generator: torch.Generator) -> Tensor:
    if tensor.dim() > 1:
        deviation = math.sqrt(2 / max(tensor[0].numel(), 1))
        return (torch.randn(tensor.shape, generator=generator) * deviation).to(tensor)
    is_scale = name.rpartition(".")[2] in ("weight", "running_var")
    return torch.full_like(tensor, 1.0 if is_scale else 0.0).detach()
