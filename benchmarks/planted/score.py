"""Score every indicator on every cached network, under controls of its own."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import average_precision_score
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.planted.conditions import Condition
from benchmarks.planted.data import SOURCES, boxes
from benchmarks.planted.faults import SHIFTS, move
from benchmarks.planted.train import TABLE_ROWS, extract, load_net, splits
from lightning_ifa.data.feature_table import FeatureTable
from lightning_ifa.data.image_properties import BACKGROUND, has_background, image_properties
from lightning_ifa.data.regions import Regions
from lightning_ifa.data.thumbnails import thumbnails
from lightning_ifa.features.extractor import FeatureExtractor
from lightning_ifa.indicators.base import Finding
from lightning_ifa.indicators.confounding import confounding
from lightning_ifa.indicators.context import AnalysisContext
from lightning_ifa.indicators.outliers import Outliers
from lightning_ifa.indicators.overfitting import overfitting
from lightning_ifa.interventions.region_swaps import swap_outside, swap_parts
from lightning_ifa.interventions.swaps import Swaps
from lightning_ifa.statistics.confounder_candidates import (
    ConfounderCandidate,
    TrainingRows,
    find_candidates,
    swap_candidates,
)
from lightning_ifa.statistics.generalization_gap import SplitSample, margin
from lightning_ifa.statistics.localization import localize
from lightning_ifa.statistics.subpopulations import subpopulations

SIZES = (50, 100, 200, 500, 1000)
SCORES = {"outlier": "score", "label": "label_score"}
Row = dict[str, Any]


class Run:
    """One cached network with its tables."""

    def __init__(self, path: Path, folder: Path) -> None:
        known = json.loads(path.read_text())
        self.truth: dict[str, float] = {k: v for k, v in known.items() if k.startswith("accuracy")}
        self.seed: int = known["seed"]
        self.condition = Condition(**{f.name: known[f.name] for f in fields(Condition)})
        self.place, self.folder = path.parent, folder
        self.tables = {split: FeatureTable.load(self.place / f"{split}.npz") for split in ("train", "validation")}
        with np.load(self.place / "extra.npz") as extra:
            self.kinds = {split: extra[f"{split}_kinds"] for split in self.tables}
            self.traces = {split: extra[f"{split}_trace"].astype(np.float32) for split in self.tables}
        self.parts = splits(self.condition, self.seed)
        self.properties = {split: self._properties(split) for split in self.tables}

    @property
    def used(self) -> bool:
        """Whether the network decides by the tag: it is planted, and a tag set against the label costs accuracy."""
        drop = self.truth.get("accuracy_aligned", 0.0) - self.truth.get("accuracy_conflict", 0.0)
        return self.condition.fault == "confounding" and drop > 0.01

    def _properties(self, split: str) -> pd.DataFrame:
        measured = image_properties(self.parts[split].images[:TABLE_ROWS])
        return pd.DataFrame({name: values.numpy() for name, values in measured.items()})

    def with_images(self, split: str) -> FeatureTable:
        """The table with what is measured on the inputs themselves, as an analysis has it."""
        small = thumbnails(self.parts[split].images[:TABLE_ROWS])
        images = None if small is None else small.numpy()
        return replace(self.tables[split], properties=self.properties[split], thumbnails=images)

    def swaps(self) -> Swaps:
        """Made once, kept beside the tables."""
        path = self.place / "parts.npz"
        names = ("labels", "source_labels", "logits", "source_logits")
        if not path.exists():
            part = self.parts["validation"]
            net = load_net(self.condition, self.seed, self.folder)
            data = TensorDataset(part.images[:TABLE_ROWS], part.labels[:TABLE_ROWS])
            task = "binary" if SOURCES[self.condition.source].classes == 2 else "multiclass"
            made = swap_parts(FeatureExtractor(net), DataLoader(data, batch_size=64), np.arange(len(data)), task)
            assert made is not None
            np.savez_compressed(
                path, **{n: getattr(made, n) for n in names}, **{f"m_{k}": v for k, v in made.swapped.items()}
            )
        with np.load(path) as stored:
            return Swaps(*(stored[n] for n in names), {k[2:]: stored[k] for k in stored.files if k[:2] == "m_"})

    def row(self, family: str, variant: str, fault: bool, n: int, found: Finding, seconds: float, **more: Any) -> Row:
        return {
            "name": self.condition.name, "seed": self.seed, "family": family, "variant": variant, "fault": fault,
            "n": n, "score": found.score, "z": found.z, "health": found.health, "seconds": seconds,
            "note": found.note, **more,
        }  # fmt: skip


def timed(function: Any, *args: Any) -> tuple[Any, float]:
    began = time.perf_counter()
    found = function(*args)
    return found, time.perf_counter() - began


def side(table: FeatureTable, n: int) -> SplitSample:
    t = table.take(np.arange(min(n, len(table))))
    return SplitSample(margin(t.logits, t.targets), t.intensity, t.activations, t.targets)


def score_overfitting(run: Run) -> Iterator[Row]:
    train, val, fault = run.tables["train"], run.tables["validation"], run.condition.fault == "overfitting"
    for n in SIZES:
        found, seconds = timed(overfitting, side(train, n), side(val, n))
        more = {name: found.details.get(name) for name in ("shift", "hard_gap")}
        yield run.row("overfitting", "plain", fault, n, found, seconds, **more)
    if not run.condition.name.endswith("sound"):
        return
    net, part = load_net(run.condition, run.seed, run.folder), run.parts["validation"]
    for name, change in SHIFTS.items():
        shifted = extract(net, change(part.images), part.labels)
        found, seconds = timed(overfitting, side(train, 1000), side(shifted, 1000))
        gap = found.details["margin_gap"]
        yield run.row(
            "overfitting", f"shift {name}", fault, 1000, found, seconds, shift=found.details["shift"], gap=gap
        )
    part = run.parts["train"]
    rng = torch.Generator().manual_seed(0)
    moved = extract(net, move(part.images, SOURCES[run.condition.source].shift, rng), part.labels)
    found, seconds = timed(overfitting, side(moved, 1000), side(val, 1000))
    yield run.row("overfitting", "augmented", fault, 1000, found, seconds, shift=found.details["shift"])


def columns(run: Run, split: str) -> Iterator[tuple[str, bool, pd.Series]]:
    """Metadata columns: the true tag in several guises, and others that look like it."""
    rng = np.random.default_rng(100 * ("validation", "train").index(split) + 100 + run.seed)
    labels = run.parts[split].labels.numpy()[:TABLE_ROWS]
    n, half = len(labels), SOURCES[run.condition.source].classes // 2
    used = run.used
    tag = run.parts[split].tagged.numpy()[:n]
    if tag.any():
        yield "tag", used, pd.Series(tag)
        yield "tag, noisy number", used, pd.Series(tag + rng.normal(0, 0.5, n))
        category = np.where(tag, rng.choice(["a", "b"], n), rng.choice(["c", "d"], n))
        yield "tag, four categories", used, pd.Series(category)
        yield "tag, 30 % missing", used, pd.Series(np.where(rng.random(n) < 0.3, np.nan, tag.astype(float)))
    yield "random", False, pd.Series(rng.random(n) < 0.5)
    yield "random number", False, pd.Series(rng.normal(size=n))
    yield "associated", False, pd.Series((labels >= half) ^ (rng.random(n) < 0.05))
    yield "associated, one class", False, pd.Series((labels == 1) & (rng.random(n) < 0.9))
    yield "associated number", False, pd.Series(labels / half + rng.normal(size=n))
    yield "associated, category", False, pd.Series((labels + (rng.random(n) < 0.2) * rng.integers(0, 9, n)) // 2 % 4)


def score_metadata(run: Run) -> Iterator[Row]:
    """Every column by itself, known of the validation split only and of both; and all columns together."""
    table, train = run.tables["validation"], run.tables["train"]
    there = {name: column for name, _, column in columns(run, "train")}
    alone = {}
    for name, used, column in columns(run, "validation"):
        alone[name] = column
        for n in (100, 200, 500, 1000):
            frame = pd.DataFrame({name: column[:n]})
            both = TrainingRows(train.logits[:n], train.targets[:n], pd.DataFrame({name: there[name][:n]}))
            for family, training in (("metadata", None), ("metadata of both", both)):
                given = table.logits[:n], table.targets[:n], {"metadata": frame}, None, training
                candidates, seconds = timed(find_candidates, *given)
                found = confounding(candidates)
                first = candidates[0]
                more = {"reliance": first.reliance, "rz": first.z, "worst": first.worst_reliance}
                yield run.row(family, name, used, n, found, seconds, **more, worst_z=first.worst_z)
    frame = pd.DataFrame({k: v for k, v in alone.items() if run.used or "tag" not in k})
    candidates, seconds = timed(find_candidates, table.logits, table.targets, {"metadata": frame})
    yield run.row("metadata", "all columns", run.used, 1000, confounding(candidates), seconds)


def score_regions(run: Run) -> Iterator[Row]:
    """With a box around each shape: what lies outside it."""
    condition, part = run.condition, run.parts["validation"]
    source = SOURCES[condition.source]
    if condition.source not in ("mnist", "digits", "letters"):
        return  # the others fill the image
    masks = boxes(source, condition.n_train or source.n_train, run.seed)["validation"]
    regions = Regions(masks.__getitem__, "validation")
    data = TensorDataset(part.images[:TABLE_ROWS], part.labels[:TABLE_ROWS])
    net, rows = load_net(condition, run.seed, run.folder), np.arange(len(data))
    moved = swap_outside(FeatureExtractor(net), DataLoader(data, batch_size=64), rows, "multiclass", regions)
    assert moved is not None
    given = moved.logits, moved.swapped, moved.source_logits, moved.labels, moved.source_labels, "region"
    candidates, seconds = timed(swap_candidates, *given)
    cams = run.tables["validation"].cams
    shares = localize(cams, regions.coverage(rows, cams.shape[1:])).means
    yield run.row("regions", "box", run.used, len(moved.labels), confounding(candidates), seconds, **shares)


def score_blind(run: Run) -> Iterator[Row]:
    """Without metadata: image properties, swaps, and both pooled."""
    table, fault = run.tables["validation"], run.used
    frame = run.properties["validation"]
    plain = has_background(frame)
    frame = frame[[name for name in frame if name.startswith(BACKGROUND)]]
    for n in (200, 500, 1000):
        panel, seconds = timed(find_candidates, table.logits[:n], table.targets[:n], {"background": frame[:n]})
        judged = panel if plain else []
        yield run.row("blind", "properties", fault, n, confounding(judged), seconds, **_parts(judged))
    moved = run.swaps()
    regions, seconds = timed(
        swap_candidates, moved.logits, moved.swapped, moved.source_logits, moved.labels, moved.source_labels
    )
    yield run.row("blind", "swaps", fault, len(moved.labels), confounding(regions), seconds, **_parts(regions))
    yield run.row("blind", "pooled", fault, 1000, confounding(panel + regions), seconds)


def _parts(candidates: list[ConfounderCandidate]) -> Row:
    return {f"s:{s.source}": s.strength()[0] for s in candidates}


def score_outliers(run: Run) -> Iterator[Row]:
    """The samples ranked by both scores, what is flagged, the copies found."""
    for n in SIZES:
        tables = {split: run.with_images(split).take(np.arange(min(n, len(t)))) for split, t in run.tables.items()}
        found, seconds = timed(Outliers().assess, AnalysisContext(tables))
        rows = found.tables["samples"]
        rows = rows[rows["split"] == "validation"]
        planted, told, copied = run.kinds["validation"][:n], rows["kind"].to_numpy(), rows["duplicate_of"] != ""
        clean, noisy = planted == "", run.condition.label_noise > 0
        measured: Row = {
            "flagged_clean": float(((told != "") & ~copied)[clean].mean()),
            "duplicate_clean": float(copied[clean].mean()),
        }
        if run.condition.outliers:
            bad = np.isin(planted, ["mislabelled", "corrupted", "foreign"])
            scores = {name: rows[column].fillna(-9).to_numpy() for name, column in SCORES.items()}
            for kind in sorted(set(planted[bad])):
                others = (planted == kind) | ~bad
                score = scores["label" if kind == "mislabelled" else "outlier"]
                measured[f"ap_{kind}"] = average_precision_score(planted[others] == kind, score[others])
                measured[f"told_{kind}"] = float((told[planted == kind] == kind).mean())
            if bad.any():
                measured["ap_all"] = average_precision_score(bad, scores["outlier"])
                measured["flagged_bad"] = float((told[bad] != "").mean())
            for kind in sorted({"duplicate", "near"} & set(planted)):
                measured[f"found_{kind}"] = float(copied[planted == kind].mean())
        fault = run.condition.fault == "outliers" or noisy
        yield run.row("outliers", "noisy" if noisy else "plain", fault, n, found, seconds, **measured)


def score_subpopulations(run: Run) -> Iterator[Row]:
    """How many classes fall into groups."""
    table = run.tables["validation"]
    divisions, seconds = timed(subpopulations, table.contributions, table.targets)
    told = Finding(float(sum(division.found for division in divisions)), 0.0, 1.0)
    yield run.row("subpopulations", "classes", False, len(table), told, seconds, of=len(divisions))


def score(folder: Path, names: set[str], most_seeds: int = 99) -> pd.DataFrame:
    """Score every cached network of the named conditions."""
    rows: list[Row] = []
    for path in sorted(folder.glob("*/*/truth.json")):
        if int(path.parent.name) < most_seeds and json.loads(path.read_text())["name"] in names:
            run = Run(path, folder)
            rows += [row for scorer in SCORERS for row in scorer(run)]
    return pd.DataFrame(rows)


SCORERS = (score_overfitting, score_metadata, score_regions, score_blind, score_outliers, score_subpopulations)
