"""The search for confounders: every metadata column, image property, swapped part and region is tested."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lightning_ifa.data.feature_table import FeatureTable
from lightning_ifa.data.image_properties import BACKGROUND, has_background
from lightning_ifa.indicators.context import AnalysisContext
from lightning_ifa.indicators.hidden_search import HiddenSearch
from lightning_ifa.interventions.appearance_swaps import PROPERTIES
from lightning_ifa.statistics.confounder_candidates import (
    ConfounderCandidate,
    TrainingRows,
    find_candidates,
    rank_candidates,
    swap_candidates,
)
from lightning_ifa.statistics.metadata_columns import GROUP, read_groups

if TYPE_CHECKING:
    from lightning_ifa.interventions.swaps import Swaps

SEVERAL = "with several labels at once a value may go with another label: only swaps and regions can tell"


def find_all_candidates(context: AnalysisContext, hidden: HiddenSearch) -> list[ConfounderCandidate]:
    """Test what is known of the validation samples, was swapped between them, or was recovered; strongest first."""
    table, labels = context.validation, context.strata["validation"]
    if table.task == "custom":
        return []
    known = labels >= 0
    groups = _number_groups(context.tables)
    candidates = _test_columns(context, known, groups)
    # how much there is to see may well be the target, or how many labels there are
    listed = () if table.has_one_label else PROPERTIES
    for origin, found in (("swap", context.swaps), ("region", context.region_swaps)):
        if found is not None:
            source_groups = _groups_of(found.sources, table, groups.get("validation"))
            candidates += _test_swaps(found, origin, listed, source_groups)
    candidates += hidden.candidates(groups["validation"][hidden.rows] if "validation" in groups else None)
    if GROUP in table.metadata:
        count = table.metadata[GROUP][known].nunique()
        note = f"not tested: says which samples belong together ({count} groups)"
        candidates.append(ConfounderCandidate(GROUP, "metadata", note=note))
    return rank_candidates(candidates)


def _test_columns(
    context: AnalysisContext, known: NDArray[np.bool_], groups: Mapping[str, NDArray[np.int64]]
) -> list[ConfounderCandidate]:
    """Test metadata and image properties of the labelled validation rows."""
    table, labels = context.validation, context.strata["validation"]
    judged = context.swaps is not None or has_background(table.properties)
    background = [name for name in table.properties if judged and str(name).startswith(BACKGROUND)]
    sources = {
        "metadata": table.metadata[known].drop(columns=GROUP, errors="ignore"),
        "background": table.properties[background][known],
        "content": table.properties.drop(columns=background)[known],
    }
    if table.task == "multilabel":
        return [
            ConfounderCandidate(str(name), origin, note=SEVERAL) for origin, frame in sources.items() for name in frame
        ]
    logits, targets = table.logits[known], table.targets[known] if table.task == "regression" else None
    if table.has_one_object:  # bins of its size are no classes with logits of their own
        logits, targets = logits[:, 1:] - logits[:, :1], table.object_size[known]
    own = groups["validation"][known] if "validation" in groups else None
    return find_candidates(logits, labels[known], sources, targets, _training_rows(context, groups), own)


def _test_swaps(
    found: Swaps, origin: str, listed: Sequence[str], source_groups: NDArray[np.int64] | None
) -> list[ConfounderCandidate]:
    """Test what was swapped; what is only listed counts as content."""
    candidates = swap_candidates(
        found.logits, found.swapped, found.source_logits, found.labels, found.source_labels, origin, source_groups
    )
    return [replace(c, origin="content") if c.source in listed else c for c in candidates]


def _number_groups(tables: Mapping[str, FeatureTable]) -> dict[str, NDArray[np.int64]]:
    """Number the groups of each split that has them; nothing where no two samples belong together."""
    columns = {split: table.metadata[GROUP] for split, table in tables.items() if GROUP in table.metadata}
    numbered = read_groups(*columns.values()) if columns else None
    return dict(zip(columns, numbered, strict=True)) if numbered else {}


def _groups_of(
    indices: NDArray[np.int64] | None, table: FeatureTable, units: NDArray[np.int64] | None
) -> NDArray[np.int64] | None:
    if indices is None or units is None:
        return None
    order = np.argsort(table.indices)
    return np.asarray(units[order[np.searchsorted(table.indices, indices, sorter=order)]])


def _training_rows(context: AnalysisContext, groups: Mapping[str, NDArray[np.int64]]) -> TrainingRows | None:
    if "train" not in context.tables:
        return None
    table, labels = context.tables["train"], context.strata["train"]
    known = labels >= 0
    own = groups["train"][known] if "train" in groups else None
    return TrainingRows(table.logits[known], labels[known], table.metadata[known], own)
