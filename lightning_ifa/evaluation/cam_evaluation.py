"""The evaluation of maps of the IFA paper, each number beside that of a control."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import DataLoader

from lightning_ifa.cam.methods import Method
from lightning_ifa.data.batches import BatchFunction
from lightning_ifa.data.feature_table import FeatureTable
from lightning_ifa.data.regions import RegionSource, find_regions
from lightning_ifa.data.sampling import reference_indices
from lightning_ifa.evaluation.cam_check import MapCheck, check_maps
from lightning_ifa.evaluation.map_quality import QUALITY, measure_quality
from lightning_ifa.features.extractor import FeatureExtractor
from lightning_ifa.interventions.masking import MaskedRun, make_baseline, run_masked
from lightning_ifa.model.batch_forward import ForwardFunction
from lightning_ifa.model.outputs import ScoreFunction
from lightning_ifa.statistics.faithfulness import (
    PROBABILITY,
    area,
    average_drop,
    average_increase,
    confidence,
    logit_increase,
    others_drop,
    own_scale,
    shuffle,
)
from lightning_ifa.statistics.intensity_scale import common_scale
from lightning_ifa.statistics.performance import Performance

SHARES = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Shares of the positions shown or hidden; none and all are added. Dense at the start, where a good map decides."""

MASKS = ("own maximum", "common scale")


@dataclass(frozen=True, eq=False)
class MapEvaluation:
    """The result of ``evaluate_maps``.

    Every table has rows ``map == "cam"`` and, as control, ``map == "shuffled"``: the same intensities at random
    positions of the layer. A map is worth something as far as the two differ.

    Attributes:
        method: Name of the CAM method.
        layer: Name of the target layer.
        task: Name of the task.
        baseline: Value of masked positions: ``"mean"``, ``"blur"`` or a number.
        samples: Number of samples that were evaluated.
        measure: Name of the measure of performance: accuracy, R2, ...; see ``statistics.performance``.
        full: Performance on the unmasked inputs.
        masking: One row a map and soft mask. ``mask``: ``"own maximum"`` (positive part over the image's own
            maximum, as in the literature) or ``"common scale"`` (one range for all images, as in the IFA paper).
            ``average_drop`` (less is better) and ``average_increase`` (more is better), fractions in [0, 1], NaN
            where the score has no probability; ``logit_increase`` and ``others_drop`` (both: more is better), the logit
            variants of the paper's code; ``performance`` on the masked inputs.
        areas: One row a map: ``insertion`` (more is better) and ``deletion`` (less is better), areas under the
            curves of the explained class's probability, in [0, 1]; of the score where it has no probability.
        curves: One row a map, mode and share of the positions: ``mode`` ``"insertion"`` (only the top share is
            shown) or ``"deletion"`` (the top share is hidden), ``share`` from 0 to 1, mean ``score``, and
            ``performance``: in mode ``"insertion"`` the accuracy after masking all but the top share.
        quality: One row a map: ``sparseness`` (Gini index, the same for both), ``max_sensitivity`` (largest relative
            change of the map under noise of a tenth of each input's standard deviation; less is better, the same for
            both), and where regions are known ``relevance_mass``, ``relevance_rank`` and ``pointing`` at the input's
            resolution, means over the samples, in [0, 1]. Definitions: ``statistics.map_quality``.
        check: Agreement of the maps' sum with the logit, by display transform, and similarity to the maps of networks
            with random weights; see ``MapCheck``. None if it was not asked for.

    Example:
        >>> found = evaluate_maps(model, val_loader, sanity_check=False)
        >>> found.areas["map"].tolist(), found.measure
        (['cam', 'shuffled'], 'accuracy')
    """

    method: str
    layer: str
    task: str
    baseline: str
    samples: int
    measure: str
    full: float
    masking: pd.DataFrame
    areas: pd.DataFrame
    curves: pd.DataFrame
    quality: pd.DataFrame
    check: MapCheck | None

    @property
    def numbers(self) -> dict[str, float]:
        """Every single number under a flat name, as ``"shuffled/deletion"`` or ``"cam/common scale/average_drop"``."""
        found = {f"{row['map']}/{name}": float(row[name]) for _, row in self.areas.iterrows() for name in _AREAS}
        for _, row in self.masking.iterrows():
            found |= {f"{row['map']}/{row['mask']}/{name}": float(row[name]) for name in _MASKING}
        for _, row in self.quality.iterrows():
            found |= {f"{row['map']}/{name}": float(row[name]) for name in QUALITY if np.isfinite(row[name])}
        if self.check is not None:
            means = self.check.agreement.query("reading == 'mean'")
            found |= {f"correlation/{row['transform']}": float(row["pearson"]) for _, row in means.iterrows()}
            found["random weights/similarity"] = float(self.check.randomised["absolute_similarity"].iloc[0])
        return found


