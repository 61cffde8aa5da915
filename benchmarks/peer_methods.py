"""One batch's maps as each library computes them, on the same network, layer and classes.

A method takes a network and its case, and gives a function ``(x, classes) -> Found`` for the duration of a ``with``
block; what a library lets its users reuse between batches is made once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from benchmarks.networks import Case, as_is
from lightning_ifa.cam.methods import cam, cam_weights, contributions_and_cam
from lightning_ifa.model.activation_capture import ActivationCapture

try:
    from captum.attr import LayerGradCam, LayerGradientXActivation
except ImportError:
    LayerGradCam = None
try:
    from torchcam.methods import GradCAM as TorchcamGradCam
except ImportError:
    TorchcamGradCam = None
try:
    from pytorch_grad_cam import GradCAM as PgcGradCam
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
except ImportError:  # it needs torchvision; scripts/zoo-env makes an environment that has both
    PgcGradCam = None


class Found(NamedTuple):
    """What a method gives; None where it gives no such thing.

    Attributes:
        contributions: ``(n, c)``.
        hirescam: ``(n, *space)``, signed.
        gradcam: ``(n, *space)``, signed.
        gradcam_relu: The same without its negative part.
    """

    contributions: Tensor | None = None
    hirescam: Tensor | None = None
    gradcam: Tensor | None = None
    gradcam_relu: Tensor | None = None


Run = Callable[[Tensor, Tensor], Found]


@contextmanager
def bare(model: nn.Module, case: Case) -> Iterator[Run]:
    """The forward pass alone, in inference mode: the floor."""

    def run(x: Tensor, classes: Tensor) -> Found:
        with torch.inference_mode():
            model(x)
        return Found()

    yield run


@contextmanager
def ours(model: nn.Module, case: Case, with_gradcam: bool = False) -> Iterator[Run]:
    """Contributions and map as ``FeatureExtractor`` takes them, without what it collects from them."""
    with ActivationCapture(model, model.get_submodule(case.layer), case.layer) as capture:

        def run(x: Tensor, classes: Tensor) -> Found:
            logits = capture.forward(x)
            with torch.enable_grad():
                score = logits.gather(1, classes[:, None])[:, 0]
            A, G = (case.grid(t) for t in capture.gradient(score))
            extra = cam(A, G, cam_weights("gradcam")) if with_gradcam else None
            return Found(*contributions_and_cam(A, G, cam_weights("hirescam")), extra)

        yield run


@contextmanager
def captum_products(model: nn.Module, case: Case) -> Iterator[Run]:
    """Captum's LayerGradientXActivation, summed over space and over channels."""
    method = LayerGradientXActivation(model, model.get_submodule(case.layer))

    def run(x: Tensor, classes: Tensor) -> Found:
        product = case.grid(method.attribute(x, target=classes))
        return Found(product.flatten(2).sum(2), product.sum(1))

    yield run


@contextmanager
def captum_gradcam(model: nn.Module, case: Case) -> Iterator[Run]:
    """Captum's LayerGradCam."""
    method = LayerGradCam(model, model.get_submodule(case.layer))

    def run(x: Tensor, classes: Tensor) -> Found:
        return Found(gradcam=method.attribute(x, target=classes)[:, 0])

    yield run


@contextmanager
def torchcam(model: nn.Module, case: Case) -> Iterator[Run]:
    """Torchcam's GradCAM, unscaled."""
    with TorchcamGradCam(model, target_layer=case.layer, reshape_transform=case.grid) as method:

        def run(x: Tensor, classes: Tensor) -> Found:
            return Found(gradcam_relu=method(classes.tolist(), model(x), normalized=False)[0])

        yield run


@contextmanager
def pytorch_grad_cam(model: nn.Module, case: Case) -> Iterator[Run]:
    """GradCAM of pytorch-grad-cam; the map before it is clipped and scaled is read from what the call has kept."""
    layer = model.get_submodule(case.layer)
    with PgcGradCam(model, [layer], reshape_transform=case.grid) as method:

        def run(x: Tensor, classes: Tensor) -> Found:
            targets = [ClassifierOutputTarget(label) for label in classes.tolist()]
            method(x, targets)
            kept = method.activations_and_grads
            arrays = kept.activations[0].numpy(), kept.gradients[0].numpy()
            return Found(gradcam=torch.from_numpy(method.get_cam_image(x, layer, targets, *arrays, False)))

        yield run


@contextmanager
def full_backward(model: nn.Module, case: Case) -> Iterator[Run]:
    """Grad-CAM by a backward pass through the whole network into ``.grad``: the least that pytorch-grad-cam does."""
    held: list[Tensor] = []

    def hold(module: nn.Module, args: object, output: Tensor) -> None:
        output.retain_grad()
        held.append(output)

    handle = model.get_submodule(case.layer).register_forward_hook(hold)

    def run(x: Tensor, classes: Tensor) -> Found:
        model.zero_grad()
        model(x).gather(1, classes[:, None]).sum().backward()
        output = held.pop()
        A, G = case.grid(output.detach()), case.grid(output.grad)
        return Found(gradcam=(G.mean(tuple(range(2, G.dim())), keepdim=True) * A).sum(1))

    try:
        yield run
    finally:
        handle.remove()
        model.zero_grad()


METHODS = {"bare forward": bare, "lightning_ifa": ours, "full backward": full_backward}
if LayerGradCam is not None:
    METHODS |= {"captum LayerGradientXActivation": captum_products, "captum LayerGradCam": captum_gradcam}
if TorchcamGradCam is not None:
    METHODS |= {"torchcam GradCAM": torchcam}
if PgcGradCam is not None:
    METHODS |= {"pytorch-grad-cam GradCAM": pytorch_grad_cam}

NO_TOKENS = ("captum LayerGradCam",)
"""Methods that take the second axis for channels and have no option to reshape."""


def fitting(case: Case) -> list[str]:
    """Names of the methods that can explain this case."""
    return [name for name in METHODS if case.grid is as_is or name not in NO_TOKENS]


def largest_differences(model: nn.Module, case: Case, x: Tensor, classes: Tensor) -> dict[str, float]:
    """How far each peer's numbers are from ours, as a share of the largest of ours; by peer.

    A map that cancels to nothing, as behind a LayerNorm, is measured against the largest channel's mean in it.
    """
    with ours(model, case, with_gradcam=True) as run:
        own = run(x, classes)
    own = own._replace(gradcam_relu=own.gradcam.relu())
    least = own.contributions.abs().max() / own.hirescam[0].numel()
    found = {}
    for name in set(fitting(case)) - {"bare forward", "lightning_ifa"}:
        with METHODS[name](model, case) as run:
            pairs = [(a, b.detach()) for a, b in zip(own, run(x, classes), strict=True) if b is not None]
        found[name] = max(float((a - b).abs().max() / a.abs().max().clamp(min=least)) for a, b in pairs)
    return found
