"""Class activation maps: the methods by name, and the map that their weights give.

A method is a function ``(A, G) -> W`` that gives weights which broadcast to ``A``, or, if it has to run the network
again, a ``WithForwards``. The map is the weighted sum over channels, signed and unscaled. Shapes: ``A`` and ``G``
are ``(n, c, *space)``, the map ``(n, *space)``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from lightning_ifa.features.cam_forward import ablationcam, scorecam
from lightning_ifa.features.cam_gradient import (
    eigencam,
    eigengradcam,
    gradcam,
    gradcam_plus_plus,
    hirescam,
    layercam,
    random_weights,
    xgradcam,
)

if TYPE_CHECKING:
    from lightning_ifa.features.rescore import Rescore

Weights = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class WithForwards:
    """A method that runs the network again, several times a sample.

    Attributes:
        weights: ``(A, G, rescore) -> W``; see ``features.rescore.Rescore``.
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
    """Look a method up by name, or hand a user's own function through.

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


def contributions(A: Tensor, G: Tensor) -> Tensor:
    """Sum ``A * G`` over space: each channel's contribution to the score (IFA paper; ``C`` in our notation).

    Returns:
        Shape ``(n, c)``, in units of the score.
    """
    return (A * G).sum(tuple(range(2, A.dim())))


def cam(A: Tensor, G: Tensor, method: Method, rescore: Rescore | None = None) -> Tensor:
    """The class activation map: the weighted sum of the activation over channels.

    Args:
        A: Activation, ``(n, c, *space)`` float32.
        G: Gradient of the explained score, same shape.
        method: One of ``METHODS``' values, or a user's function ``(A, G) -> W``.
        rescore: Runs the network again for these samples; needed by a ``WithForwards`` only.

    Returns:
        Shape ``(n, *space)``, signed, unscaled; with ``hirescam`` in units of the score a position.

    Raises:
        ValueError: The method runs the network again, and no ``rescore`` is given.
    """
    if not isinstance(method, WithForwards):
        return (method(A, G) * A).sum(1)
    if rescore is None:
        raise ValueError(f"{getattr(method.weights, '__name__', 'the method')} runs the network again; pass rescore=")
    return (method.weights(A, G, rescore) * A).sum(1)
