"""The capture checked by algebra: behind the layer a linear head must give exactly what the contributions sum to."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from lightning_ifa.errors import LayerError
from lightning_ifa.model.head import depends_on_layer_only
from lightning_ifa.model.target_layer import TargetLayer

EQUAL = 1e-4
"""Gradients that differ by less than this share of the largest one are equal."""

RESIDUE = 0.1
"""Standard deviation of what the contributions' sum leaves of the score, over the score's: completeness 0.99."""

COARSE = 1e-6
"""Half precision: its rounding, anywhere behind the layer, is larger than what the check looks for."""


class CapturedBatch(NamedTuple):
    """One batch as it was captured.

    Attributes:
        x: Input, ``(n, ...)``.
        A: Activation, ``(n, c, *space)``.
        G: Gradient, same shape.
        score: ``(n,)`` explained score, without a graph.
        explained: ``(n,)`` explained class.
        precision: Floating-point type in which the network computed.
    """

    x: Tensor
    A: Tensor
    G: Tensor
    score: Tensor
    explained: Tensor
    precision: torch.dtype


def require_sound_capture(model: nn.Module, target: TargetLayer, captured: CapturedBatch) -> None:
    """Raise if a head is linear in the layer's activation but its score is not what the contributions sum to.

    The head's form is not guessed: it is linear where all samples explained for a class have one and the same
    gradient. Then score minus ``(A * G).sum()`` is the class's bias and must not vary within the class. If it does,
    either the score has another source than the layer, which is legitimate and is tested by running the network
    with the samples of its input exchanged but the layer's output kept, or activation and gradient do not belong
    together: the capture is wrong. In half precision nothing is checked.

    Args:
        model: The network.
        target: The target layer; nothing hooked to it is active.
        captured: A batch.

    Raises:
        LayerError: The capture is wrong.
    """
    x, A, G, score, explained, precision = captured
    if torch.finfo(precision).eps > COARSE:
        return
    score = score.float()
    rest = score - (A * G).flatten(1).sum(1)
    for label in torch.unique(explained):
        own = explained == label
        if own.sum() < 2 or not _constant(G[own].flatten(1)) or not _is_felt(A[own], G[own], score[own]):
            continue
        allowed = RESIDUE * score[own].std() + EQUAL * score.abs().max()
        if rest[own].std() > allowed and depends_on_layer_only(model, target, x):
            raise LayerError(
                f'the capture at layer "{target.name}" is wrong: behind it class {int(label)} is linear, yet its score '
                f"minus the sum of the contributions varies by {float(rest[own].std()):.3g} instead of being the "
                "bias; does a forward hook change the layer's output after it was recorded?"
            )


def _is_felt(A: Tensor, G: Tensor, score: Tensor) -> bool:
    """Whether the layer reaches the score at all, and not by less than the score's own rounding."""
    largest = A.abs().max().double() * G.abs().max().double()
    return bool(largest * A[0].numel() > torch.finfo(torch.float32).eps * score.abs().max().double())


def _constant(gradients: Tensor) -> bool:
    """Whether all samples have one gradient, and it is not zero."""
    largest = gradients.abs().max()
    spread = (gradients - gradients[:1]).abs().max()
    return bool(largest > 0) and bool(spread <= EQUAL * largest) and bool(torch.isfinite(largest))
