"""The table as Markdown and as a figure."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from .measure import METHODS, value
from .real import REAL
from .rows import TITLES as ROW_TITLES

NAMES = {"hirescam": "HiResCAM", "gradcam": "Grad-CAM", "gradcam++": "Grad-CAM++", "xgradcam": "XGrad-CAM"}
ENOUGH = {
    "per_class": "each class its own, rest zero", "per_class_random": "random for each class",
    "refill": "important, refill", "refill_random": "random, refill", "components": "components",
}  # fmt: skip
TITLES = ROW_TITLES | {name: row.title for name, row in REAL.items()}
FAMILIES = ("overfitting", "confounding", "outliers", "redundancy")
Cell = Callable[[pd.DataFrame], str]


def markdown(numbers: pd.DataFrame) -> str:
    """Print the sections of the table.

    Args:
        numbers: Of all rows: ``row``, ``data``, ``layer``, ``method``, ``name``, ``value``.
    """
    return "\n\n".join(f"### {title}\n\n{_section(numbers, columns)}" for title, columns in _sections().items()) + "\n"


def figure(numbers: pd.DataFrame) -> Figure:
    """Draw what the paper claims: correlations by display, and the shares of the features that are enough."""
    rows = list(dict.fromkeys(numbers["row"]))
    picture = Figure(figsize=(12, 0.45 * len(rows) + 1.6), layout="constrained")
    left, right = picture.subplots(1, 2, sharey=True)
    places = np.arange(len(rows))
    for shift, (method, marker) in enumerate(zip(METHODS, "osD^", strict=True)):
        for display, colour in (("common", "tab:blue"), ("relu", "tab:orange"), ("per_image", "tab:red")):
            found = [value(numbers[numbers["row"] == row], f"correlation/{display}", method) for row in rows]
            label = NAMES[method] if display == "common" else None
            left.scatter(found, places + 0.12 * (shift - 1.5), s=22, c=colour, marker=marker, label=label)
    for shift, (curve, name) in enumerate(ENOUGH.items()):
        found = [value(numbers[numbers["row"] == row], f"enough_with_maps/{curve}") for row in rows]
        right.scatter(found, places + 0.1 * (shift - 2), s=26, label=name)
    right.axvspan(0.05, 0.25, color="0.9", zorder=0)
    left.set_yticks(places, [TITLES[row] for row in rows])
    left.set_xlabel("correlation of map sum and logit\nblue: common scale, orange: ReLU, red: per image")
    right.set_xlabel("share of the features that keeps accuracy and maps\ngrey: the paper's 5-25 %")
    left.invert_yaxis()
    for axes in (left, right):
        axes.legend(fontsize=7)
        axes.grid(axis="x", alpha=0.3)
    return picture


def _section(numbers: pd.DataFrame, columns: dict[str, Cell]) -> str:
    head = ["", "data", *columns]
    lines = [" | ".join(head), " | ".join(["---"] * len(head))]
    for row in dict.fromkeys(numbers["row"]):
        part = numbers[numbers["row"] == row]
        lines.append(" | ".join([TITLES[row], part["data"].iloc[0], *(cell(part) for cell in columns.values())]))
    return "\n".join(f"| {line} |" for line in lines)


def _sections() -> dict[str, dict[str, Cell]]:
    correlated = {NAMES[m]: _joined([f"correlation/{d}" for d in ("common", "relu", "per_image")], m) for m in METHODS}
    faithful = {
        f"{NAMES[m]}: {a}, {b}": _beside([a, b], m)
        for m in METHODS
        for a, b in (("insertion", "deletion"), ("average_drop", "average_increase"))
    }
    return {
        "Rows": {
            "validation samples": _plain("samples", 0), "channels": _plain("channels", 0),
            "accuracy (R2)": _plain("performance", 3), "whole validation split: samples": _plain("validation/whole", 0),
            "whole validation split: accuracy": _plain("accuracy/whole", 3),
            "layer": lambda part: f"`{part['layer'].iloc[0]}`",
        },
        "Correlation of map sum and logit: common scale / ReLU / per image": correlated,
        "Smallest share of the features that keeps 99 % of the performance / and maps correlated at 0.95": {
            title: _joined([f"enough/{curve}", f"enough_with_maps/{curve}"]) for curve, title in ENOUGH.items()
        },
        "Faithfulness, map (same intensities shuffled)": {k: v for k, v in faithful.items() if "insertion" in k},
        "Sparseness (Gini), sensitivity to noise; relevance mass, relevance rank, pointing (shuffled)": {
            NAMES[m]: _quality(m) for m in ("hirescam", "gradcam++")
        },
        "Confidence under the map, common scale (shuffled)": {k: v for k, v in faithful.items() if "drop" in k},
        "Random weights: mean absolute correlation of the maps with the trained network's": {
            NAMES[m]: _joined(["random_weights"], m) for m in METHODS
        },
        "Localisation (by chance), HiResCAM: mark off → on": {
            "energy inside": _moved("energy", "area"), "pointing game": _moved("pointing", "pointing_chance"),
            "pointing game, one cell's tolerance": _moved("near", "near_chance"),
        },
        "Real rows: training in seconds of a core, families' score (z)": {
            "training": _plain("seconds", 0), **{name: _family(name) for name in FAMILIES},
        },
        "Confounding: score (z)": {"mark off": _confounding("confounding"), "mark on": _confounding("confounding_on")},
    }  # fmt: skip


def _number(number: float, digits: int = 2) -> str:
    return "—" if math.isnan(number) else f"{number:.{digits}f}"


def _plain(name: str, digits: int) -> Cell:
    return lambda part: _number(value(part, name), digits)


def _joined(names: Sequence[str], method: str = "") -> Cell:
    return lambda part: " / ".join(_number(value(part, name, method)) for name in names)


def _beside(names: Sequence[str], method: str) -> Cell:
    def cell(part: pd.DataFrame) -> str:
        pairs = [(value(part, name, method), value(part, f"{name}_shuffled", method)) for name in names]
        return ", ".join(f"{_number(own)} ({_number(control)})" for own, control in pairs)

    return cell


def _quality(method: str) -> Cell:
    def cell(part: pd.DataFrame) -> str:
        own = _joined(["sparseness", "max_sensitivity"], method)(part)
        return f"{own}; {_beside(['relevance_mass', 'relevance_rank', 'pointing'], method)(part)}"

    return cell


def _moved(name: str, chance: str) -> Cell:
    def cell(part: pd.DataFrame) -> str:
        off, on = (value(part, f"{side}/{name}") for side in ("localisation", "localisation_on"))
        return f"{_number(off)} → {_number(on)} ({_number(value(part, f'localisation/{chance}'))})"

    return cell


def _family(name: str) -> Cell:
    def cell(part: pd.DataFrame) -> str:
        if name == "confounding" and value(part, f"family/{name}/score") == value(part, "confounding/score"):
            return _confounding("confounding")(part)  # which also knows whether it could be told
        score, z, alarm = (value(part, f"family/{name}/{kind}") for kind in ("score", "z", "alarm"))
        return "—" if math.isnan(score) else f"{score:.2f} ({z:.1f}){' ALARM' if alarm else ''}"

    return cell


def _confounding(side: str) -> Cell:
    def cell(part: pd.DataFrame) -> str:
        found = {name: value(part, f"{side}/{name}") for name in ("score", "z", "alarm", "undecided")}
        if math.isnan(found["score"]) or found["undecided"]:
            return "cannot be told" if found["undecided"] == 1 else "—"
        return f"{found['score']:.3f} ({found['z']:.1f}){' ALARM' if found['alarm'] else ''}"

    return cell
