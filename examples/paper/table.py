"""Train every row and print the paper's table.

python -m examples.paper.table                                # stand-ins, made on the way
python -m examples.paper.table --rows rsna luna --real rsna=/data/rsna
python -m examples.paper.table --real-root FOLDER             # and the rows on real images; see examples/paper/get.py
"""

from __future__ import annotations

import argparse
import logging
import os
import time
import warnings
from pathlib import Path

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

import mlflow
import pandas as pd

from lightning_ifa import analyze

from .make_small import COUNT, make_small
from .results import pretrained
from .results.localisation import localisation
from .results.measure import Cost, confounding, measure
from .results.real import REAL, train_real
from .results.record import record
from .results.render import TITLES, figure, markdown
from .results.rows import FOLDERS, ROWS, train_row

EXPERIMENT = "ifa-paper"
COUNTS = {"mnist": 5000}
OPTIONS = {"mnist": ("--data.batch_size=64",)}


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", nargs="+", choices=[*ROWS, "lite0", *REAL])
    parser.add_argument("--real-root", type=Path, metavar="FOLDER", help="folder of the real sets, as get.py says")
    parser.add_argument("--keep", action="store_true", help="keep the rows that the folder's table has already")
    parser.add_argument(
        "--real", nargs="*", default=[], metavar="ROW=FOLDER", help="published files, where you have them"
    )
    parser.add_argument("--folder", type=Path, default=Path("runs/paper"))
    parser.add_argument("--count", type=int, default=COUNT, help="samples of a stand-in")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    quiet()
    folder = chosen.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    real = dict(one.split("=", 1) for one in chosen.real)
    rows = chosen.rows or [*ROWS, "lite0", *_real_rows(chosen.real_root)]
    parts = []
    if chosen.keep and (folder / "table.csv").is_file():
        before = pd.read_csv(folder / "table.csv", keep_default_na=False, na_values={"value": [""]})
        parts.append(before[~before["row"].isin(rows)])
    for row in rows:
        began = time.perf_counter(), time.process_time()
        if row == "lite0":
            parts.append(lite0(folder))
        elif row in REAL:
            parts.append(real_row(row, folder, chosen.real_root, chosen.seed))
        else:
            parts.append(one_row(row, folder, real.get(row), chosen.count, chosen.seed))
        numbers = in_order(pd.concat(parts, ignore_index=True))
        numbers.to_csv(folder / "table.csv", index=False)  # after each row, so that an interruption loses one only
        spent = time.perf_counter() - began[0], time.process_time() - began[1]
        print(f"{TITLES[row]}: {spent[0]:.0f} s, {spent[1]:.0f} s of a core", flush=True)
    (folder / "table.md").write_text(markdown(numbers), encoding="utf-8")
    figure(numbers).savefig(folder / "table.png", dpi=110)
    _record_files(folder)
    print("\n" + markdown(numbers))


def one_row(row: str, folder: Path, real: str | None, count: int, seed: int) -> pd.DataFrame:
    """Train and measure a row; on a stand-in a second time, with the mark gone with the class.

    Args:
        row: One of ``ROWS``.
        folder: For data, runs and the store.
        real: The published files, or None.
        count: Samples of the stand-in.
        seed: Of its draws and of the training.
    """
    name = FOLDERS.get(row, row)
    seeded = (f"--seed_everything={seed}",)
    roots = {"off": Path(real) if real else stand_in(folder, name, count, False, seed)}
    if not real:
        roots["on"] = stand_in(folder, name, count, True, seed)
    kind = "real" if real else "real digits" if row == "mnist" else "stand-in"
    trained = train_row(row, roots["off"], store(folder), row, *seeded)
    numbers = measure(trained.model, trained.loader, trained.report, Cost())
    if "on" in roots:
        marked = train_row(row, roots["on"], store(folder), f"{row}, mark on", *seeded)
        found = {f"confounding_on/{k}": v for k, v in confounding(marked.report).items()}
        found |= {f"localisation_on/{k}": v for k, v in localisation(marked.report, marked.loader).items()}
        more = pd.DataFrame({"method": "", "name": list(found), "value": list(found.values())})
        numbers = pd.concat([numbers, more], ignore_index=True)
    record(mlflow.MlflowClient(store(folder)), trained.run_id, numbers, row=row, data=kind)
    return numbers.assign(row=row, data=kind, layer=trained.report.tables["validation"].layer)


