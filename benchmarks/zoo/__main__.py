"""Print, for every architecture, the layer and the grid that are found, and how far the numbers are from the peers'.

scripts/zoo-env                                                 # makes .zoo
.zoo/bin/python -m benchmarks.zoo                               # everything, about half an hour on one core
.zoo/bin/python -m benchmarks.zoo --libraries timm --only vit_tiny
.zoo/bin/python -m benchmarks.zoo --libraries timm >> zoo.md; .zoo/bin/python -m benchmarks.zoo --summary zoo.md

Weights are random. "as expected" is a refusal that the table names. Differences are those of gradient times activation
from plain autograd, pytorch-grad-cam and captum, as a share of the largest value. "astray" is how many cells of the map
lie between a change of the input and where the activation moves most. "completeness" is the share of the spread of a
score that the contributions account for, of inputs with a painted box.
"""

from __future__ import annotations

import argparse
import time
import warnings
from importlib import import_module
from pathlib import Path

import torch

from benchmarks.zoo.entry import Entry
from benchmarks.zoo.measures import activation_of, cells_astray, completeness_of, differences
from lightning_ifa.errors import IFAError
from lightning_ifa.model.layer_search import find_layer

LIBRARIES = ("torchvision", "timm", "smp", "transformers", "monai")
COLUMNS = (
    "library", "model", "verdict", "layer and grid", "reason", "autograd", "grad-cam", "captum", "completeness",
    "astray", "CPU s",
)  # fmt: skip


def judge(entry: Entry) -> list[str]:
    """Give one row of the table."""
    torch.manual_seed(0)
    try:
        model = entry.build().eval()
    except (TypeError, AttributeError, RuntimeError) as error:  # another version of the library
        return [entry.name, "not built", "-", f"{type(error).__name__}: {error}".splitlines()[0], *"-" * 6]
    x = torch.randn(entry.shape)
    start = time.process_time()
    try:
        target = find_layer(model, x).target
        seconds = time.process_time() - start
        apart = differences(model, target, x)
        complete = completeness_of(model, target, entry.shape)
        grid = tuple(activation_of(model, target, x).shape[2:])
    except IFAError as error:
        verdict = "as expected" if entry.layer is None else "refused"
        return [entry.name, verdict, "-", f"{entry.reason}: {error}" if entry.layer is None else str(error), *"-" * 6]
    is_right = (target.name, grid) == (entry.layer, entry.grid)
    verdict = "ok" if is_right else f"WRONG, expected {entry.layer} {entry.grid}"
    astray = cells_astray(model, target, x)
    numbers = [*(f"{value:.0e}" for value in apart.values()), f"{complete:.3f}", f"{astray:.0f}", f"{seconds:.1f}"]
    return [entry.name, verdict, f"{target.name} {grid}", entry.reason, *numbers]


def summarize(lines: list[str]) -> str:
    """Count the verdicts of printed rows."""
    rows = [[cell.strip() for cell in line.strip().strip("|").split(" | ")] for line in lines]
    rows = [row for row in rows if row[0] in LIBRARIES]
    counts = {
        name: sum(row[2].startswith(name) for row in rows)
        for name in ("ok", "as expected", "refused", "WRONG", "not built", "failed")
    }
    largest = {}
    for number, name in enumerate(COLUMNS):
        if name in ("autograd", "grad-cam", "captum"):
            values = [float(row[number]) for row in rows if row[number] not in ("-", "nan")]
            largest[name] = f"{max(values, default=0):.0e} ({len(values)} models)"
    told = ", ".join(f"{count} {name}" for name, count in counts.items())
    return f"{len(rows)} models: {told}; largest difference " + ", ".join(f"{k} {v}" for k, v in largest.items())


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--libraries", nargs="+", choices=LIBRARIES, default=LIBRARIES)
    parser.add_argument("--only", nargs="+", help="names of models")
    parser.add_argument("--skip", nargs="+", default=[], help="names of models to leave out")
    parser.add_argument("--summary", type=Path, help="count the verdicts of a table that was printed before")
    given = parser.parse_args()
    if given.summary:
        print(summarize(given.summary.read_text().splitlines()))
        return
    warnings.simplefilter("ignore")
    lines = []
    print("| " + " | ".join(COLUMNS) + " |\n|" + " --- |" * len(COLUMNS), flush=True)
    for library in given.libraries:
        for entry in import_module(f"benchmarks.zoo.{library}_models").ENTRIES:
            if (not given.only or entry.name in given.only) and entry.name not in given.skip:
                try:
                    row = judge(entry)
                except Exception as error:  # the other rows are worth having
                    row = [entry.name, "failed", "-", f"{type(error).__name__}: {error}".splitlines()[0], *"-" * 6]
                lines.append("| " + " | ".join([library, *row]) + " |")
                print(lines[-1], flush=True)
    print("\n" + summarize(lines))


if __name__ == "__main__":
    main()