_AREAS = ("insertion", "deletion")
_MASKING = ("average_drop", "average_increase", "logit_increase", "others_drop", "performance")


def evaluate_maps(
    model: nn.Module,
    loader: DataLoader[Any],
    *,
    method: str | Method = "hirescam",
    layer: str | None = None,
    task: str | ScoreFunction = "auto",
    explain: str | int = "prediction",
    baseline: str | float = "mean",
    shares: Sequence[float] = SHARES,
    max_samples: int = 256,
    sanity_check: bool = True,
    regions: Mapping[str, RegionSource] | None = None,
    noise_draws: int = 10,
    batch_fn: BatchFunction | None = None,
    forward_fn: ForwardFunction | None = None,
    seed: int = 0,
) -> MapEvaluation:
    """Measure how well a CAM method shows what the network looks at, as the IFA paper evaluates its maps.

    Masked positions take the baseline in all input channels. The default, each channel's mean over the samples,
    needs no knowledge of the inputs' normalisation or dimension, keeps their level, and says nothing of the single
    sample; the edges that any constant makes can be evidence of their own, which is why the shuffled control has the
    same. ``"blur"`` makes no edges but leaves coarse evidence in place; ``0`` is the paper's code.

    Args:
        model: The network; weights, modes, hooks and random states stay as they are.
        loader: Loader over a map-style data set of 1-D, 2-D or 3-D inputs.
        method: Name of a CAM method, or a function ``(A, G) -> weights``.
        layer: Name of the target layer; by default the last activation the score depends on.
        task: Task or score function, as for ``analyze``.
        explain: Class whose map is made: each sample's ``"prediction"`` or ``"target"``, or a class number.
        baseline: Value of masked positions: ``"mean"``, ``"blur"``, or a number in the unit of the (normalised) input.
        shares: Shares of the positions at which the curves are measured, in (0, 1); each costs four forward passes.
        max_samples: Largest number of samples; of more, a fixed random subset is taken.
        sanity_check: Whether to compare the maps' sums with the logits of the ten most frequent classes, and the maps
            with those of three networks with random weights, which costs up to ten maps a sample and network.
        regions: ``"validation"`` to masks, as for ``analyze``; by default the data set's method ``region(index)``.
        noise_draws: Number of draws of the noise that tells the maps' sensitivity, each a map a sample; 0: left out.
        batch_fn: Function that takes a batch apart, as for ``analyze``.
        forward_fn: Function that calls a network which is not called as ``model(x)``, as given to ``analyze``.
        seed: Seed of the subset, the controls and the random weights.

    Raises:
        IFAError: Layer, batch, output or data do not allow it; the message says what would.
        ValueError: Unknown method or baseline, or a share outside (0, 1).

    Example:
        >>> found = evaluate_maps(model, val_loader, max_samples=20, sanity_check=False)
        >>> found.areas.columns.tolist()
        ['map', 'insertion', 'deletion']
    """
    grid = _grid(shares)
    extraction = FeatureExtractor(model, layer, task, explain, method, batch_fn, seed, forward_fn=forward_fn)
    table = extraction(loader, reference_indices(loader, max_samples, seed, "evaluation"))
    known = task if callable(task) else table.task
    fill = make_baseline(baseline, extraction, loader, table.indices)
    performance = Performance(table.task, table.targets, table.logits, table.predictions)
    masking, curves = [], []
    for name, maps in {"cam": table.cams, "shuffled": shuffle(table.cams, table.indices, seed)}.items():
        masks = dict(zip(MASKS, (own_scale(maps), common_scale(table.cams).apply(maps)), strict=True))
        rerun = run_masked(
            extraction, loader, table.indices, known, masks=masks, maps=maps, baseline=fill, shares=grid.tolist()
        )
        masking += [{"map": name, "mask": mask} | _masking(table, performance, rerun[mask]) for mask in MASKS]
        curves += [row | {"map": name} for row in _curves(table, performance, rerun, grid)]
    places = find_regions(regions, "validation", loader.dataset)
    quality = measure_quality(extraction, loader, table, known, places, draws=noise_draws, seed=seed)
    frame = pd.DataFrame(curves)[["map", "mode", "share", "score", "performance"]]
    check = None
    if sanity_check:
        check = check_maps(
            model, loader, table, methods=(method,), task=known, batch_fn=batch_fn, forward_fn=forward_fn, seed=seed
        )
    return MapEvaluation(
        method=table.cam,
        layer=table.layer,
        task=table.task,
        baseline=str(baseline),
        samples=len(table),
        measure=performance.measure,
        full=float(performance(table.logits[None], table.predictions[None])[0]),
        masking=pd.DataFrame(masking),
        areas=_areas(frame),
        curves=frame,
        quality=quality,
        check=check,
    )


