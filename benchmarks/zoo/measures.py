"""What is measured of one architecture at the layer that was found: against peers, and against a changed picture."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from lightning_ifa.model.activation_capture import ActivationCapture
from lightning_ifa.model.forward import run_forward
from lightning_ifa.model.layer_hooks import hook_output
from lightning_ifa.model.output_form import output_tensor
from lightning_ifa.model.target_layer import TargetLayer, first_output
from lightning_ifa.statistics.completeness import completeness

try:
    from captum.attr import LayerGradientXActivation
    from pytorch_grad_cam import HiResCAM
except ImportError:  # pytorch-grad-cam needs torchvision; scripts/zoo-env installs both
    LayerGradientXActivation = HiResCAM = None

PAINTED = 6
NONE = float("nan")


def score(output: Any) -> Tensor:
    """The first class's score of each sample; for class planes their mean."""
    scores = output_tensor(output)
    return scores.flatten(2).mean(2)[:, 0] if scores.dim() > 2 else scores[:, 0]


def differences(model: nn.Module, target: TargetLayer, x: Tensor) -> dict[str, float]:
    """Largest difference of gradient times activation from that of each peer, as a share of the largest value.

    Plain gradients on both sides. NaN where a peer cannot be asked: for an activation function, which is no module, or
    for one of several calls of a module.
    """
    with ActivationCapture(model, target) as capture:
        A, G = capture.gradient(score(capture.forward(x)))
    product = A * G
    found = {"autograd": NONE, "grad-cam": NONE, "captum": NONE}
    if target.function is not None:
        return found
    found["autograd"] = _apart(product, _by_autograd(model, target, x))
    if HiResCAM is not None and target.call is None and target.rows == 1:
        found["grad-cam"] = _apart(product.sum(1), _by_grad_cam(model, target, x))
        method = LayerGradientXActivation(lambda given: score(model(given)), target.module)
        found["captum"] = _apart(product, target.read(first_output(method.attribute(x.clone()))).detach())
    return found


def _apart(own: Tensor, other: Tensor) -> float:
    """A map that cancels to nothing, as behind a LayerNorm, is measured against the products it is the sum of."""
    return float((own - other).abs().max() / other.abs().max().clamp(min=1e-30))


def _by_autograd(model: nn.Module, target: TargetLayer, x: Tensor) -> Tensor:
    kept: list[Tensor] = []
    calls: list[int] = []

    def keep(module: object, args: object, output: object) -> Any:
        calls.append(len(calls))
        if target.is_at(calls[-1]):
            tensor = first_output(output)
            tensor.retain_grad()
            kept.append(tensor)
            copy = tensor.clone()  # what follows may change it in place
            return (copy, *output[1:]) if isinstance(output, tuple) else copy
        return output

    handle = target.module.register_forward_hook(keep)
    score(model(x.clone().requires_grad_())).sum().backward()
    handle.remove()
    gradient = kept[0].grad
    assert gradient is not None
    return target.read(kept[0].detach()) * target.read(gradient)


def _by_grad_cam(model: nn.Module, target: TargetLayer, x: Tensor) -> Tensor:
    """HiResCAM of pytorch-grad-cam, before it clips and scales."""
    with HiResCAM(model, [target.module], reshape_transform=lambda output: target.read(first_output(output))) as method:
        output = method.activations_and_grads(x.clone())
        model.zero_grad()
        score(output).sum().backward()
        A, G = method.activations_and_grads.activations[0], method.activations_and_grads.gradients[0]
        product = method.get_cam_image(x, target.module, None, A.numpy(), G.numpy(), False)
    return torch.from_numpy(product.sum(1) if product.ndim == A.dim() else product)


def scenes(shape: tuple[int, ...]) -> Tensor:
    """Noise with a bright box of a tenth of the space in a random place; a few inputs of one shape."""
    generator = torch.Generator().manual_seed(1)
    x = 0.3 * torch.randn(PAINTED, *shape[1:], generator=generator)
    space = shape[2:] if len(shape) > 2 else shape[1:]
    for row in x:
        box: list[Any] = []
        for size in space:
            edge = max(1, round(size * 0.1 ** (1 / len(space))))
            start = int(torch.randint(0, size - edge + 1, (), generator=generator))
            box.append(slice(start, start + edge))
        row[(..., *box)] += 2 * torch.randn((), generator=generator)
    return x


def completeness_of(model: nn.Module, target: TargetLayer, shape: tuple[int, ...]) -> float:
    """Share of the spread of the first class's score that the contributions account for."""
    x = scenes(shape)
    with ActivationCapture(model, target, conservative=True) as capture:
        scores = score(capture.forward(x))
        A, G = capture.gradient(scores)
        sums = (A * G).flatten(1).sum(1) + (0 if capture.unplaced is None else capture.unplaced)
    return completeness(scores.detach().numpy(), sums.numpy(), np.zeros(len(x), dtype=np.int64))


def cells_astray(model: nn.Module, target: TargetLayer, x: Tensor, at: tuple[float, ...] = (0.8, 0.3)) -> float:
    """How many cells of the map lie between a change of the input and where the activation moves most.

    A box of a tenth of the picture off its middle is replaced by noise; the change of the activation, summed over
    channels, is looked up in the map. 0 to 1 is right: a box may lie between two cells.
    """
    picture = target.as_picture(x[:1]).clone()
    space = picture.shape[2:]
    middle = [at[axis % len(at)] for axis in range(len(space))]
    box = [
        slice(int(size * (m - 0.12)), max(int(size * (m + 0.12)), int(size * (m - 0.12)) + 1))
        for size, m in zip(space, middle, strict=True)
    ]
    picture[(..., *box)] += 3 * torch.randn(picture[(..., *box)].shape, generator=torch.Generator().manual_seed(2))
    changed = target.from_picture(picture, x[:1])
    before, after = (activation_of(model, target, one) for one in (x[:1], changed))
    moved = (after - before).square().sum(1)[0]
    cover = torch.zeros(1, 1, *space)
    cover[(..., *box)] = 1
    mode = {1: "linear", 2: "area", 3: "area"}[len(moved.shape)]
    wanted = interpolate(cover, tuple(moved.shape), mode=mode)[0, 0]
    peak = torch.tensor(np.unravel_index(int(moved.argmax()), tuple(moved.shape)))
    inside = (wanted > 0).nonzero()
    return float((inside - peak).abs().amax(1).min()) if len(inside) else NONE


def activation_of(model: nn.Module, target: TargetLayer, x: Tensor) -> Tensor:
    kept: list[Tensor] = []
    calls: list[int] = []

    def keep(output: Any) -> None:
        calls.append(len(calls))
        if target.is_at(calls[-1]):
            kept.append(target.read(output).clone())

    handle = hook_output(target, keep)
    try:
        run_forward(model, x)
    finally:
        handle.remove()
    return kept[-1]
