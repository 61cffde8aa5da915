"""Train every stand-in over several seeds, mark off and on, and count the alarms of the confounding family.

python -m examples.paper.seeds                               # goes on where it was interrupted
python -m examples.paper.seeds --rows luna --seeds 0 1 2 3
"""

from __future__ import annotations

import argparse
from itertools import product
from pathlib import Path

import pandas as pd

from .make_small import COUNT
from .results.measure import confounding
from .results.rows import FOLDERS, ROWS, TITLES, train_row
from .table import quiet, stand_in, store

SEEDS = (0, 1, 2)


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=ROWS)
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS)
    parser.add_argument("--folder", type=Path, default=Path("runs/paper"))
    parser.add_argument("--count", type=int, default=COUNT, help="samples of a stand-in")
    chosen = parser.parse_args()
    quiet()
    folder = chosen.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    done = folder / "seeds.csv"
    numbers = pd.read_csv(done).to_dict("records") if done.exists() else []
    known = {(one["row"], one["seed"], one["mark"]) for one in numbers}
    for row, seed, mark in product(chosen.rows, chosen.seeds, ("off", "on")):
        if (row, seed, mark) in known:
            continue
        numbers.append({"row": row, "seed": seed, "mark": mark})
        numbers[-1] |= one_training(row, folder, chosen.count, mark == "on", seed)
        pd.DataFrame(numbers).to_csv(done, index=False)
        print(f"{TITLES[row]}, seed {seed}, mark {mark}: {cell(numbers[-1])}", flush=True)
    asked = [one for one in numbers if one["row"] in chosen.rows and one["seed"] in chosen.seeds]
    print("\n" + markdown(pd.DataFrame(asked)))


def one_training(row: str, folder: Path, count: int, confounded: bool, seed: int) -> dict[str, float]:
    """Train a row on its stand-in; score, z and alarm of the confounding family at the end.

    Args:
        row: One of ``ROWS``.
        folder: For data, runs and the store.
        count: Samples of the stand-in.
        confounded: Whether the mark travels with the class.
        seed: Of the stand-in's draws and of the training.
    """
    root = stand_in(folder, FOLDERS.get(row, row), count, confounded, seed)
    trained = train_row(row, root, store(folder), f"{row}, seed {seed}", f"--seed_everything={seed}")
    return confounding(trained.report)


def markdown(numbers: pd.DataFrame) -> str:
    """One line a row of the paper: score (z) of each seed, mark off and on; and how many alarmed.

    Args:
        numbers: ``row``, ``seed``, ``mark`` and what ``confounding`` gives.
    """
    lines = ["|  | mark off: score (z) | mark on: score (z) |", "| --- | --- | --- |"]
    for row, part in numbers.groupby("row", sort=False):
        cells = [", ".join(map(cell, part[part["mark"] == mark].to_dict("records"))) for mark in ("off", "on")]
        lines.append(f"| {TITLES[str(row)]} | {cells[0]} | {cells[1]} |")
    counts = numbers.groupby("mark")["alarm"].agg(["sum", "size"]).reindex(["off", "on"])
    alarms = " | ".join(f"{int(hit)}/{size} alarms" for hit, size in counts.itertuples(index=False))
    return "\n".join([*lines, f"| all | {alarms} |"])


def cell(found: dict[str, float]) -> str:
    """Write one training's score and z."""
    if found["undecided"]:
        return "cannot be told"
    return f"{found['score']:.3f} ({found['z']:.1f}){' ALARM' if found['alarm'] else ''}"


if __name__ == "__main__":
    main()
