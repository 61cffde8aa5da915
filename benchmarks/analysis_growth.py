"""How the time of an analysis grows: each family, drawing and logging, over samples, channels, classes and columns.

    OMP_NUM_THREADS=1 python -m benchmarks.analysis_time --growth

Tables are made up, processor time is of one process, the fastest of some rounds counts. The exponent is the slope of
the log time over the log size, from the second largest size to the largest.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.planted.tables import to_markdown
from lightning_ifa.analysis import analyze_tables
from lightning_ifa.data.feature_table import FeatureTable
from lightning_ifa.features.probes import Probes
from lightning_ifa.indicators.context import AnalysisContext
from lightning_ifa.indicators.registry import INDICATORS
from lightning_ifa.tracking.checkpoint import Moment
from lightning_ifa.tracking.job_writer import write_job
from lightning_ifa.tracking.run import Run

BASE = {"samples": 1024, "channels": 512, "classes": 10, "columns": 0}
SIZES = {
    "samples": (512, 1024, 2500, 5000),
    "channels": (64, 512, 1024, 2048),
    "classes": (10, 100, 1000),
    "columns": (0, 10, 50),
}
CLASS_FACTORS = 32  # what classes differ by, and samples within them


def made_table(samples: int, channels: int, classes: int, columns: int, seed: int) -> FeatureTable:
    """Rectified activations with a class part, behind a linear head; pictures are blocks of noise."""
    network, rng = np.random.default_rng(0), np.random.default_rng(seed)
    centres = network.normal(size=(classes, CLASS_FACTORS))
    mix = network.normal(size=(CLASS_FACTORS, channels)) / np.sqrt(CLASS_FACTORS)
    labels = np.arange(samples) % classes
    factors = centres[labels] + rng.normal(size=(samples, CLASS_FACTORS))
    activations = np.maximum(factors @ mix + 0.3 * rng.normal(size=(samples, channels)), 0).astype(np.float32)
    weights = (centres @ mix / np.sqrt(channels)).astype(np.float32)
    logits, contributions = activations @ weights.T, activations * weights[labels]
    maps = rng.random((samples, 7, 7), dtype=np.float32)
    blocks = rng.normal(size=(samples, 6, 6)).astype(np.float32)
    properties = ("brightness", "contrast", "sharpness", "background_level")
    return FeatureTable(
        contributions=contributions,
        activations=activations,
        logits=logits,
        targets=labels,
        predictions=logits.argmax(1),
        explained=labels,
        cams=maps / maps.sum((1, 2), keepdims=True) * contributions.sum(1)[:, None, None],
        sample_ids=np.array([f"{seed}-{row}" for row in range(samples)]),
        indices=np.arange(samples),
        fingerprints=rng.integers(0, 2**31, samples),
        metadata=pd.DataFrame({f"m{i}": rng.normal(size=samples) for i in range(columns)}, index=range(samples)),
        properties=pd.DataFrame({name: rng.normal(size=samples) for name in properties}),
        layer="made up",
        task="multiclass",
        cam="hirescam",
        thumbnails=np.kron(blocks, np.ones((1, 4, 4), np.float32)),
    )


def seconds(size: dict[str, int], rounds: int) -> dict[str, float]:
    """Time each family, drawing and logging on tables of one size."""
    tables = {split: made_table(**size, seed=seed) for seed, split in enumerate(("train", "validation"), 1)}
    found: dict[str, float] = {}

    def clock(name, work, *arguments, **options):
        began = time.process_time()
        result = work(*arguments, **options)
        found[name] = min(found.get(name, np.inf), time.process_time() - began)
        return result

    pictured = tables["validation"].take(np.arange(4))
    names, probes = tuple(map(str, range(size["classes"]))), Probes(pictured, pictured, None)
    for _ in range(rounds):
        context = AnalysisContext(tables, names)
        for indicator in INDICATORS:
            clock(indicator.name, indicator.assess, context)
        report = clock("all", analyze_tables, AnalysisContext(tables, names), probes)
        with tempfile.TemporaryDirectory() as folder:
            run = Run("0" * 32, f"sqlite:///{folder}/x.db")
            for name, pictures in (("logging", False), ("drawing", True)):
                clock(name, write_job, report, Path(folder) / name, run, Moment(0, 0), pictures=pictures)
    found["drawing"] -= found["logging"]
    return found


def print_growth(rounds: int = 2) -> None:
    """Print one table a size that grows, the others as in ``BASE``."""
    print(f"processor seconds, fastest of {rounds}; where it does not grow: {BASE}, samples in each of two splits\n")
    for what, sizes in SIZES.items():
        columns = {f"{size:,}": seconds(BASE | {what: size}, rounds) for size in sizes}
        table = pd.DataFrame(columns)
        last, before = (table.iloc[:, position] for position in (-1, -2))
        table["exponent"] = np.log(last / before) / np.log(sizes[-1] / sizes[-2])
        print(to_markdown(table.rename_axis(what).reset_index()), end="\n\n", flush=True)
