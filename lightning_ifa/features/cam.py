"""Class activation maps from an activation and its gradient.

Every method is a function ``(A, G) -> W`` that gives weights which broadcast to ``A``; the map is the weighted
sum over channels, signed and unscaled. Shapes: ``A`` and ``G`` are ``(n, c, *space)``, the map ``(n, *space)``.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Weights = Callable[[Tensor, Tensor], Tensor]


def hirescam(A: Tensor, G: Tensor) -> Tensor:
    """Element-wise weights, ``W = G``: HiResCAM (Draelos & Carin, arXiv 2011.08891), FullCAM in the IFA paper.

    The one method whose map sums to the contributions' sum at every layer.
    """
    return G


def gradcam(A: Tensor, G: Tensor) -> Tensor:
    """The gradient's mean over space: Grad-CAM (Selvaraju et al., arXiv 1610.02391, eq. 1), before its ReLU."""
    return G.mean(_space(G), keepdim=True)


def gradcam_plus_plus(A: Tensor, G: Tensor) -> Tensor:
    """Weighted positive gradients: Grad-CAM++ (Chattopadhyay et al., arXiv 1710.11063, eq. 19 with exp scores)."""
    squared, cubed = G**2, G**3
    denominator = 2 * squared + A.sum(_space(A), keepdim=True) * cubed
    alpha = torch.where(denominator.abs() > 1e-12, squared / denominator, 0.0)
    return (alpha * G.relu()).sum(_space(G), keepdim=True)


def xgradcam(A: Tensor, G: Tensor) -> Tensor:
    """Activation-weighted gradients: XGrad-CAM (Fu et al., arXiv 2008.02312, eq. 8)."""
    total = A.sum(_space(A), keepdim=True)
    return torch.where(total.abs() > 1e-12, (A * G).sum(_space(A), keepdim=True) / total, 0.0)


def layercam(A: Tensor, G: Tensor) -> Tensor:
    """Positive gradients, element-wise: LayerCAM (Jiang et al., IEEE TIP 2021, eq. 5), before its ReLU."""
    return G.relu()


METHODS: dict[str, Weights] = {
    "hirescam": hirescam,
    "gradcam": gradcam,
    "gradcam++": gradcam_plus_plus,
    "xgradcam": xgradcam,
    "layercam": layercam,
}


def cam_weights(method: str | Weights) -> Weights:
    """Look a method up by name, or hand a user's own function through.

    Raises:
        ValueError: There is no such method.
    """
    if callable(method):
        return method
    try:
        return METHODS[method]
    except KeyError:
        raise ValueError(
            f"unknown CAM method {method!r}; choose one of {', '.join(METHODS)}, or pass a function"
        ) from None


def contributions(A: Tensor, G: Tensor) -> Tensor:
    """Sum ``A * G`` over space: each channel's contribution to the score (IFA paper; ``C`` in our notation).

    Returns:
        Shape ``(n, c)``, in units of the score.
    """
    return (A * G).sum(_space(A))


def cam(A: Tensor, G: Tensor, weights: Weights) -> Tensor:
    """The class activation map: the weighted sum of the activation over channels.

    Returns:
        Shape ``(n, *space)``, signed, unscaled; with ``hirescam`` in units of the score a position.
    """
    return (weights(A, G) * A).sum(1)


def _space(A: Tensor) -> tuple[int, ...]:
    return tuple(range(2, A.dim()))
