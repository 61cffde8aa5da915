"""Everything that the table says of one trained row, as numbers with names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd
from torch import nn
from torch.utils.data import DataLoader

from lightning_ifa import FeatureReport, check_maps, decompose, evaluate_maps
from lightning_ifa.evaluation.map_quality import QUALITY

from .localisation import localisation

METHODS = ("hirescam", "gradcam", "gradcam++", "xgradcam")
DISPLAYS = {"common scale": "common", "relu": "relu", "per image": "per_image"}
CURVES = {
    "channels per class, difference, zero": "per_class",
    "channels per class, random, zero": "per_class_random",
    "channels, difference, refill": "refill",
    "channels, random, refill": "refill_random",
    "components, joint, mean": "components",
}
SHARES = (0.05, 0.1, 0.2, 0.4, 0.7)
"""Of the positions, at which insertion and deletion are measured."""


@dataclass(frozen=True)
class Cost:
    """How many samples the dear measures look at.

    Attributes:
        maps: For the correlation with the logit and for random weights.
        masked: For insertion, deletion, drop and increase.
        draws: Of the random controls.
        methods: CAM methods whose maps are masked.
        noise_draws: Of the noise under which maps should stay as they are.
    """

    maps: int = 160
    masked: int = 96
    draws: int = 5
    methods: tuple[str, ...] = METHODS
    noise_draws: int = 5


def measure(model: nn.Module, loader: DataLoader[Any], report: FeatureReport, cost: Cost) -> pd.DataFrame:
    """Measure a trained network.

    Args:
        model: The network that the report was made from.
        loader: Its validation loader.
        report: Of its last weights.
        cost: What the dear measures may cost.

    Returns:
        Columns ``method`` (empty where a number speaks of the row), ``name``, ``value``.
    """
    rows = [("", name, value) for name, value in _of_row(model, loader, report, cost).items()]
    rows += _correlations(model, loader, report, cost)
    for method in cost.methods:
        rows += [(method, name, value) for name, value in _faithfulness(model, loader, report, method, cost).items()]
    return pd.DataFrame(rows, columns=["method", "name", "value"])


def confounding(report: FeatureReport) -> dict[str, float]:
    """Score, z and alarm of the confounding family."""
    found = report.findings["confounding"]
    return {"score": found.score, "z": found.z, "alarm": float(found.alarm), "undecided": float(found.undecided)}


def _of_row(model: nn.Module, loader: DataLoader[Any], report: FeatureReport, cost: Cost) -> dict[str, float]:
    table = report.tables["validation"]
    parts = decompose(model, loader, report, modes=("difference",), draws=cost.draws)
    numbers = {"samples": len(table), "channels": table.contributions.shape[1], "performance": parts.full}
    for curve, name in CURVES.items():
        if curve in parts.enough.index:
            numbers[f"enough/{name}"] = parts.enough.loc[curve, "performance"]
            numbers[f"enough_with_maps/{name}"] = parts.enough.loc[curve, "both"]
    numbers |= {f"localisation/{name}": value for name, value in localisation(report, loader).items()}
    return numbers | {f"confounding/{name}": value for name, value in confounding(report).items()}


def _correlations(
    model: nn.Module, loader: DataLoader[Any], report: FeatureReport, cost: Cost
) -> list[tuple[str, str, float]]:
    check = check_maps(model, loader, report, methods=METHODS, samples=cost.maps)
    means = check.agreement[(check.agreement["reading"] == "mean") & check.agreement["transform"].isin(DISPLAYS)]
    rows = [(r["method"], f"correlation/{DISPLAYS[r['transform']]}", r["pearson"]) for _, r in means.iterrows()]
    return rows + [(r["method"], "random_weights", r["absolute_similarity"]) for _, r in check.randomised.iterrows()]


def _faithfulness(
    model: nn.Module, loader: DataLoader[Any], report: FeatureReport, method: str, cost: Cost
) -> dict[str, float]:
    layer = report.tables["validation"].layer
    found = evaluate_maps(
        model, loader, method=method, layer=layer, shares=SHARES, max_samples=cost.masked, sanity_check=False,
        noise_draws=cost.noise_draws,
    ).numbers  # fmt: skip
    known = {name: value for name, value in found.items() if name.rpartition("/")[2] in QUALITY}
    numbers = {name: known.get(f"cam/{name}", float("nan")) for name in QUALITY}
    numbers |= {f"{name}_shuffled": known.get(f"shuffled/{name}", float("nan")) for name in QUALITY}
    for side, map_name in (("", "cam"), ("_shuffled", "shuffled")):
        numbers |= {f"{name}{side}": found[f"{map_name}/{name}"] for name in ("insertion", "deletion")}
        for name in ("average_drop", "average_increase"):
            numbers[f"{name}{side}"] = found[f"{map_name}/common scale/{name}"]
    return numbers


def value(numbers: pd.DataFrame, name: str, method: str = "") -> float:
    """Look one number up; NaN where it was not measured."""
    found = numbers.loc[(numbers["name"] == name) & (numbers["method"] == method), "value"]
    return float(found.iloc[0]) if len(found) else float("nan")
