"""Selection curves: accuracy and maps as functions of the share of the features that is kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lightning_ifa.data.feature_table import FeatureTable
from lightning_ifa.decomposition.reduced_maps import ReducedMaps
from lightning_ifa.interventions.reduction import (
    Reduction,
    StoredActivations,
    head_input,
    keep_channels,
    keep_components,
    mix_channels,
    run_reduced,
)
from lightning_ifa.model.head import Head
from lightning_ifa.statistics import channel_selection as selection
from lightning_ifa.statistics.channel_selection import Moments, Refill
from lightning_ifa.statistics.importance import order, preference
from lightning_ifa.statistics.performance import Performance

PICTURED = 128
"""Samples whose maps are compared; performance is measured on all."""

Measured = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Performance and mean map similarity, each ``(r,)``."""


@dataclass(frozen=True, eq=False)
class Trial:
    """What every reduction is measured with.

    Attributes:
        head: The head, entered.
        stored: The samples to measure on.
        table: The same samples' features.
        fit: Moments of other samples, to which refills are fitted.
        maps: Comparison of the maps of a few of the samples.
        few: Rows of these few.
        perform: The measure of performance.
        full: Performance of the full network.
    """

    head: Head
    stored: StoredActivations
    table: FeatureTable
    fit: Moments
    maps: ReducedMaps
    few: slice
    perform: Performance
    full: float

    def performance(self, reduce: Reduction) -> NDArray[np.float64]:
        """Performance of each version of the network, ``(r,)``."""
        return self.perform(*run_reduced(self.head, self.stored, reduce))

    def refill(self, refills: Sequence[Refill]) -> Measured:
        """Measure refills."""
        reduce = mix_channels([one.into @ one.out for one in refills], [one.offset for one in refills])
        return self.performance(reduce), self.maps.refill_similarity(refills).mean(1)

    def mask(self, masks: NDArray[np.bool_], rule: str) -> Measured:
        """Measure masks ``(r, c)``, the same for every class."""
        fill = selection.fill_value(self.fit, rule)
        return self.performance(keep_channels(masks, fill)), self.maps.mask_similarity(masks, fill).mean(1)


