"""Where the time of one analysis goes: the analysis against a plain validation pass, and the time that logging takes.

    .venv/bin/python benchmarks/analysis_time.py
    OMP_NUM_THREADS=1 .venv/bin/python -m benchmarks.analysis_time --growth    # each family, by the size

Plain and analysed passes alternate in one process; ratios are taken within each round.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import tempfile
import time
import warnings
from pathlib import Path

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))

import mlflow
import numpy as np
import pytorch_lightning as pl
import torch
from mnist import Digits, SmallCNN
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_ifa.analysis import analyze
from lightning_ifa.data.sampling import reference_indices
from lightning_ifa.features.extractor import FeatureExtractor
from lightning_ifa.tracking.checkpoint import Moment
from lightning_ifa.tracking.job import upload
from lightning_ifa.tracking.job_writer import write_job
from lightning_ifa.tracking.run import Run
from lightning_ifa.training.callback import IntegratedFeatureAnalysis
from lightning_ifa.training.session import Session


def seconds(action):
    began = time.perf_counter()
    result = action()
    return time.perf_counter() - began, result


def quartiles(values):
    low, middle, high = np.percentile(values, (25, 50, 75))
    return f"median {middle:.2f}, quartiles {low:.2f} to {high:.2f}"


def trainer(folder, *callbacks):
    return pl.Trainer(
        logger=False,
        callbacks=list(callbacks),
        default_root_dir=folder,
        enable_progress_bar=False,
        enable_model_summary=False,
        accelerator="cpu",
    )


class Block(nn.Module):
    """Two convolutions and a skip connection (He et al. 2016)."""

    def __init__(self, n_in, n_out, stride):
        super().__init__()
        self.way = nn.Sequential(
            nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False), nn.BatchNorm2d(n_out), nn.ReLU(inplace=True),
            nn.Conv2d(n_out, n_out, 3, 1, 1, bias=False), nn.BatchNorm2d(n_out),
        )  # fmt: skip
        self.skip = nn.Conv2d(n_in, n_out, 1, stride, bias=False) if stride > 1 else nn.Identity()

    def forward(self, x):
        return torch.relu(self.way(x) + self.skip(x))


class ResNet(pl.LightningModule):
    """Laid out as ResNet-18 for images of 32 x 32."""

    def __init__(self):
        super().__init__()
        stages = zip((64, 64, 128, 256), (64, 128, 256, 512), (1, 2, 2, 2), strict=True)
        blocks = [block for a, b, s in stages for block in (Block(a, b, s), Block(b, b, 1))]
        self.features = nn.Sequential(nn.Conv2d(3, 64, 3, 1, 1), nn.ReLU(), *blocks)
        self.head = nn.Linear(512, 10)

    def forward(self, x):
        return self.head(self.features(x).mean((2, 3)))

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", nn.functional.cross_entropy(self(batch[0]), batch[1]))


class Separate(IntegratedFeatureAnalysis):
    """Never shares the validation's forward passes."""

    def setup(self, trainer, pl_module, stage):
        super().setup(trainer, pl_module, stage)
        self.session.capture.refused = "benchmark"


class FeaturesOnly(Session):
    """Takes the features from the validation's forward passes, and judges nothing."""

    def analyze(self, trainer, module, metrics):
        self._tables(trainer, self._loaders(trainer, module).validation(0))


def compare_shared_passes(rounds, folder):
    """Compare ``trainer.validate`` with and without the analysis; processor time, so that other jobs disturb less."""
    model, samples = ResNet(), TensorDataset(torch.randn(1024, 3, 32, 32), torch.arange(1024) % 10)
    loader = DataLoader(samples, 64)
    features = IntegratedFeatureAnalysis()
    features.session = FeaturesOnly(features.session.options, features.session.training)
    callbacks = {"shared, features only": features, "shared": IntegratedFeatureAnalysis(), "separate": Separate()}
    for callback in callbacks.values():
        callback.session.publishes = False
    trainers = {"plain": trainer(folder)} | {name: trainer(folder, c) for name, c in callbacks.items()}
    ratios = {name: [] for name in callbacks}
    for _ in range(rounds + 1):
        spent = {}
        for name, each in trainers.items():
            began = time.process_time()
            each.validate(model, loader, verbose=False)
            spent[name] = time.process_time() - began
        for name in ratios:
            ratios[name].append(spent[name] / spent["plain"])
    print("trainer.validate with the analysis / without, ResNet-18 on 1,024 images of 32 x 32, no figures, no logging:")
    for name, values in ratios.items():
        print(f"  {name}: first time {values[0]:.2f}, then {quartiles(values[1:])}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--growth", action="store_true", help="instead: how each family's time grows, on made-up tables"
    )
    options = parser.parse_args()
    if options.growth:
        from benchmarks.analysis_growth import print_growth

        warnings.simplefilter("ignore")
        print_growth(min(options.rounds, 2))
        return
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    torch.manual_seed(0)
    data, model = Digits(), SmallCNN()
    data.setup("fit")
    loaders = {"train": data.train_dataloader(), "validation": data.val_dataloader()}
    indices = {split: reference_indices(loader, 1024, 0, split) for split, loader in loaders.items()}
    extraction = FeatureExtractor(model)

    with tempfile.TemporaryDirectory() as folder:
        plain = trainer(folder)
        extracted, whole = [], []
        for _ in range(options.rounds + 1):
            validate, _ = seconds(lambda: plain.validate(model, loaders["validation"], verbose=False))
            extract, _ = seconds(lambda: extraction(loaders["validation"], indices["validation"]))
            analyse, report = seconds(lambda: analyze(model, loaders["validation"], loaders["train"]))
            extracted.append((validate + extract) / validate)
            whole.append(analyse)
        print(f"{len(indices['validation'])} validation samples, {len(indices['train'])} training samples,", end=" ")
        print(f"{report.tables['validation'].contributions.shape[1]} channels, {options.threads} threads")
        print(f"validation with features of the same samples / plain validation: {quartiles(extracted[1:])}")
        print(f"whole analysis, both splits and all indicators, s: {quartiles(whole[1:])}")

        client = mlflow.MlflowClient(f"sqlite:///{folder}/mlflow.db")
        experiment = client.create_experiment("x", artifact_location=f"{folder}/artifacts")
        run = Run(client.create_run(experiment).info.run_id, client.tracking_uri)
        drawn, uploaded = [], []
        for step in range(options.rounds + 1):
            job = Path(folder) / f"job{step}"
            job.mkdir()
            moment = Moment(step, step)
            drawn.append(seconds(lambda job=job, moment=moment: write_job(report, job, run, moment))[0])
            uploaded.append(seconds(lambda job=job: upload(job))[0])
        print(f"figures and tables, s, in the background: {quartiles(drawn[1:])}")
        print(f"upload to the embedded MLflow store, s, in the background: {quartiles(uploaded[1:])}")

        watcher = IntegratedFeatureAnalysis(on_error="raise", train_dataloader=loaders["train"])
        watched = trainer(folder, watcher)
        blocked = []
        send = watcher._send
        watcher._send = lambda t: blocked.append(seconds(lambda: send(t))[0])
        for _ in range(5):
            watched.validate(model, loaders["validation"], verbose=False)
        print(f"training thread blocked by figures and logging, ms: {quartiles(1000 * np.array(blocked))}")
        compare_shared_passes(options.rounds, folder)


if __name__ == "__main__":
    main()