def real_row(row: str, folder: Path, root: Path | None, seed: int) -> pd.DataFrame:
    """Train and measure a row on real images.

    Args:
        row: One of ``REAL``.
        folder: For runs and the store.
        root: Folder of the real sets.
        seed: Of the split and of the training.
    """
    if root is None:
        raise SystemExit(f"{row} needs --real-root FOLDER; python -m examples.paper.get says what belongs there")
    began = time.process_time()
    trained = train_real(row, root, store(folder), seed)
    spent = time.process_time() - began
    cost = Cost(maps=64, masked=24, draws=3, methods=("hirescam", "gradcam++"), noise_draws=3)
    numbers = measure(trained.model, trained.loader, trained.report, cost)
    more = {"accuracy/whole": trained.accuracy, "validation/whole": len(trained.loader.dataset), "seconds": spent}
    more |= {f"family/{name}/{kind}": value for name, found in trained.report.findings.items()
             for kind, value in (("score", found.score), ("z", found.z), ("alarm", float(found.alarm)))}  # fmt: skip
    table = pd.DataFrame({"method": "", "name": list(more), "value": list(more.values())})
    numbers = pd.concat([numbers, table], ignore_index=True)
    record(mlflow.MlflowClient(store(folder)), trained.run_id, numbers, row=row, data="real")
    return numbers.assign(row=row, data="real", layer=trained.report.tables["validation"].layer)


def in_order(numbers: pd.DataFrame) -> pd.DataFrame:
    """Put rows in the order of the table."""
    order = {row: place for place, row in enumerate(TITLES)}
    return numbers.sort_values("row", key=lambda rows: rows.map(order), kind="stable").reset_index(drop=True)


def _real_rows(root: Path | None) -> list[str]:
    """Rows whose set is in the folder."""
    return [] if root is None else [name for name, row in REAL.items() if (root / row.source / "index.csv").is_file()]


def lite0(folder: Path) -> pd.DataFrame:
    """Measure the network with ImageNet weights on photographs; nothing is trained."""
    net, parts = pretrained.network(), pretrained.crops()
    names = [name for _, name in pretrained.EXPECTED.values()]
    report = analyze(net, parts.validation, parts.train, class_names=names)
    numbers = measure(net, parts.validation, report, Cost(maps=24, masked=12, draws=1))
    client = mlflow.MlflowClient(store(folder))
    found = client.get_experiment_by_name(EXPERIMENT)
    experiment = found.experiment_id if found else client.create_experiment(EXPERIMENT)
    run_id = client.create_run(experiment, run_name="lite0").info.run_id
    record(client, run_id, numbers, row="lite0", data="real")
    client.set_terminated(run_id)
    return numbers.assign(row="lite0", data="real", layer=report.tables["validation"].layer)


def stand_in(folder: Path, name: str, count: int, confounded: bool, seed: int) -> Path:
    """Give a stand-in's folder, and write it first if it is not there."""
    root = folder / "data" / f"{'marked' if confounded else 'plain'}-{COUNTS.get(name, count)}-{seed}"
    if (root / name).exists():
        return root / name
    return make_small(root, name, count=COUNTS.get(name, count), confounded=confounded, seed=seed)


def store(folder: Path) -> str:
    """Tracking URI of the runs below a folder."""
    return f"sqlite:///{folder / 'mlflow.db'}"


def _record_files(folder: Path) -> None:
    client = mlflow.MlflowClient(store(folder))
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    run_id = client.create_run(experiment.experiment_id, run_name="table").info.run_id
    for name in ("table.md", "table.csv", "table.png"):
        client.log_artifact(run_id, str(folder / name))
    client.set_terminated(run_id)


def quiet() -> None:
    """Keep what Lightning and MLflow say of every training off the screen."""
    for name in ("pytorch_lightning", "lightning.pytorch", "lightning_fabric", "mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="pytorch_lightning")


if __name__ == "__main__":
    main()