def start_trial(head: Head, stored: StoredActivations, table: FeatureTable, train: FeatureTable | None) -> Trial:
    """Choose what refills are fitted to: the training split's means where they suffice, else every other sample."""
    if head.scope == "pooled" and train is not None:
        fit, rows = selection.moments(train.activations), slice(0, None)
    else:
        seen, _ = head_input(head, stored.take(slice(0, None, 2)))
        fit, rows = selection.moments(seen.movedim(1, 2).flatten(0, 1).numpy()), slice(1, None, 2)
    stored, table = stored.take(rows), table.take(np.arange(len(table))[rows])
    channels = stored.A.shape[1]
    logits, predictions = run_reduced(
        head, stored, keep_channels(np.ones((1, channels), dtype=bool), np.zeros(channels))
    )
    perform = Performance(table.task, table.targets, logits[0], predictions[0])
    few = slice(None, None, -(-len(stored.A) // PICTURED))
    full = float(perform(logits, predictions)[0])
    return Trial(head, stored, table, fit, ReducedMaps(stored.A[few], stored.G[few]), few, perform, full)


def selection_curves(
    trial: Trial,
    ranked: FeatureTable,
    included: NDArray[np.bool_],
    shares: NDArray[np.float64],
    modes: Sequence[str],
    draws: int,
    seed: int,
) -> pd.DataFrame:
    """Measure every curve; see ``Decomposition.curves``.

    Args:
        trial: The samples and the measures.
        ranked: Features of the samples that rank the channels.
        included: Mask of the samples that count for that, ``(n,)``.
        shares: Shares to keep, rising, ``(r,)``.
        modes: Rankings beside the random control.
        draws: Number of draws of the control.
        seed: Seed of the draws.
    """
    counts = selection.kept_counts(shares, len(trial.fit.mean))

    def prefer(mode: str, draw: int = 0) -> NDArray[np.float64]:
        return preference(mode, ranked.contributions, ranked.explained, included, seed + draw)

    frames = []

    def add(name: str, *measured: Measured) -> None:
        frames.append(_frame(name, shares, counts, measured))

    for mode in modes:
        taken = order(prefer(mode))
        for rule in ("zero", "mean"):
            add(f"channels, {mode}, {rule}", trial.mask(channel_masks(taken, counts), rule))
        add(f"channels, {mode}, refill", trial.refill(_refills(trial.fit, taken, counts)))
    draws_taken = [order(prefer("random", draw)) for draw in range(draws)]
    for rule in ("zero", "mean"):
        add(f"channels, random, {rule}", *(trial.mask(channel_masks(taken, counts), rule) for taken in draws_taken))
    add("channels, random, refill", *(trial.refill(_refills(trial.fit, taken, counts)) for taken in draws_taken))
    add("channels, pivoted, refill", trial.refill(_refills(trial.fit, selection.pivoted_order(trial.fit), counts)))
    add("channels, greedy, refill", trial.refill(_refills(trial.fit, selection.greedy_order(trial.fit), counts)))
    add("components, joint, mean", component_curve(trial, counts))
    for mode in modes:
        add(f"channels per class, {mode}, zero", _per_class(trial, prefer(mode), ranked, included, counts))
    chance = range(draws if trial.head.scope == "pooled" else 1)  # the head runs once a class here
    per_class = [_per_class(trial, prefer("random", draw), ranked, included, counts) for draw in chance]
    add("channels per class, random, zero", *per_class)
    return pd.concat(frames, ignore_index=True)


def enough(curves: pd.DataFrame, full: float) -> pd.DataFrame:
    """Read the smallest sufficient shares off every curve; see ``Decomposition.enough``."""
    rows = {}
    for name, part in curves.groupby("curve", sort=False):
        share, performance, similar = (part[column].to_numpy() for column in ("share", "performance", "similarity"))
        rows[name] = selection.enough(share, performance, similar, full)
    return pd.DataFrame(rows, index=pd.Index(["performance", "both"])).T.rename_axis("curve")


def component_curve(trial: Trial, counts: NDArray[np.int64]) -> Measured:
    """Measure the network on its first principal components alone, for rising counts."""
    axes = selection.principal_axes(trial.fit)
    kept = counts.tolist()
    similar = trial.maps.component_similarity(trial.fit.mean, axes, kept).mean(1)
    return trial.performance(keep_components(trial.fit.mean, axes, kept)), similar


def _per_class(
    trial: Trial,
    wanted: NDArray[np.float64],
    ranked: FeatureTable,
    included: NDArray[np.bool_],
    counts: NDArray[np.int64],
) -> Measured:
    """Each class keeps its own channels.

    The logit of each class is computed with that class's channels, and the largest wins: masking a sample by its
    own label's channels would tell the network the answer. Maps are those of the explained class.
    """
    classes = trial.table.logits.shape[1]
    row_of = {int(name): row for row, name in enumerate(np.unique(ranked.explained[included]))}
    masks = np.stack([channel_masks(order(wanted, row_of.get(k)), counts) for k in range(classes)], axis=1)  # (r, k, c)
    fill = np.zeros(masks.shape[2])
    own = trial.table.explained[trial.few]
    similar = trial.maps.mask_similarity(masks[:, own], fill).mean(1)
    versions = masks.reshape(-1, masks.shape[2])
    logits, predictions = run_reduced(trial.head, trial.stored, keep_channels(versions, fill))
    logits = logits.reshape(len(counts), classes, len(trial.stored.A), classes)
    own_logit = np.stack([logits[:, k, :, k] for k in range(classes)], axis=2)
    if classes > 1:
        return trial.perform(own_logit, own_logit.argmax(2)), similar
    return trial.perform(own_logit, predictions), similar


def channel_masks(taken: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Build masks ``(r, c)`` that keep the first channels of an order, one a count."""
    rank = np.empty_like(taken)
    rank[taken] = np.arange(len(taken))
    return rank[None, :] < counts[:, None]


def _refills(fit: Moments, taken: NDArray[np.int64], counts: NDArray[np.int64]) -> list[Refill]:
    return [selection.channel_refill(fit, taken[:count]) for count in counts]


def _frame(
    name: str, shares: NDArray[np.float64], counts: NDArray[np.int64], measured: Sequence[Measured]
) -> pd.DataFrame:
    columns: dict[str, object] = {"curve": name, "share": shares, "kept": counts}
    for what, values in zip(("performance", "similarity"), zip(*measured, strict=True), strict=True):
        stacked = np.stack(values)
        columns |= {
            what: stacked.mean(0),
            f"{what}_low": np.quantile(stacked, 0.05, axis=0),
            f"{what}_high": np.quantile(stacked, 0.95, axis=0),
        }
    return pd.DataFrame(columns)
