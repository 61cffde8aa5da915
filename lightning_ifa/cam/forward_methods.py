"""CAM weights from further forward passes: one for each channel.

Every method is a function ``(A, G, rescore) -> W``; ``rescore`` gives the explained score of the same samples from
another input or another activation. No gradient is read. Shapes as in ``cam``.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from lightning_ifa.cam.rescoring import Rescore
from lightning_ifa.errors import LayerError

TINY = 1e-12

LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}
"""Number of spatial axes to torch's name of linear interpolation."""


def scorecam(A: Tensor, G: Tensor, rescore: Rescore) -> Tensor:
    """Score that is left if the input is masked by each channel: Score-CAM (Wang et al., arXiv 1910.01279).

    ``W = softmax over k of (y(x * mask_k) - y(0))``, with ``mask_k`` the channel, upscaled to the input and stretched
    to [0, 1]. The score is the logit, so the baseline's, the same for every channel, cancels in the softmax and is
    not computed. A channel that is constant over space masks everything.

    Raises:
        LayerError: The layer has another number of spatial axes than the input, so it cannot mask it.
    """
    pictures = rescore.pictures
    space = tuple(pictures.shape[2:])
    if len(space) != A.dim() - 2 or len(space) not in LINEAR:
        raise LayerError(
            f"Score-CAM masks the input with the layer's maps, but the input {tuple(pictures.shape)} and the "
            f"activation {tuple(A.shape)} have different spatial axes; use a method without masks, as ablationcam"
        )
    masked = (pictures * _mask(A[:, [k]], space).to(rescore.x) for k in range(A.shape[1]))
    weights = torch.softmax(rescore.inputs(masked), dim=1)
    return weights.reshape(*A.shape[:2], *[1] * len(space))


def ablationcam(A: Tensor, G: Tensor, rescore: Rescore) -> Tensor:
    """Share of the score that is lost without each channel: Ablation-CAM (Desai & Ramaswamy, WACV 2020).

    ``W = (y - y_k) / |y|`` with ``y_k`` the score with channel k at 0. The paper divides by ``y``, which for a
    negative logit would turn the map upside down.
    """
    lost = rescore.score[:, None] - rescore.activations(_ablate_each(A))
    size = rescore.score.abs()[:, None]
    return torch.where(size > TINY, lost / size, 0.0).reshape(*A.shape[:2], *[1] * (A.dim() - 2))


def _ablate_each(A: Tensor) -> Iterator[Tensor]:
    for channel in range(A.shape[1]):
        changed = A.clone()
        changed[:, channel] = 0
        yield changed


def _mask(channel: Tensor, space: tuple[int, ...]) -> Tensor:
    """One channel ``(n, 1, *space)`` at the input's size, each sample stretched to [0, 1]."""
    axes = tuple(range(1, channel.dim()))
    constant = channel.amax(axes, keepdim=True) == channel.amin(axes, keepdim=True)
    large = interpolate(channel, size=space, mode=LINEAR[len(space)], align_corners=False)
    low, high = large.amin(axes, keepdim=True), large.amax(axes, keepdim=True)
    return torch.where(constant, 0.0, (large - low) / (high - low))
