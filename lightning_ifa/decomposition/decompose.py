"""How many features are enough, what pruning costs, and what the principal features look like."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import DataLoader

from lightning_ifa.data.batches import BatchFunction
from lightning_ifa.data.feature_table import FeatureTable
from lightning_ifa.decomposition.curves import Trial, enough, selection_curves, start_trial
from lightning_ifa.decomposition.principal import PrincipalFeatures, principal_features
from lightning_ifa.errors import DataError, OutputError
from lightning_ifa.features.extractor import FeatureExtractor
from lightning_ifa.indicators.context import importance_mask
from lightning_ifa.interventions.reduction import store_activations
from lightning_ifa.model.batch_forward import ForwardFunction
from lightning_ifa.model.head import Head, Scope
from lightning_ifa.model.outputs import ScoreFunction
from lightning_ifa.report.result import AnalysisResult
from lightning_ifa.statistics import channel_selection as selection
from lightning_ifa.statistics.channel_redundancy import channel_groups, needed_channels
from lightning_ifa.statistics.strata import bin_edges, strata

SHARES = (
    0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.125, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.9, 0.95, 1.0,
)  # fmt: skip
"""Shares of the features that are kept, by default."""

DRAWS = 10

MEMORY = 2**30
"""Bytes that stored activations and gradients may take; more samples than fit are thinned out evenly."""


@dataclass(frozen=True, eq=False)
class Decomposition:
    """The result of ``decompose``.

    Attributes:
        curves: One row a curve and share: ``curve``, ``share``, ``kept``, ``performance``, ``similarity``, and the
            5th and 95th percentile of both over draws (``performance_low``, ``..._high``, ``similarity_low``,
            ``..._high``; equal to the value where nothing is random).
        enough: One row a curve: smallest share that keeps 99 % of the performance (``performance``), and that and a
            map similarity of 0.95 (``both``); NaN where none does.
        pruning: One row a pruning tried: ``advice``, ``kept``, ``removed_share``, ``performance`` if what was
            removed is predicted linearly from what was kept, as the next layer's weights can do for good,
            ``without_refill`` if it is replaced by its mean, ``random`` for as many channels at random with refill.
        measure: Name of the measure of performance.
        full: Performance of the whole network.
        scope: What was run again: ``"pooled"``, ``"head"`` or ``"network"``; see ``Head.scope``.
        evaluated: Number of samples that performance was measured on.
        principal: ``"pca"`` and ``"nmf"`` of the contributions.
        chosen: The channels that were asked for by number, kept alone, empty if none were. One row a ``rule`` for the
            others (``"zero"``, ``"mean"``, ``"refill"``): ``kept``, ``performance``, ``similarity`` of the maps.
    """

    curves: pd.DataFrame
    enough: pd.DataFrame
    pruning: pd.DataFrame
    measure: str
    full: float
    scope: Scope
    evaluated: int
    principal: dict[str, PrincipalFeatures]
    chosen: pd.DataFrame


def decompose(
    model: nn.Module,
    loader: DataLoader[Any],
    report: AnalysisResult,
    *,
    task: str | ScoreFunction | None = None,
    batch_fn: BatchFunction | None = None,
    forward_fn: ForwardFunction | None = None,
    shares: Sequence[float] = SHARES,
    modes: Sequence[str] = ("difference", "reverse"),
    draws: int = DRAWS,
    components: int = 8,
    channels: Sequence[int] = (),
    seed: int = 0,
) -> Decomposition:
    """Find out how many features are enough, what pruning costs, and what the principal features look like.

    Rankings and refills come from the training split where the report has one; otherwise, and for refills of a head
    that sees positions, from every other validation sample, and the rest is evaluated.

    Args:
        model: The network that the report was made from; stays as it is.
        loader: The report's validation loader.
        report: The report, which names the layer, the samples and the classes.
        task: The task function, if the report was made with one.
        batch_fn: Function that takes a batch apart, as given to ``analyze``.
        forward_fn: Function that calls a network which is not called as ``model(x)``, as given to ``analyze``.
        shares: Shares of the features that are kept, rising, in (0, 1].
        modes: Rankings to try besides the random control; see ``statistics.importance.MODES``.
        draws: Number of draws of the random control.
        components: Number of principal features.
        channels: Numbers of channels to keep alone, as those of a finding.
        seed: Seed of every random draw.

    Raises:
        OutputError: The report was made with a task function, and it is not given; or ``forward_fn`` gives the network
            other inputs that its output depends on beside the layer.
        DataError: Model and loader are not the report's, or no sample is classified correctly.
        ValueError: The layer has no such channel.

    Example:
        >>> found = decompose(model, val_loader, report, draws=2)
        >>> found.scope, sorted(found.principal)
        ('pooled', ['nmf', 'pca'])
    """
    table, train = report.tables["validation"], report.tables.get("train")
    if table.task == "custom" and task is None:
        raise OutputError("the report was made with a task function; pass it as task=")
    extraction = FeatureExtractor(
        model,
        table.layer,
        task or table.task,
        batch_fn=batch_fn,
        seed=seed,
        forward_fn=forward_fn,
        gradient=table.gradient,
    )
    wanted = _require_channels(channels, table.contributions.shape[1])
    table = table.take(_rows_that_fit(table))
    ranked = train or table.take(np.arange(0, len(table), 2))
    if not importance_mask(ranked).any():
        raise DataError("no sample is classified correctly, so no feature can be ranked by class")
    with extraction.session():
        stored = store_activations(extraction, loader, table)
        probes = store_activations(extraction, loader, report.probes.table)
        with extraction.calling(loader, table.indices[:8]) as few, Head(model, stored.layer, few) as head:
            if forward_fn is not None and head.scope == "network":
                raise OutputError(
                    f'the network\'s output depends on its other inputs beside layer "{table.layer}", and they are not '
                    "known for changed activations; decompose at a layer behind the point where the inputs are joined"
                )
            trial = start_trial(head, stored, table, train)
            curves = selection_curves(
                trial, ranked, importance_mask(ranked), np.sort(np.asarray(shares, dtype=float)), modes, draws, seed
            )
            pruning = _pruning(trial, ranked, seed)
            chosen = _keep_chosen(trial, wanted)
    return Decomposition(
        curves=curves,
        enough=enough(curves, trial.full),
        pruning=pruning,
        measure=trial.perform.measure,
        full=trial.full,
        scope=head.scope,
        evaluated=len(trial.stored.A),
        principal=principal_features(table, stored, probes, report.probes.images is not None, components, seed),
        chosen=chosen,
    )


def _pruning(trial: Trial, ranked: FeatureTable, seed: int) -> pd.DataFrame:
    """Try what the redundancy numbers advise, and as a control as many channels at random."""
    channels = len(trial.fit.mean)
    labels = strata(ranked.targets, bin_edges(ranked.targets))
    strict = needed_channels(ranked.activations, labels).kept
    groups, _ = channel_groups(ranked.activations)
    merged = np.sort(np.array([np.flatnonzero(groups == g)[0] for g in np.unique(groups[groups >= 0])], dtype=int))
    rng = np.random.default_rng(seed)
    rows = []
    for advice, kept in (("needed channels", strict), ("one a group of correlation 0.9", merged)):
        if not len(kept):
            continue
        chance = [np.sort(rng.choice(channels, len(kept), replace=False)) for _ in range(DRAWS)]
        tried = trial.refill([selection.channel_refill(trial.fit, one) for one in (kept, *chance)])[0]
        dropped = trial.mask(np.isin(np.arange(channels), kept)[None], "mean")[0]
        rows.append(
            {
                "advice": advice,
                "kept": len(kept),
                "removed_share": 1 - len(kept) / channels,
                "performance": tried[0],
                "without_refill": dropped[0],
                "random": tried[1:].mean(),
            }
        )
    return pd.DataFrame(rows)


def _require_channels(channels: Sequence[int], count: int) -> NDArray[np.int64]:
    wanted = np.unique(np.asarray(channels, dtype=np.int64))
    if len(wanted) and not 0 <= wanted[0] <= wanted[-1] < count:
        raise ValueError(f"channels={list(channels)}; the layer's channels are 0 to {count - 1}")
    return wanted


def _keep_chosen(trial: Trial, wanted: NDArray[np.int64]) -> pd.DataFrame:
    """Keep the channels of the user's choice, with the others treated in each way."""
    if not len(wanted):
        return pd.DataFrame(columns=["rule", "kept", "performance", "similarity"])
    mask = np.isin(np.arange(len(trial.fit.mean)), wanted)[None]
    measured = {rule: trial.mask(mask, rule) for rule in ("zero", "mean")}
    measured["refill"] = trial.refill([selection.channel_refill(trial.fit, wanted)])
    return pd.DataFrame(
        [
            {"rule": rule, "kept": len(wanted), "performance": float(found[0]), "similarity": float(alike[0])}
            for rule, (found, alike) in measured.items()
        ]
    )


def _rows_that_fit(table: FeatureTable) -> NDArray[np.int64]:
    """Choose rows, evenly spread, whose activations and gradients fit into memory."""
    a_sample = 8 * table.contributions.shape[1] * int(np.prod(table.cams.shape[1:]))
    count = max(min(len(table), MEMORY // a_sample), min(len(table), 4))
    return np.unique(np.linspace(0, len(table) - 1, count).astype(np.int64))
