"""The FeatureReport: what an analysis found, ready to be logged, drawn or stored."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lightning_ifa.data.feature_table import FeatureTable
from lightning_ifa.errors import FileError
from lightning_ifa.features.probes import Probes
from lightning_ifa.indicators.base import Finding
from lightning_ifa.listing import subpopulation_rows
from lightning_ifa.sides import compared_rows, evidence
from lightning_ifa.statistics.generalization_gap import gaps_by_class, gaps_by_feature, left_null
from lightning_ifa.statistics.importance import Importance
from lightning_ifa.statistics.intensity_scale import IntensityScale
from lightning_ifa.statistics.subpopulations import subpopulations

FAMILIES = ("overfitting", "confounding", "outliers", "redundancy", "consistency")


@dataclass(frozen=True, eq=False)
class FeatureReport:
    """The result of ``analyze``.

    Attributes:
        findings: Family name to its finding; families that need a training split are left out without one.
        samples: One row a sample of every split: ``sample_id``, ``split``, ``score`` (robust z of the distance to
            its class), ``kind`` (empty: no outlier), ``target``, ``prediction``, ``evidence`` (for the truth),
            ``duplicate_of`` (training sample that it is a copy of), ``outside`` (share of the map outside the region
            where the evidence should lie; NaN where none is known).
        confounders: One row a candidate: ``source``, ``origin``, ``score`` (reliance), ``z``, ``features``,
            ``worst_class``, ``worst_score``, ``association``, ``accuracy_aligned``, ``accuracy_conflicting``,
            ``conflicting`` (how many), ``highest`` and ``lowest`` (samples; of a text column
            those of its two most frequent values), ``note``.
        importance: Importance matrix and its difference.
        tables: ``"validation"``, and ``"train"`` if there was one.
        scale: The common intensity scale.
        probes: The pictured samples.
        class_names: One a class; for regression the name of the output.
        warnings: What had to be left out, and why.
        trend: ``(epoch, score, z)`` of the overfitting family at every analysis of this training so far; empty outside
            of a training.
        gallery: Split and row number to the input of samples that the report speaks of, reduced to a picture; empty
            if no pixel may be kept. See ``features.gallery``.
    """

    findings: Mapping[str, Finding]
    samples: pd.DataFrame
    confounders: pd.DataFrame
    importance: Importance
    tables: Mapping[str, FeatureTable]
    scale: IntensityScale
    probes: Probes
    class_names: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    trend: tuple[tuple[int, float, float], ...] = ()
    gallery: Mapping[tuple[str, int], NDArray[np.float32]] = field(default_factory=dict)

    @property
    def metrics(self) -> dict[str, float]:
        """The numbers exactly as they are logged: ``ifa/<family>/<name>`` and ``ifa/health/<family>``."""
        found: dict[str, float] = {}
        for family, finding in self.findings.items():
            found[f"ifa/{family}/score"] = finding.score
            found[f"ifa/{family}/z"] = finding.z
            found |= {f"ifa/{family}/{name}": value for name, value in finding.details.items()}
            found[f"ifa/health/{family}"] = finding.health
        if self.left_null is not None:
            found["ifa/overfitting/left_null"] = self.left_null
        return {key: float(value) for key, value in found.items()}

    @property
    def outliers(self) -> pd.DataFrame:
        """The suspicious samples, most suspicious first, with the columns of ``samples``."""
        found = self.samples[self.samples["kind"] != ""]
        return found.sort_values("score", ascending=False, ignore_index=True)

    @property
    def left_null(self) -> int | None:
        """The epoch at which the overfitting score left its null, for two analyses in a row; None: it has not."""
        position = left_null([z for _, _, z in self.trend])
        return None if position is None else self.trend[position][0]

    @property
    def overfitting_classes(self) -> pd.DataFrame:
        """In which classes (regression: target bins) the gap between the splits lies, largest first.

        Columns ``class``, ``gap`` (of the margin, in standard deviations within the class), ``z``, ``train`` and
        ``validation`` (how many samples); no row without a training split.
        """
        (train, groups), (validation, held_out) = compared_rows(self.tables)
        return gaps_by_class(evidence(train), groups, evidence(validation), held_out)

    @property
    def overfitting_features(self) -> pd.DataFrame:
        """Which features carry the gap, largest share first.

        Columns ``feature``, ``gap`` (of its contribution, in standard deviations within classes), ``z``, ``share`` (of
        the gap of all; shares sum to 1); no row without a training split.
        """
        (train, groups), (validation, held_out) = compared_rows(self.tables)
        return gaps_by_feature(train.contributions, groups, validation.contributions, held_out)

    @cached_property
    def subpopulations(self) -> pd.DataFrame:
        """How the validation samples of each class (regression: target bin) divide into groups; no score uses it.

        Columns ``class``, ``sizes`` (of the groups, largest first), ``stability`` (adjusted Rand index between
        divisions learnt from halves), ``null`` (of one Gaussian), ``separation`` (share of the variance between the
        groups), ``z`` (against that Gaussian), ``found`` (stable, apart and not tiny), ``features`` (channels that tell
        the groups apart), ``examples`` (samples nearest the middle of each group, groups divided by a semicolon).
        Classes of less than 40 samples are left out. Computed on first use, a second or so.
        """
        _, (table, groups) = compared_rows(self.tables)
        return subpopulation_rows(table, subpopulations(table.contributions, groups))

    @property
    def alarms(self) -> list[str]:
        """Families whose fault was found."""
        return [family for family, finding in self.findings.items() if finding.alarm]

    @property
    def digest(self) -> str:
        """Tells the analysed validation data from any other, twelve hexadecimal digits."""
        return self.tables["validation"].digest

    def to_html(self, path: str | os.PathLike[str]) -> None:
        """Write one self-contained HTML page."""
        from lightning_ifa.report.figures.overview import overview_png
        from lightning_ifa.report.html.page import write_html

        write_html(self, Path(path), overview_png(self, "Integrated feature analysis"))

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
        np.savez_compressed(folder / "arrays.npz", **arrays)
        self.samples.to_parquet(folder / "samples.parquet")
        self.confounders.to_parquet(folder / "confounders.parquet")
        content = {
            "findings": {family: asdict(finding) for family, finding in self.findings.items()},
            "scale": self.scale.to_dict(),
            "class_names": self.class_names,
            "warnings": self.warnings,
            "trend": self.trend,
            "splits": list(self.tables),
        }
        partial = folder / "report.json.part"
        partial.write_text(json.dumps(content, indent=1), encoding="utf-8")
        partial.replace(folder / "report.json")  # last: a folder with report.json is complete

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> FeatureReport:
        """Read what ``save`` wrote.

        Raises:
            FileError: The folder holds no complete report.
        """
        folder = Path(folder)
        try:
            content: dict[str, Any] = json.loads((folder / "report.json").read_text(encoding="utf-8"))
            with np.load(folder / "arrays.npz", allow_pickle=False) as stored:
                arrays = {name: stored[name] for name in stored.files}
            samples, confounders = (pd.read_parquet(folder / f"{n}.parquet") for n in ("samples", "confounders"))
        except (OSError, ValueError, KeyError) as error:
            raise FileError(f"{folder} holds no complete feature report: {error}") from error
        return cls(
            findings={family: Finding(**values) for family, values in content["findings"].items()},
            samples=samples,
            confounders=confounders,
            importance=Importance(*(arrays[f"importance_{name}"] for name in _IMPORTANCE)),
            tables={split: FeatureTable.load(folder / f"{split}.npz") for split in content["splits"]},
            scale=IntensityScale(**content["scale"]),
            probes=Probes(
                FeatureTable.load(folder / "probes.npz"),
                FeatureTable.load(folder / "probes_predicted.npz"),
                arrays.get("images"),
            ),
            class_names=tuple(content["class_names"]),
            warnings=tuple(content["warnings"]),
            trend=tuple((int(epoch), score, z) for epoch, score, z in content.get("trend", ())),
            gallery={_place(name): image for name, image in arrays.items() if name.startswith("gallery/")},
        )


_IMPORTANCE = ("classes", "counts", "matrix", "overall", "standard_error")


def _place(name: str) -> tuple[str, int]:
    _, split, row = name.split("/")
    return split, int(row)
