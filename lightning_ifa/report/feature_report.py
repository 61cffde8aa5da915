"""The FeatureReport: an analysis result that can be read, drawn and explored."""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path

import pandas as pd

from lightning_ifa.indicators.overfitting import Overfitting, first_epoch
from lightning_ifa.report.result import AnalysisResult


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

    def to_html(self, path: str | os.PathLike[str]) -> None:
        """Write one self-contained HTML page."""
        from lightning_ifa.report.figures.overview import overview_png
        from lightning_ifa.report.html.page import write_html

        write_html(self, Path(path), overview_png(self, "Integrated feature analysis"))
