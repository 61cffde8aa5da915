"""CAM weights from an activation and its gradient alone.

Every method is a function ``(A, G) -> W``; ``A`` and ``G`` are ``(n, c, *space)`` float32, ``W`` broadcasts to them.
The map is ``(W * A).sum(1)``, signed and unscaled: a final ReLU of a paper is left to the picture.
"""

from __future__ import annotations

import torch
from torch import Tensor

TINY = 1e-12
RANDOM_SEED = 0


def hirescam(A: Tensor, G: Tensor) -> Tensor:
    """Element-wise weights, ``W = G``: HiResCAM (Draelos & Carin, arXiv 2011.08891), FullCAM in the IFA paper.

    The one method whose map sums to the contributions' sum at every layer.
    """
    return G


def gradcam(A: Tensor, G: Tensor) -> Tensor:
    """The gradient's mean over space: Grad-CAM (Selvaraju et al., arXiv 1610.02391, eq. 1), before its ReLU."""
    return G.mean(_space(G), keepdim=True)


def gradcam_plus_plus(A: Tensor, G: Tensor) -> Tensor:
    """Weighted positive gradients: Grad-CAM++ (Chattopadhyay et al., arXiv 1710.11063, eq. 19 with exp scores).

    ``W = sum(alpha * relu(G))``, ``alpha = G**2 / (2 * G**2 + A.sum() * G**3)``, here with ``G**2`` cancelled.
    """
    denominator = 2 + A.sum(_space(A), keepdim=True) * G
    alpha = torch.where(denominator.abs() > TINY, 1 / denominator, 0.0)
    return (alpha * G.relu()).sum(_space(G), keepdim=True)


def xgradcam(A: Tensor, G: Tensor) -> Tensor:
    """Activation-weighted gradients: XGrad-CAM (Fu et al., arXiv 2008.02312, eq. 8)."""
    total = A.sum(_space(A), keepdim=True)
    return torch.where(total.abs() > TINY, (A * G).sum(_space(A), keepdim=True) / total, 0.0)


def layercam(A: Tensor, G: Tensor) -> Tensor:
    """Positive gradients, element-wise: LayerCAM (Jiang et al., IEEE TIP 2021, eq. 5), before its ReLU."""
    return G.relu()


def eigencam(A: Tensor, G: Tensor) -> Tensor:
    """First right singular vector of the activation: Eigen-CAM (Muhammad & Yeasin, arXiv 2008.00299).

    ``A = U S V.T`` of each sample's positions x channels, not centred; ``W`` is the first column of ``V``. The
    same for every class. A singular vector has no sign of its own: it gets the one with which its entries sum to at
    least 0, so that the map agrees with the plain sum of the channels rather than with its negative.
    """
    return _principal_direction(A)


def eigengradcam(A: Tensor, G: Tensor) -> Tensor:
    """First principal direction of ``A * G`` instead of ``A``: Eigen-Grad-CAM, ``W = G * v``.

    Known from pytorch-grad-cam (Gildenblat et al., 2021), without its centring. The sign is chosen as for Eigen-CAM,
    so that the map agrees with HiResCAM's rather than with its negative.
    """
    return G * _principal_direction(A * G)


def random_weights(A: Tensor, G: Tensor) -> Tensor:
    """Standard normal weights, one a channel, the same for every sample: the control that knows nothing of the model.

    A method worth using must differ from it (sanity checks: Adebayo et al., arXiv 1810.03292).
    """
    generator = torch.Generator().manual_seed(RANDOM_SEED)
    drawn = torch.randn(A.shape[1], generator=generator).to(A)
    return drawn.reshape(1, -1, *[1] * (A.dim() - 2))


def _principal_direction(values: Tensor) -> Tensor:
    """First left singular vector of each sample's channels x positions, ``(n, c, 1, ...)``, entries' sum >= 0."""
    first: Tensor = torch.linalg.svd(values.flatten(2), full_matrices=False).U[:, :, 0]
    sign = torch.where(first.sum(1, keepdim=True) < 0, -1.0, 1.0)
    return (first * sign).reshape(*values.shape[:2], *[1] * (values.dim() - 2))


def _space(A: Tensor) -> tuple[int, ...]:
    return tuple(range(2, A.dim()))