def _grid(shares: Sequence[float]) -> NDArray[np.float64]:
    inner = np.unique(np.asarray(shares, dtype=np.float64))
    if not ((inner > 0) & (inner < 1)).all():
        raise ValueError(f"shares {list(shares)}; expected numbers between 0 and 1, both left out")
    return np.concatenate(([0.0], inner, [1.0]))


def _masking(table: FeatureTable, performance: Performance, rerun: MaskedRun) -> dict[str, float]:
    before = confidence(table.logits, table.explained, table.task)
    after = confidence(rerun.logits[0], table.explained, table.task)
    is_probability = table.task in PROBABILITY
    return {
        "average_drop": average_drop(before, after) if is_probability else float("nan"),
        "average_increase": average_increase(before, after) if is_probability else float("nan"),
        "logit_increase": logit_increase(_explained(table.logits, table), _explained(rerun.logits[0], table)),
        "others_drop": others_drop(table.logits, rerun.logits[0], table.explained),
        "performance": float(performance(*rerun)[0]),
    }


def _explained(logits: NDArray[np.float32], table: FeatureTable) -> NDArray[np.float32]:
    return logits[np.arange(len(table)), table.explained]


def _curves(
    table: FeatureTable, performance: Performance, rerun: dict[str, MaskedRun], grid: NDArray[np.float64]
) -> Iterator[dict[str, Any]]:
    for mode in _AREAS:
        scores = confidence(rerun[mode].logits, table.explained, table.task).mean(1)
        measured = performance(*rerun[mode])
        for share, score, value in zip(grid, scores, measured, strict=True):
            yield {"mode": mode, "share": float(share), "score": float(score), "performance": float(value)}


def _areas(curves: pd.DataFrame) -> pd.DataFrame:
    found: dict[str, dict[str, Any]] = {}
    for (name, mode), part in curves.groupby(["map", "mode"], sort=False):
        found.setdefault(str(name), {"map": name})[str(mode)] = area(part["share"].to_numpy(), part["score"].to_numpy())
    return pd.DataFrame(list(found.values()))
