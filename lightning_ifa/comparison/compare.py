"""The comparison of runs, from their FeatureTables alone."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lightning_ifa.analysis import analyze_tables, probe_rows
from lightning_ifa.comparison.changes import changes, resample_scores
from lightning_ifa.comparison.similarity import (
    cka_matrix,
    feature_similarity,
    outlier_changes,
    probe_similarity,
    take_maps,
)
from lightning_ifa.data.feature_table import FeatureTable
from lightning_ifa.errors import DataError
from lightning_ifa.features.probes import Probes
from lightning_ifa.indicators.context import AnalysisContext, name_classes
from lightning_ifa.report.result import AnalysisResult
from lightning_ifa.statistics.intensity_scale import IntensityScale

Tables = Mapping[str, FeatureTable]
PROBES = 8


@dataclass(frozen=True, eq=False)
class Comparison:
    """How each run differs from the first one.

    Attributes:
        names: Names of the runs; the others are compared to the first.
        changes: One row a run and family, as ``comparison.changes.changes``, with ``run``.
        feature_similarity: One row a run, as ``comparison.similarity.feature_similarity``, with ``run``.
        cka: Linear CKA of the features of every pair of runs, ``(r, r)``.
        outliers: One row a run and outlier, as ``outlier_changes``, with ``run``.
        probes: One row a run and probe, as ``probe_similarity``, with ``run``.
        probe_ids: Sample ids of the probes.
        maps: Maps of the probes in each run, ``(p, *space)``; NaN where the run lacks the sample.
        scale: The first run's intensity scale, for all of ``maps``.
        notes: Remarks on how far the runs compare, plain sentences.
    """

    names: tuple[str, ...]
    changes: pd.DataFrame
    feature_similarity: pd.DataFrame
    cka: NDArray[np.float64]
    outliers: pd.DataFrame
    probes: pd.DataFrame
    probe_ids: tuple[str, ...]
    maps: tuple[NDArray[Any], ...]
    scale: IntensityScale
    notes: tuple[str, ...]


def compare_tables(
    runs: Mapping[str, Tables],
    undecided: Mapping[str, Collection[str]] | None = None,
    *,
    force: bool = False,
    seed: int = 0,
) -> Comparison:
    """Compare runs by their FeatureTables.

    Args:
        runs: Name of each run to its tables, ``"validation"`` and perhaps ``"train"``.
        undecided: Name of a run to the families that its own analysis left undecided for a reason that the tables do
            not show, such as random augmentation.
        force: Whether to compare runs on different validation data, by the samples that they share.
        seed: Seed of the resampling.

    Raises:
        DataError: There are fewer than two runs, or their validation data differ and ``force`` is not set.
    """
    if len(runs) < 2:
        raise DataError(f"{len(runs)} run to compare; at least two different ones are needed")
    first, *others = runs
    notes = [note for name in others for note in _differences(first, runs[first], name, runs[name], force)]
    undecided = undecided or {}
    reports = {name: _report(tables, seed) for name, tables in runs.items()}
    validation = {name: tables["validation"] for name, tables in runs.items()}
    probes = validation[first].take(probe_rows(validation[first], PROBES))
    draws = {name: resample_scores(report, seed) for name, report in reports.items()}
    unknown = {name: {*undecided.get(first, ()), *undecided.get(name, ())} for name in others}
    return Comparison(
        names=tuple(runs),
        changes=_join({n: changes(reports[first], reports[n], (draws[first], draws[n]), unknown[n]) for n in others}),
        feature_similarity=pd.DataFrame(
            [{"run": name} | feature_similarity(validation[first], validation[name]) for name in others]
        ),
        cka=cka_matrix(list(validation.values())),
        outliers=_join({name: outlier_changes(reports[first].samples, reports[name].samples) for name in others}),
        probes=_join({name: probe_similarity(probes, validation[name]) for name in others}),
        probe_ids=tuple(map(str, probes.sample_ids)),
        maps=tuple(take_maps(probes, table) for table in validation.values()),
        scale=reports[first].scale,
        notes=tuple(notes),
    )


def _differences(first: str, base: Tables, name: str, tables: Tables, force: bool) -> list[str]:
    a, b = base["validation"], tables["validation"]
    notes = []
    if a.digest != b.digest and _are_same_samples(a, b):
        notes.append(f"the samples of {name} are those of {first} with other pixels: changes may come from these")
    elif a.digest != b.digest:
        if not force:
            raise DataError(
                f"{first} was analysed on validation data {a.digest}, {name} on {b.digest}: their numbers do not "
                "compare; --force (force=True) compares them all the same, features and maps by the samples they share"
            )
        notes.append(f"{name} was analysed on other validation data than {first}: changes may come from the data")
    described = [(what, getattr(a, what), getattr(b, what)) for what in ("layer", "cam", "task", "gradient")]
    described.append(("splits", ", ".join(base), ", ".join(tables)))
    notes += [f"{what}: {one} in {first}, {two} in {name}" for what, one, two in described if one != two]
    return notes


def _are_same_samples(a: FeatureTable, b: FeatureTable) -> bool:
    """Whether the same labelled samples were analysed, some of them with a change of their pixels, as a planted tag.

    Ids that only count the samples are no proof, so some images must be the same to the last bit.
    """
    is_listed_alike = np.array_equal(a.sample_ids, b.sample_ids) and np.array_equal(a.targets, b.targets)
    return is_listed_alike and bool((a.fingerprints == b.fingerprints).mean() >= LEAST_SHARED)


LEAST_SHARED = 0.1
"""Share of the images that must be the same for two data sets to hold the same samples."""


def _report(tables: Tables, seed: int) -> AnalysisResult:
    table = tables["validation"]
    rows = table.take(probe_rows(table, PROBES))
    return analyze_tables(AnalysisContext(tables, name_classes(table, None), seed), Probes(rows, rows, None))


def _join(frames: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    joined = pd.concat([frame.assign(run=name) for name, frame in frames.items()], ignore_index=True)
    return joined[["run", *joined.columns.drop("run")]]
