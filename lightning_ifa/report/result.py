"""What an analysis found, as data: findings, tables, maps; stored and read again without pickle."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lightning_ifa.data.feature_table import FeatureTable
from lightning_ifa.data.untrusted_files import file_errors, read_arrays, read_json, read_table
from lightning_ifa.data.volume_grid import VolumeGrid
from lightning_ifa.errors import DataError
from lightning_ifa.features.channel_maps import ChannelMaps
from lightning_ifa.features.probes import Probes
from lightning_ifa.indicators import registry
from lightning_ifa.indicators.base import Explanation, Finding, Null
from lightning_ifa.indicators.context import AnalysisContext, TrendPoint
from lightning_ifa.indicators.outliers import label_margins, read_logits
from lightning_ifa.indicators.sample_table import sort_outliers
from lightning_ifa.indicators.slice_table import list_slices, slice_metrics
from lightning_ifa.options import SPLITS
from lightning_ifa.report.objects import list_objects, object_metrics
from lightning_ifa.statistics.importance import Importance
from lightning_ifa.statistics.intensity_scale import IntensityScale
from lightning_ifa.statistics.subgroups import COLUMNS as SUBGROUP_COLUMNS
from lightning_ifa.statistics.subgroups import Outcome, SplitOutcome, list_subgroups, subgroup_metrics

log = logging.getLogger(__name__)

Result = TypeVar("Result", bound="AnalysisResult")


@dataclass(frozen=True, eq=False)
class AnalysisResult:
    """The result of an analysis.

    Attributes:
        findings: Family name to its finding; families that need a training split are left out without one.
        importance: Importance matrix and its difference.
        tables: ``"validation"``, and ``"train"`` if there was one.
        scale: The common intensity scale.
        probes: The pictured samples.
        class_names: One a class; for regression the name of the output.
        warnings: What had to be left out, and why.
        trend: Family to its ``(epoch, score, z)`` at every analysis of this training; empty outside of a training.
        gallery: Split and row number to the input of samples that the report speaks of, reduced to a picture; empty
            if no pixel may be kept. See ``features.gallery``.
        channel_maps: What a few channels see on the samples that drive them.
        weights: Digest of the parameters and buffers that were analysed; empty if they have none.
    """

    findings: Mapping[str, Finding]
    importance: Importance
    tables: Mapping[str, FeatureTable]
    scale: IntensityScale
    probes: Probes
    class_names: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    trend: Mapping[str, Sequence[TrendPoint]] = field(default_factory=dict)
    gallery: Mapping[tuple[str, int], NDArray[np.float32]] = field(default_factory=dict)
    weights: str = ""
    channel_maps: ChannelMaps = field(default_factory=ChannelMaps)

    @property
    def metrics(self) -> dict[str, float]:
        """The numbers exactly as they are logged: ``ifa/<family>/<name>`` and ``ifa/health/<family>``."""
        found: dict[str, float] = {}
        for family, finding in self.findings.items():
            found[f"ifa/{family}/score"] = finding.score
            found[f"ifa/{family}/z"] = finding.z
            found |= {f"ifa/{family}/{name}": value for name, value in finding.details.items()}
            if np.isfinite(finding.detectable):
                found[f"ifa/{family}/detectable"] = finding.detectable
            found[f"ifa/health/{family}"] = finding.health
            trend = registry.indicator_of(family).trend_metrics(self.trend.get(family, ()))
            found |= {f"ifa/{family}/{name}": value for name, value in trend.items()}
        found |= {
            f"ifa/segmentation/{name}": value for name, value in object_metrics(self.tables["validation"]).items()
        }
        found |= {f"ifa/subgroups/{name}": value for name, value in self._subgroup_metrics.items()}
        found |= {f"ifa/slices/{name}": value for name, value in self._slice_metrics.items()}
        return {key: float(value) for key, value in found.items()}

    @cached_property
    def subgroups(self) -> pd.DataFrame:
        """How well the network does in each group of each metadata column; see ``statistics.subgroups``.

        Empty without metadata, and for tasks in which classes do not compete.
        """
        splits = self._split_outcomes
        return list_subgroups(*splits) if splits else pd.DataFrame(columns=SUBGROUP_COLUMNS)

    @cached_property
    def _subgroup_metrics(self) -> dict[str, float]:
        splits = self._split_outcomes
        try:
            return subgroup_metrics(*splits) if splits else {}
        except Exception:  # whatever stands in the user's columns: the families' numbers are there without these
            log.warning("performance by group of the metadata could not be measured", exc_info=True)
            return {}

    @cached_property
    def slices(self) -> pd.DataFrame:
        """Groups of validation samples that nobody named and that err too often, the worst first.

        Columns ``slice`` (number), ``size``, ``accuracy`` with its 95 % interval ``low`` to ``high`` (Wilson; they were
        chosen for their errors, so fresh samples will do somewhat better), ``expected`` (accuracy of all samples taken
        for the same classes), ``p`` (allows for all slices looked at), ``mistakes`` and ``words`` (what is taken for
        what, and what tells these samples from the others), ``channels`` (that respond otherwise in them), ``samples``
        (their ids, misclassified ones first). Empty where chance explains the worst, and for tasks in which classes do
        not compete; see ``statistics.slices``.
        """
        return list_slices(self.tables["validation"], self.class_names)

    @cached_property
    def _slice_metrics(self) -> dict[str, float]:
        try:
            return slice_metrics(self.tables["validation"], self.slices)
        except Exception:  # a search beside the families, whose numbers are there without it
            log.warning("slices could not be searched", exc_info=True)
            return {}

    @property
    def _split_outcomes(self) -> tuple[SplitOutcome, SplitOutcome | None] | None:
        """What the network makes of both splits' samples, validation first; None where groups cannot be compared."""
        validation, train = self.tables["validation"], self.tables.get("train")
        if not validation.has_one_label or not len(validation.metadata.columns):
            return None
        return _outcome_of(validation), None if train is None else _outcome_of(train)

    @cached_property
    def context(self) -> AnalysisContext:
        """What indicators need to speak of their findings afterwards."""
        return AnalysisContext(self.tables, self.class_names, trend=self.trend)

    @property
    def missing(self) -> dict[str, str]:
        """Families that could not be assessed at all, and what they lack."""
        return {
            indicator.name: reason for indicator in registry.INDICATORS if (reason := indicator.missing(self.context))
        }

    @property
    def samples(self) -> pd.DataFrame:
        """One row a sample of every split.

        Columns ``sample_id``, ``split``, ``score`` (outlier: robust z of the distance to its class), ``label_score``
        (probability that the label is wrong), ``suggested_label`` (-1: none), ``kind`` (empty: no outlier), ``target``,
        ``prediction``, ``evidence`` (for the truth), ``duplicate_of`` (training sample that it is a copy of),
        ``outside`` (share of the map outside the region where the evidence should lie; NaN where none is known).
        """
        return self.table("samples")

    @property
    def outliers(self) -> pd.DataFrame:
        """The suspicious samples, most suspicious first, with the columns of ``samples``."""
        found = self.samples[self.samples["kind"] != ""]
        return sort_outliers(found).reset_index(drop=True)

    @property
    def confounders(self) -> pd.DataFrame:
        """One row a confounder candidate, strongest first.

        Columns ``source``, ``origin``, ``score`` (reliance), ``z``, ``features`` (list of channels), ``worst_class``,
        ``worst_score``, ``association``, ``accuracy_aligned``, ``accuracy_conflicting``, ``conflicting`` (how many),
        ``highest`` and ``lowest`` (lists of samples; of a text column those of its two most frequent values), ``note``.
        """
        return self.table("confounders")

    @property
    def hidden(self) -> pd.DataFrame:
        """One row a labelled validation sample of each hidden variable: what nobody named, recovered as a column.

        Columns ``sample_id``, ``variable`` (its name in ``confounders``), ``value`` (position along the direction that
        parts the two groups) and ``group`` (``"upper"`` or ``"lower"``).
        """
        return self.table("hidden")

    @property
    def objects(self) -> pd.DataFrame:
        """One row a validation sample of a segmentation, the worst first; empty for other tasks.

        Columns ``sample_id``, ``dice``, ``size`` (share of the labelled object), ``outcome``: ``"found"``, ``"missed"``
        (an object is labelled, none is predicted), ``"false positive"`` (the reverse), ``"empty"`` (neither).
        """
        return list_objects(self.tables["validation"])

    def table(self, name: str) -> pd.DataFrame:
        """Give a table that an indicator made, or makes on first use.

        Raises:
            KeyError: No indicator has such a table.
        """
        for finding in self.findings.values():
            if name in finding.tables:
                return finding.tables[name]
        if name not in self._derived:
            makers = {key: make for found in registry.INDICATORS for key, make in found.derived.items()}
            self._derived[name] = makers[name](self.context)
        return self._derived[name]

    @cached_property
    def _derived(self) -> dict[str, pd.DataFrame]:
        return {}

    def explain(self, family: str) -> Explanation:
        """Say in words what a family found that alarms, or why it cannot be told."""
        return registry.indicator_of(family).explain(self.findings[family], self.context)

    def null(self, family: str) -> Null | None:
        """Give the distribution of a family's score without the fault; None where there is none, or no verdict."""
        finding = self.findings[family]
        return None if finding.undecided else registry.indicator_of(family).null(finding, self.context)

    @property
    def alarms(self) -> list[str]:
        """Families whose fault was found."""
        return [family for family, finding in self.findings.items() if finding.alarm]

    @property
    def digest(self) -> str:
        """Tells the analysed validation data from any other, twelve hexadecimal digits."""
        return self.tables["validation"].digest

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write everything to a folder, without pickled objects; ``load`` gives it back."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for split, table in self.tables.items():
            table.save(folder / f"{split}.npz")
        self.probes.table.save(folder / "probes.npz")
        self.probes.predicted.save(folder / "probes_predicted.npz")
        arrays = {f"importance_{name}": getattr(self.importance, name) for name in _IMPORTANCE}
        if self.probes.images is not None:
            arrays["images"] = self.probes.images
        arrays |= {f"gallery/{split}/{row}": image for (split, row), image in self.gallery.items()}
        for (channel, row), values in self.channel_maps.maps.items():
            arrays[f"channel/{channel}/{row}"] = values
        np.savez_compressed(folder / "arrays.npz", **arrays)
        for finding in self.findings.values():
            for name, frame in finding.tables.items():
                frame.to_parquet(folder / f"{name}.parquet")
        content = {
            "findings": {family: _finding_content(finding) for family, finding in self.findings.items()},
            "scale": self.scale.to_dict(),
            "class_names": self.class_names,
            "warnings": self.warnings,
            "trend": self.trend,
            "splits": list(self.tables),
            "weights": self.weights,
            "grids": _grid_content(self.probes.grids),
            "receptive_field": self.channel_maps.receptive_field,
        }
        partial = folder / "report.json.part"
        partial.write_text(json.dumps(content, indent=1), encoding="utf-8")
        partial.replace(folder / "report.json")  # last: a folder with report.json is complete

    @classmethod
    def load(cls: type[Result], folder: str | os.PathLike[str]) -> Result:
        """Read what ``save`` wrote.

        Raises:
            FileError: The folder holds no complete report.
        """
        folder = Path(folder)
        with file_errors(folder, "a complete feature report"):
            content: dict[str, Any] = read_json(folder / "report.json")
            arrays = read_arrays(folder / "arrays.npz")
            if "validation" not in content["splits"]:
                raise DataError("it has no validation split")
            findings = {_family(name): _read_finding(folder, values) for name, values in content["findings"].items()}
            return cls(
                findings=findings,
                importance=Importance(*(arrays[f"importance_{name}"] for name in _IMPORTANCE)),
                tables={_split(name): FeatureTable.load(folder / f"{name}.npz") for name in content["splits"]},
                scale=IntensityScale(**content["scale"]),
                probes=Probes(
                    FeatureTable.load(folder / "probes.npz"),
                    FeatureTable.load(folder / "probes_predicted.npz"),
                    arrays.get("images"),
                    _read_grids(content.get("grids")),
                ),
                class_names=tuple(map(str, content["class_names"])),
                warnings=tuple(map(str, content["warnings"])),
                trend={
                    _family(name): [TrendPoint(*point) for point in points] for name, points in content["trend"].items()
                },
                gallery={_place(name): image for name, image in arrays.items() if name.startswith("gallery/")},
                weights=str(content.get("weights", "")),
                channel_maps=_read_channel_maps(arrays, content.get("receptive_field")),
            )


