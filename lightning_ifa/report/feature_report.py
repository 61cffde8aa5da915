"""The FeatureReport: an analysis result that can be read, drawn and explored."""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lightning_ifa.errors import DataError
from lightning_ifa.indicators.overfitting import Overfitting, first_epoch
from lightning_ifa.report.result import AnalysisResult

if TYPE_CHECKING:
    from lightning_ifa.statistics.learning_curve import LearningCurve


class FeatureReport(AnalysisResult):
    """The result of ``analyze``.

    ``metrics`` are the numbers, ``alarms`` the families whose fault was found, ``samples``, ``outliers`` and
    ``confounders`` the lists behind them; ``to_html`` writes a page, ``save`` and ``load`` keep everything.

    Example:
        >>> from lightning_ifa import analyze
        >>> report = analyze(model, val_loader, train_loader)
        >>> report.save("kept")
        >>> FeatureReport.load("kept").metrics == report.metrics
        True
        >>> report.table("overfitting_classes").columns.tolist()
        ['class', 'gap', 'z', 'train', 'validation']
    """

    @property
    def left_null(self) -> int | None:
        """The epoch at which the overfitting score left its null, for two analyses in a row; None: it has not."""
        return first_epoch(self.trend.get(Overfitting.name, ()))

    @property
    def overfitting_classes(self) -> pd.DataFrame:
        """In which classes the gap between the splits lies; see ``indicators.overfitting.class_gaps``."""
        return self.table("overfitting_classes")

    @property
    def overfitting_features(self) -> pd.DataFrame:
        """Which features carry the gap; see ``indicators.overfitting.channel_gaps``."""
        return self.table("overfitting_features")

    @cached_property
    def subpopulations(self) -> pd.DataFrame:
        """How the validation samples of each class (regression: target bin) divide into groups; no score uses it.

        Columns ``class``, ``sizes`` (of the groups, largest first), ``stability`` (adjusted Rand index between
        divisions learnt from halves), ``null`` (of one Gaussian), ``separation`` (share of the variance between the
        groups), ``z`` (against that Gaussian), ``found`` (stable, apart and not tiny), ``features`` (channels that tell
        the groups apart), ``examples`` (for each group the samples nearest its middle). Classes of less than 40 samples
        are left out. Computed on first use, a second or so.
        """
        from lightning_ifa.report.tables import list_subpopulations

        return list_subpopulations(self)

    def sample_weights(
        self, suspect: str | None = None, *, targets: Any | None = None, values: Any | None = None
    ) -> pd.Series[float]:
        """Weigh training samples so that a suspect tells nothing of the class: for a ``WeightedRandomSampler``.

        Within each class every level of the suspect gets the same weight; the classes keep theirs. Labels that are
        called wrong (``label_score`` above .9) count by what is left of their probability.

        Args:
            suspect: Name of a metadata column; by default the strongest candidate of the metadata.
            targets: Class of every training sample, in the order of the data set, ``(n,)``; by default those of the
                analysed samples.
            values: The suspect's value for each of them, ``(n,)``.

        Returns:
            Weights by data-set index, mean about 1.

        Raises:
            DataError: There is no such column, or its values part no groups.
        """
        from lightning_ifa.report.prevention import weigh_samples

        if suspect is None:
            found = self.confounders[(self.confounders["origin"] == "metadata") & self.confounders["score"].notna()]
            if found.empty:
                raise DataError("no column of the metadata was tested; name the suspect, and pass targets= and values=")
            suspect = str(found.iloc[0]["source"])
        return weigh_samples(self, suspect, targets, values)

    def samples_to_review(self) -> pd.DataFrame:
        """List the samples that a person should look at first.

        Copies of a training sample with another label come first, then labels in doubt, most doubtful first, then
        errors in groups of the metadata that do worse than their classes explain. Columns ``reason``, ``sample_id``,
        ``split``, ``file`` (of the first metadata column that names files), ``target``, ``prediction``,
        ``suggested_label``, ``label_score``, ``duplicate_of``. Written as ``ifa_review.csv``.
        """
        from lightning_ifa.report.prevention import list_for_review

        return list_for_review(self)

    def learning_curve(
        self, column: str | None = None, group: str | None = None, *, times: float = 2.0, seed: int = 0
    ) -> LearningCurve:
        """Tell whether more of the same data would help, or more of one group; some seconds.

        A linear head on the features (channel means at the target layer) is refitted to fewer and fewer training
        samples and measured on the validation samples; a power law goes on from there.

        Args:
            column: Metadata column whose group's samples alone are varied; accuracy is then that on the group.
            group: The group, as ``report.subgroups`` names it.
            times: To which multiple of the samples the curve is extrapolated.
            seed: Seed of the draws.

        Raises:
            DataError: There is no training split, no such group, or not one class a sample.
        """
        from lightning_ifa.report.prevention import grow

        return grow(self, column, group, times, seed)

    def to_html(self, path: str | os.PathLike[str]) -> None:
        """Write one self-contained HTML page."""
        from lightning_ifa.report.figures.overview import overview_png
        from lightning_ifa.report.html.page import write_html

        write_html(self, Path(path), overview_png(self, "Integrated feature analysis"))

    def to_nifti(self, folder: str | os.PathLike[str], groups: NDArray[np.float32] | None = None) -> list[Path]:
        """Write the maps of the pictured volumes over their images; see ``report.nifti.write_nifti``."""
        from lightning_ifa.report.nifti import write_nifti

        return write_nifti(self, Path(folder), groups)
