"""Class activation maps: the methods by name, and the map that their weights give.

A method is a function ``(A, G) -> W`` that gives weights which broadcast to ``A``, or, if it has to run the network
again, a ``WithForwards``. The map is the weighted sum over channels, signed and unscaled. Shapes: ``A`` and ``G``
are ``(n, c, *space)``, the map ``(n, *space)``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_ifa.cam.forward_methods import ablationcam, scorecam
from lightning_ifa.cam.gradient_methods import (
    eigencam,
    eigengradcam,
    gradcam,
    gradcam_plus_plus,
    hirescam,
    layercam,
    random_weights,
    xgradcam,
)
from lightning_ifa.cam.rescoring import Rescore

PIECE = 2**18  # entries multiplied at once: 1 MiB
Weights = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class WithForwards:
    """A method that runs the network again, several times a sample.

    Attributes:
        weights: Function ``(A, G, rescore) -> W``; see ``cam.rescoring.Rescore``.
    """

    weights: Callable[[Tensor, Tensor, Rescore], Tensor]


Method = Weights | WithForwards

METHODS: dict[str, Method] = {
    "hirescam": hirescam,
    "gradcam": gradcam,
    "gradcam++": gradcam_plus_plus,
    "xgradcam": xgradcam,
    "layercam": layercam,
    "eigencam": eigencam,
    "eigengradcam": eigengradcam,
    "scorecam": WithForwards(scorecam),
    "ablationcam": WithForwards(ablationcam),
    "random": random_weights,
}

ONE_PASS: tuple[str, ...] = tuple(name for name, method in METHODS.items() if not isinstance(method, WithForwards))
"""Methods that need no further forward pass."""


def cam_weights(method: str | Method) -> Method:
    """Look a method up by name, or return a user's own function unchanged.

    Raises:
        ValueError: There is no such method.
    """
    if not isinstance(method, str):
        return method
    try:
        return METHODS[method]
    except KeyError:
        raise ValueError(
            f"unknown CAM method {method!r}; choose one of {', '.join(METHODS)}, or pass a function"
        ) from None


def method_name(method: str | Method) -> str:
    """Give the name of a method for tables and messages."""
    function = method.weights if isinstance(method, WithForwards) else method
    return function if isinstance(function, str) else getattr(function, "__name__", "custom")


def contributions(A: Tensor, G: Tensor) -> Tensor:
    """Sum ``A * G`` over space: each channel's contribution to the score (IFA paper; ``C`` in our notation).

    Returns:
        Shape ``(n, c)``, in units of the score.
    """
    return torch.cat([product.flatten(2).sum(2) for product in _products(A, G)])


def cam(A: Tensor, G: Tensor, method: Method, rescore: Rescore | None = None) -> Tensor:
    """Compute the class activation map: the weighted sum of the activation over channels.

    Args:
        A: Activation, ``(n, c, *space)`` float32.
        G: Gradient of the explained score, same shape.
        method: One of ``METHODS``' values, or a user's function ``(A, G) -> W``.
        rescore: Scores these samples again; needed by a ``WithForwards`` only.

    Returns:
        Shape ``(n, *space)``, signed, unscaled; with ``hirescam`` in units of the score a position.

    Raises:
        ValueError: The method runs the network again, and no ``rescore`` is given.
    """
    return _weighted_sum(_weights(A, G, method, rescore), A)


def contributions_and_cam(
    A: Tensor, G: Tensor, method: Method, rescore: Rescore | None = None
) -> tuple[Tensor, Tensor]:
    """Compute ``contributions`` and ``cam`` of one batch; where both sum the same products, these are made once.

    Returns:
        Shapes ``(n, c)`` and ``(n, *space)``.
    """
    weights = _weights(A, G, method, rescore)
    if weights is not G:
        return contributions(A, G), _weighted_sum(weights, A)
    sums = [(product.flatten(2).sum(2), product.sum(1)) for product in _products(A, G)]
    over_space, over_channels = zip(*sums, strict=True)
    return torch.cat(over_space), torch.cat(over_channels)


def group_cams(A: Tensor, G: Tensor, groups: int, method: Method, rescore: Rescore | None = None) -> Tensor:
    """Compute one map for each of several equal groups of neighbouring channels; they add up to ``cam``.

    Returns:
        Shape ``(n, groups, *space)``, signed, unscaled.
    """
    products = _products(_weights(A, G, method, rescore).expand_as(A), A)
    return torch.cat([product.reshape(len(product), groups, -1, *A.shape[2:]).sum(2) for product in products])


def _weighted_sum(weights: Tensor, A: Tensor) -> Tensor:
    return torch.cat([product.sum(1) for product in _products(weights.expand_as(A), A)])


def _weights(A: Tensor, G: Tensor, method: Method, rescore: Rescore | None) -> Tensor:
    if not isinstance(method, WithForwards):
        return method(A, G)
    if rescore is None:
        raise ValueError(f"{method_name(method)} runs the network again; pass rescore=")
    return method.weights(A, G, rescore)


def _products(A: Tensor, B: Tensor) -> Iterator[Tensor]:
    """Multiply a few samples at a time on a CPU, whose cache then holds the product: a fifth of the time, no memory."""
    samples = max(1, PIECE // max(A[0].numel(), 1)) if A.device.type == "cpu" else len(A)
    return (a * b for a, b in zip(torch.split(A, samples), torch.split(B, samples), strict=True))
