"""Maps of inputs that were changed a little."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from lightning_ifa.cam.methods import cam, cam_weights
from lightning_ifa.data.feature_table import FeatureTable
from lightning_ifa.features.extractor import FeatureExtractor
from lightning_ifa.model.outputs import ScoreFunction


def noisy_maps(
    extraction: FeatureExtractor,
    loader: DataLoader[object],
    table: FeatureTable,
    task: str | ScoreFunction,
    *,
    draws: int,
    radius: float,
    seed: int,
) -> NDArray[np.float32]:
    """Make the maps of a table's samples again with uniform noise on their inputs.

    Args:
        extraction: How the table was made.
        loader: The loader that it was made from.
        table: The samples, and the class of each that is explained.
        task: How the output is read.
        draws: Number of draws of the noise.
        radius: Largest change of an input value, as a share of that input's own standard deviation.
        seed: Seed of the noise.

    Returns:
        Maps, ``(draws, n, *space)``, signed, unscaled.
    """
    method, own = cam_weights(extraction.cam), replace(extraction, task=task, layer=table.layer)
    found: list[NDArray[np.float32]] = []
    with own.session():
        for batch in own.batches(loader, table.indices):
            maps = []
            for draw in range(draws):
                noise = _draw_noise(batch.x, batch.samples.positions, (seed, draw))
                changed = replace(batch, samples=batch.samples._replace(x=batch.x + radius * noise))
                explained = table.explained[batch.rows]
                A, G = changed.gradient(explained)
                maps.append(cam(A, G, method, changed.rescore(explained)).numpy(force=True))
            found.append(np.stack(maps))
    return np.concatenate(found, axis=1)


def _draw_noise(x: Tensor, positions: Tensor, seed: tuple[int, int]) -> Tensor:
    """Uniform noise of the inputs' own spread; a sample's depends on its own index, whatever its batch."""
    draws = [
        np.random.default_rng((*seed, int(index))).uniform(-1, 1, one.shape).astype(np.float32) * float(one.std())
        for index, one in zip(positions, x, strict=True)
    ]
    return torch.from_numpy(np.stack(draws)).to(x)
