"""Mask the input by a map and run the network again: soft masks, and insertion and deletion by rank."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate
from torch.utils.data import DataLoader

from lightning_ifa.cam.forward_methods import LINEAR
from lightning_ifa.data.sampling import Indices
from lightning_ifa.errors import DataError
from lightning_ifa.features.extractor import FeatureExtractor
from lightning_ifa.features.feature_batch import FeatureBatch
from lightning_ifa.model.outputs import ScoreFunction

Baseline = Callable[[Tensor], Tensor]
"""From inputs ``(n, c, *space)`` to what takes the place of a masked position; broadcasts to the input."""

BLUR = 4  # positions an axis that a blurred input keeps


class MaskedRun(NamedTuple):
    """The network's output for r masked versions of n samples.

    Attributes:
        logits: ``(r, n, k)``.
        predictions: ``(r, n)``.
    """

    logits: NDArray[np.float32]
    predictions: NDArray[Any]


def upscale(maps: Tensor, space: Sequence[int]) -> Tensor:
    """Bring maps ``(n, *coarse)`` to the input's resolution, ``(n, *space)``, by linear interpolation.

    Raises:
        DataError: The maps have another number of axes than the input.
    """
    if maps.dim() - 1 != len(space) or len(space) not in LINEAR:
        raise DataError(
            f"maps of shape {tuple(maps.shape[1:])} cannot be laid over inputs of shape {tuple(space)}; "
            "masking needs a layer with as many spatial axes as the input, 1 to 3"
        )
    return interpolate(maps[:, None], tuple(space), mode=LINEAR[len(space)], align_corners=False)[:, 0]


def ranks(maps: Tensor, seed: int) -> Tensor:
    """Rank each map's positions, 0 = highest; ties, as where a ReLU left zeros, in random order.

    Args:
        maps: ``(n, *space)``.
        seed: Seed of the order of ties, which is the same for every map, whatever the batch.

    Returns:
        ``(n, *space)``, int64.
    """
    flat = maps.flatten(1)
    shuffle = torch.randperm(flat.shape[1], generator=torch.Generator().manual_seed(seed)).to(maps.device)
    order = shuffle[flat[:, shuffle].argsort(dim=1, descending=True, stable=True)]
    places = torch.arange(flat.shape[1], device=maps.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, places).reshape(maps.shape)


def blend(x: Tensor, fill: Tensor, mask: Tensor) -> Tensor:
    """Show the input where the mask is 1 and the baseline where it is 0: ``m x + (1 - m) fill``.

    Args:
        x: ``(n, c, *space)``.
        fill: Broadcasts to it.
        mask: ``(n, *space)`` in [0, 1].
    """
    return torch.lerp(fill.expand_as(x), x, mask[:, None].to(x))


def keep_top(x: Tensor, fill: Tensor, order: Tensor, share: float) -> Tensor:
    """Show only the highest-ranked share of the positions, in all input channels at once (insertion).

    Args:
        x: ``(n, c, *space)``.
        fill: Broadcasts to it.
        order: ``(n, *space)`` from ``ranks``.
        share: Share of the positions, in [0, 1]; their count is rounded.
    """
    return torch.where(_top(order, share), x, fill)


def remove_top(x: Tensor, fill: Tensor, order: Tensor, share: float) -> Tensor:
    """Hide the highest-ranked share of the positions (deletion); arguments as for ``keep_top``."""
    return torch.where(_top(order, share), fill, x)


def blur(x: Tensor) -> Tensor:
    """Average over ``BLUR`` blocks an axis and interpolate: the input without its detail, same shape."""
    space = tuple(x.shape[2:])
    coarse = interpolate(x, [min(BLUR, size) for size in space], mode="area")
    return interpolate(coarse, space, mode=LINEAR[len(space)], align_corners=False)


def make_baseline(
    rule: str | float, extraction: FeatureExtractor, loader: DataLoader[Any], indices: Indices
) -> Baseline:
    """Turn the name of a baseline into the function that gives it.

    Args:
        rule: ``"mean"``, each input channel's mean over the samples; ``"blur"``, each input without its detail;
            or a number.
        extraction: How batches are read; used for ``"mean"`` only.
        loader: Loader of the samples.
        indices: ``(n,)`` their data-set indices.

    Raises:
        ValueError: The rule is unknown.
    """
    if rule == "blur":
        return blur
    if rule == "mean":
        mean = _channel_mean(extraction, loader, indices)
        return lambda x: mean.to(x).reshape(1, -1, *[1] * (x.dim() - 2))
    if isinstance(rule, str):
        raise ValueError(f"unknown baseline {rule!r}; choose 'mean', 'blur' or a number")
    return lambda x: x.new_full((1,), float(rule))


def run_masked(
    extraction: FeatureExtractor,
    loader: DataLoader[Any],
    indices: Indices,
    task: str | ScoreFunction,
    *,
    masks: Mapping[str, NDArray[Any]],
    maps: NDArray[Any],
    baseline: Baseline,
    shares: Sequence[float],
) -> dict[str, MaskedRun]:
    """Run the network on masked versions of its inputs.

    Args:
        extraction: How the model is called; it is left as it was.
        loader: Loader of the samples.
        indices: ``(n,)`` their data-set indices.
        task: How the output is read.
        masks: Names to soft masks ``(n, *coarse)`` in [0, 1], at the layer's resolution.
        maps: ``(n, *coarse)`` whose ranks give insertion and deletion.
        baseline: What takes the place of masked positions.
        shares: Shares of the positions that are shown or hidden, in [0, 1].

    Returns:
        One version for each soft mask under its name; ``"insertion"`` and ``"deletion"`` with one a share.

    Raises:
        DataError: The maps do not lie over the inputs.
    """
    own, found = replace(extraction, task=task), dict[str, list[MaskedRun]]()
    with own.session():
        for batch in own.batches(loader, indices):
            x, seed = batch.pictures, extraction.seed
            soft = {name: torch.from_numpy(mask[batch.rows]).to(x.device) for name, mask in masks.items()}
            ranked = torch.from_numpy(maps[batch.rows]).to(x.device)
            for name, versions in _versions(x, baseline(x), soft, ranked, shares, seed):
                found.setdefault(name, []).append(_join(np.stack, [_run(batch, version) for version in versions]))
    return {name: _join(partial(np.concatenate, axis=1), parts) for name, parts in found.items()}


def _run(batch: FeatureBatch, inputs: Tensor) -> tuple[NDArray[Any], NDArray[Any]]:
    readout = batch.rerun(inputs)
    return readout.logits.numpy(force=True), readout.predictions.numpy(force=True)


def _join(join: Callable[[Sequence[NDArray[Any]]], NDArray[Any]], parts: Sequence[tuple[Any, Any]]) -> MaskedRun:
    logits, predictions = zip(*parts, strict=True)
    return MaskedRun(join(logits), join(predictions))


def _versions(
    x: Tensor, fill: Tensor, masks: Mapping[str, Tensor], maps: Tensor, shares: Sequence[float], seed: int
) -> Iterator[tuple[str, Iterator[Tensor]]]:
    space = x.shape[2:]
    for name, mask in masks.items():
        yield name, iter((blend(x, fill, upscale(mask, space)),))
    order = ranks(upscale(maps, space), seed)
    yield "insertion", (keep_top(x, fill, order, share) for share in shares)
    yield "deletion", (remove_top(x, fill, order, share) for share in shares)


def _top(order: Tensor, share: float) -> Tensor:
    return (order < round(share * order[0].numel()))[:, None]


def _channel_mean(extraction: FeatureExtractor, loader: DataLoader[Any], indices: Indices) -> Tensor:
    total, count = torch.zeros(()), 0
    with extraction.session():
        for batch in extraction.batches(loader, indices):
            x = batch.pictures
            total = total + x.double().transpose(0, 1).flatten(1).sum(1).cpu()
            count += x.numel() // x.shape[1]
    return total / count
