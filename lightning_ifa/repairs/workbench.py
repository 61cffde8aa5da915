"""What a repair works with: features of both splits in groups, divided into those that fit, choose and report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from lightning_ifa.data.column_types import settle_types
from lightning_ifa.data.feature_table import FeatureTable
from lightning_ifa.data.metadata import metadata_rows, own_metadata
from lightning_ifa.data.sampling import draw_from, reach_of
from lightning_ifa.errors import DataError
from lightning_ifa.features.extractor import FeatureExtractor
from lightning_ifa.model.weights_digest import digest_module
from lightning_ifa.repairs.head_features import HeadFeatures, head_features, last_linear, read_head
from lightning_ifa.repairs.suspects import SuspectColumn, choose_suspect, hidden_column, metadata_column
from lightning_ifa.report.prevention import doubt_training_labels
from lightning_ifa.report.result import AnalysisResult
from lightning_ifa.statistics.head_repair import GroupedSamples, conflicting, deal
from lightning_ifa.statistics.linear_head import LinearHead
from lightning_ifa.statistics.metadata_columns import GROUP

Source = tuple[FeatureExtractor, DataLoader[Any]]
"""How a split's features are taken, and from which loader."""

LEAST_FITTED = 20


@dataclass(frozen=True, eq=False)
class Workbench:
    """All that the ways of repair are tried on.

    Attributes:
        layer: Name of the last linear layer.
        head: That layer as trained.
        has_bias: Whether it has a bias.
        suspect: Name of the suspect.
        levels: Name of each of its levels.
        class_names: Name of each class.
        fitted: Training samples, which every repair is fitted to.
        chosen: One half of the validation samples, by which the repair is chosen.
        reported: The other half, which nothing but the final figures is taken from.
        seed: Seed of every random draw.
    """

    layer: str
    head: LinearHead
    has_bias: bool
    suspect: str
    levels: list[str]
    class_names: tuple[str, ...]
    fitted: GroupedSamples
    chosen: GroupedSamples
    reported: GroupedSamples
    seed: int


def prepare_workbench(
    sources: Mapping[str, Source],
    report: AnalysisResult,
    suspect: str | None = None,
    metadata: Mapping[str, pd.DataFrame] | None = None,
    max_samples: int = 4096,
    seed: int = 0,
) -> Workbench:
    """Take features from the network and put the samples in groups; two or, for a hidden suspect, four forward passes.

    Args:
        sources: ``"train"`` and ``"validation"`` to how features are taken, and from which loader.
        report: The analysis of these weights and this validation data.
        suspect: Name of the suspect, or None for the strongest that has a column.
        metadata: Split to what is known of its data set's samples, indexed by data-set index.
        max_samples: The largest number of training samples.
        seed: Seed of every random draw.

    Raises:
        IFAError: Network, data or suspect do not allow a repair; the message says what would.
    """
    validation, (extraction, _) = report.tables["validation"], sources["validation"]
    if report.weights and report.weights != digest_module(extraction.model):
        raise DataError("the report speaks of other weights than the network has; analyse it again, and repair then")
    name, origin = choose_suspect(report, suspect)
    frames = {split: _known_metadata(split, sources[split][1], report, metadata or {}) for split in sources}
    reach = reach_of(sources["train"][1], "train").indices
    if origin != "hidden":
        reach = np.intersect1d(reach, frames["train"].index)
    indices = {"validation": validation.indices, "train": draw_from(reach, max_samples, seed)}
    layer = last_linear(*sources["validation"], validation.indices)
    found = {split: head_features(*sources[split], indices[split], layer) for split in ("train", "validation")}
    _require_same_samples(found["validation"], validation)
    if origin == "hidden":
        ways = {split: replace(one, search=True, layer=validation.layer) for split, (one, _) in sources.items()}
        tables = {split: ways[split](sources[split][1], found[split].indices) for split in found}
        column = hidden_column(name, report, tables)
    else:
        column = metadata_column(name, {split: frames[split].loc[found[split].indices] for split in found})
    units = _units(frames["validation"], found["validation"].indices)
    trust = {"train": 1 - doubt_training_labels(report, found["train"].indices)}
    groups = {split: _group(found[split], column, split, trust.get(split), units if split == "validation" else None)
              for split in found}  # fmt: skip
    half = deal(groups["validation"].groups, groups["validation"].units, 2, seed)
    head = read_head(extraction.model, layer)
    _require_enough(groups["train"], groups["validation"], name)
    return Workbench(
        layer,
        head,
        getattr(extraction.model.get_submodule(layer), "bias", None) is not None,
        name,
        column.names,
        _name_classes(report, len(head.bias)),
        groups["train"],
        groups["validation"].take(half == 0),
        groups["validation"].take(half == 1),
        seed,
    )


def _known_metadata(
    split: str, loader: DataLoader[Any], report: AnalysisResult, given: Mapping[str, pd.DataFrame]
) -> pd.DataFrame:
    """Give what is known of a split's samples, by data-set index: by the user, the data set, or the report's rows."""
    frame = given.get(split)
    if frame is None:
        own = own_metadata(loader.dataset)
        frame = None if own is None else settle_types(own, split)
    if frame is not None:
        return metadata_rows(frame, frame.index.to_numpy(), len(loader.dataset), split).set_axis(frame.index)  # type: ignore[arg-type]
    table = report.tables.get(split)
    return pd.DataFrame() if table is None else table.metadata.set_axis(table.indices)


def _require_same_samples(found: HeadFeatures, table: FeatureTable) -> None:
    if not np.array_equal(found.indices, table.indices) or not np.array_equal(found.fingerprints, table.fingerprints):
        raise DataError("the validation loader gives other samples than those of the report; pass the report's own")


def _units(frame: pd.DataFrame, indices: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number what belongs together, as one patient's samples."""
    if GROUP not in frame:
        return np.arange(len(indices))
    codes = pd.factorize(frame.loc[indices, GROUP])[0].astype(np.int64)
    return np.where(codes < 0, codes.max(initial=0) + 1 + np.arange(len(codes)), codes)


def _group(
    found: HeadFeatures,
    column: SuspectColumn,
    split: str,
    trust: NDArray[np.float64] | None,
    units: NDArray[np.int64] | None,
) -> GroupedSamples:
    known = (found.labels >= 0) & (column.levels[split] >= 0)
    samples = GroupedSamples(
        found.features, found.labels, column.levels[split], column.values[split],
        np.ones(len(known)) if trust is None else trust, np.arange(len(known)) if units is None else units,
    ).take(known)  # fmt: skip
    # the network doubts labels that the suspect speaks against because of the suspect
    return samples._replace(trust=np.where(conflicting(samples), 1.0, samples.trust))


def _require_enough(train: GroupedSamples, validation: GroupedSamples, name: str) -> None:
    for split, samples in (("training", train), ("validation", validation)):
        if len(samples.labels) < LEAST_FITTED or len(np.unique(samples.labels)) < 2:
            raise DataError(
                f"{len(samples.labels)} labelled {split} samples have a value of {name!r}; too few to repair with"
            )
        against = int(conflicting(samples).sum())
        if against < 4:
            raise DataError(
                f"{against} {split} samples speak against the pattern of {name!r}: without some, nobody can tell class "
                "and suspect apart. Collect or make such samples (mask the suspect, paint it on others)"
            )


def _name_classes(report: AnalysisResult, count: int) -> tuple[str, ...]:
    names = tuple(report.class_names)
    return names if len(names) == count else tuple(map(str, range(count)))