def _outcome_of(table: FeatureTable) -> SplitOutcome:
    return SplitOutcome(Outcome(table.targets, read_logits(table), label_margins(table, table.targets)), table.metadata)


_IMPORTANCE = ("classes", "counts", "matrix", "overall", "standard_error")


def _family(name: str) -> str:
    """Accept the name of a family that this version knows."""
    if name not in registry.families():
        raise ValueError(f"there is no family {name!r}")
    return name


def _split(name: str) -> str:
    """Accept a split's name only: it becomes part of a path."""
    if name not in SPLITS:
        raise ValueError(f"there is no split {name!r}")
    return name


def _place(name: str) -> tuple[str, int]:
    _, split, row = name.split("/")
    return split, int(row)


def _grid_content(grids: Sequence[VolumeGrid] | None) -> list[Any] | None:
    if grids is None:
        return None
    return [[grid.shape, None if grid.affine is None else grid.affine.tolist(), grid.file] for grid in grids]


def _read_grids(content: Any) -> tuple[VolumeGrid, ...] | None:
    if content is None:
        return None
    return tuple(
        VolumeGrid(tuple(map(int, shape)), None if affine is None else np.array(affine, float).reshape(4, 4), str(file))
        for shape, affine, file in content
    )


def _read_channel_maps(arrays: Mapping[str, NDArray[Any]], seen: Sequence[float] | None) -> ChannelMaps:
    maps = {}
    for name, values in arrays.items():
        if name.startswith("channel/"):
            _, channel, row = name.split("/")
            maps[int(channel), int(row)] = values
    return ChannelMaps(maps, None if seen is None else tuple(float(share) for share in seen))


def _finding_content(finding: Finding) -> dict[str, Any]:
    content = {part.name: getattr(finding, part.name) for part in fields(finding)}
    return content | {"tables": list(finding.tables)}


def _read_finding(folder: Path, content: Mapping[str, Any]) -> Finding:
    """Read a finding; its numbers are made floats, and its tables come from the folder only."""
    tables = {name: _read_table(folder / f"{Path(name).name}.parquet") for name in content["tables"]}
    details = {str(name): float(value) for name, value in content["details"].items()}
    numbers = {name: float(content[name]) for name in ("score", "z", "health", "limit", "detectable")}
    return Finding(**{**content, **numbers, "details": details, "tables": tables})


def _read_table(path: Path) -> pd.DataFrame:
    frame = read_table(path, path)
    for name in frame:
        if pd.api.types.is_object_dtype(frame[name]):
            frame[name] = frame[name].map(_as_list)
    return frame


def _as_list(value: Any) -> Any:
    """Parquet gives arrays where lists were written."""
    return [_as_list(entry) for entry in value.tolist()] if isinstance(value, np.ndarray) else value
