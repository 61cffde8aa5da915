"""What the callback at its defaults adds to a whole training: time, memory, import.

    .venv/bin/python benchmarks/overhead.py                       # MNIST demo, small CIFAR-like training
    .venv/bin/python benchmarks/overhead.py --images 50000 --width 64 --rounds 1    # full size: hours without a GPU
    .venv/bin/python benchmarks/overhead.py --tasks --expected    # full size, computed from its measured parts

Trainings with and without the callback alternate, each in a process of its own, so that peak memory is its own; ratios
are taken within each round. Both log to MLflow. CPU seconds count the background threads in full, as if nothing of
theirs ran beside the training, and hardly depend on what else the machine does.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from itertools import pairwise
from pathlib import Path

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import MLFlowLogger
from torch import nn
from torch.nn.functional import cross_entropy, relu
from torch.utils.data import DataLoader, Dataset

ROOT = Path(__file__).resolve().parents[1]

ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "1048576"}
"""Fixed for all alike: glibc moves it as it goes, and the peaks of two equal trainings differ by 100 MiB."""

IMPORT = """
import sys, torch, pytorch_lightning, time
began = time.perf_counter()
import lightning_ifa
print(1000 * (time.perf_counter() - began))
"""


class Images(Dataset):
    """CIFAR's shape and type, ten classes of coloured noise: (3, 32, 32) uint8 in memory, float32 when read."""

    def __init__(self, count, seed):
        rng = np.random.default_rng(seed)
        templates = np.random.default_rng(0).integers(0, 128, (10, 3, 32, 32), dtype=np.uint8)
        self.labels = rng.integers(0, 10, count)
        self.pixels = rng.integers(0, 128, (count, 3, 32, 32), dtype=np.uint8)
        self.pixels += templates[self.labels]

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return torch.from_numpy(self.pixels[index]).float() / 255, int(self.labels[index])


class Clock(pl.Callback):
    """CPU seconds of the training thread for each batch, loading included; without the first, which warms up."""

    def __init__(self):
        self.seconds, self.began = {"train": [], "validation": []}, None

    def note(self, kind, first):
        now = time.thread_time()
        if not first:
            self.seconds[kind].append(now - self.began)
        self.began = now

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.note("train", batch_idx == 0)

    def on_validation_batch_end(self, trainer, pl_module, outputs, batch, batch_idx, dataloader_idx=0):
        self.note("validation", batch_idx == 0)


class Block(nn.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self, n_in, n_out, stride):
        super().__init__()
        self.first = nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False)
        self.second = nn.Conv2d(n_out, n_out, 3, 1, 1, bias=False)
        self.norms = nn.ModuleList([nn.BatchNorm2d(n_out), nn.BatchNorm2d(n_out)])
        self.shortcut = nn.Identity()
        if stride > 1 or n_in != n_out:
            self.shortcut = nn.Sequential(nn.Conv2d(n_in, n_out, 1, stride, bias=False), nn.BatchNorm2d(n_out))

    def forward(self, x):
        inner = relu(self.norms[0](self.first(x)))
        return relu(self.norms[1](self.second(inner)) + self.shortcut(x))


class ResNet(pl.LightningModule):
    """Eight blocks in four stages, as ResNet-18 for CIFAR; ``width`` 64 is the usual one."""

    def __init__(self, width):
        super().__init__()
        widths = [width, width, 2 * width, 4 * width, 8 * width]
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        stages = [
            nn.Sequential(Block(n_in, n_out, 1 if stage == 0 else 2), Block(n_out, n_out, 1))
            for stage, (n_in, n_out) in enumerate(pairwise(widths))
        ]
        self.stages, self.head = nn.Sequential(*stages), nn.Linear(8 * width, 10)

    def forward(self, x):
        return self.head(self.stages(self.stem(x)).mean((2, 3)))

    def training_step(self, batch, batch_idx):
        return cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", cross_entropy(self(batch[0]), batch[1]))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.05, momentum=0.9)


def cifar(options):
    """A fifth as many images for validation."""
    train, validation = Images(options.images, 1), Images(options.images // 5, 2)
    loaders = {
        "train_dataloaders": DataLoader(train, 128, shuffle=True),
        "val_dataloaders": DataLoader(validation, 256),
    }
    settings = {"max_epochs": options.epochs, "num_sanity_val_steps": 0}
    if options.batches:
        settings |= {"limit_train_batches": options.batches, "limit_val_batches": options.batches}
    return ResNet(options.width), loaders, settings


def mnist(options):
    """The demo's sound training."""
    from mnist import Digits, SmallCNN

    return SmallCNN(), {"datamodule": Digits()}, {"max_epochs": 12, "check_val_every_n_epoch": 4}


TASKS = {"mnist": mnist, "cifar": cifar}


def train(options):
    """Run in a process of its own: train once, print seconds, CPU seconds of its parts, and peak MiB."""
    warnings.simplefilter("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    torch.set_num_threads(options.threads)
    pl.seed_everything(0, verbose=False)
    model, data, settings = TASKS[options.task](options)
    clock, analyses = Clock(), []
    callbacks = [clock]
    if options.analysed:
        from lightning_ifa.training.callback import IntegratedFeatureAnalysis

        class Timed(IntegratedFeatureAnalysis):
            def on_validation_epoch_end(self, trainer, pl_module):
                began = time.thread_time()
                super().on_validation_epoch_end(trainer, pl_module)
                if not trainer.sanity_checking:
                    analyses.append(time.thread_time() - began)

        callbacks.append(Timed(on_error="raise"))
    with tempfile.TemporaryDirectory() as folder:
        store = {"tracking_uri": f"sqlite:///{folder}/mlflow.db", "artifact_location": f"{folder}/artifacts"}
        logger = MLFlowLogger("x", **store)
        trainer = pl.Trainer(
            logger=logger,
            callbacks=callbacks,
            default_root_dir=folder,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            accelerator=options.accelerator,
            devices=1,
            **settings,
        )
        _ = logger.experiment  # the store's tables are made once in a project's life
        began, cpu, own = time.perf_counter(), time.process_time(), time.thread_time()
        trainer.fit(model, **data)
        seconds, cpu, own = time.perf_counter() - began, time.process_time() - cpu, time.thread_time() - own
        logged = len(list(Path(folder).rglob("ifa_report.html")))
    result = {"seconds": seconds, "cpu": cpu, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}
    parts = {"analyses": analyses, "background": cpu - own, "batches": clock.seconds}
    print(json.dumps(result | parts | {"logged": logged}))


def in_a_process(*arguments):
    command = [sys.executable, *arguments]
    done = subprocess.run(  # noqa: S603  # this file
        command, stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT, env=os.environ | ALLOCATOR
    )
    return json.loads(done.stdout.splitlines()[-1])


def run_task(task, options, analysed, **changed):
    given = {name: getattr(options, name) for name in ("images", "width", "epochs", "threads", "accelerator")} | changed
    extra = ["--analysed"] if analysed else []
    run = in_a_process(__file__, *(f"--{name}={value}" for name, value in given.items()), "--task", task, *extra)
    assert (run["logged"] > 0) == analysed
    return run


def compare(task, options):
    """Alternate; print the ratios of times and the difference of peaks."""
    pairs = [[run_task(task, options, analysed) for analysed in (False, True)] for _ in range(options.rounds)]
    figures = [[[run[name] for name in ("seconds", "cpu", "peak")] for run in runs] for runs in pairs]
    plain, analysed = np.array(figures).transpose(1, 0, 2)
    ratios = analysed[:, :2] / plain[:, :2]
    seconds, cpu, peak = np.median(plain, axis=0)
    print(
        f"{task}: whole fit {seconds:.1f} s without, {np.median(analysed[:, 0]):.1f} s with; ratio median "
        f"{np.median(ratios[:, 0]):.3f} ({ratios[:, 0].min():.3f} to {ratios[:, 0].max():.3f}, {len(ratios)} rounds); "
        f"CPU {cpu:.1f} s, {np.median(analysed[:, 1]):.1f} s with, ratio median {np.median(ratios[:, 1]):.3f}; "
        f"peak memory {peak:.0f} MiB, {np.median((analysed - plain)[:, 2]):+.0f} MiB with",
        flush=True,
    )


def expect(options):
    """Print what CIFAR's own size must be expected to cost, from a few batches of it and a whole analysis.

    The measured validation is short enough for the analysis to share its forward passes, which the whole one is not:
    a forward pass of the 1,024 reference samples is added. The second epoch shows what an analysis leaves behind for
    training's peak.
    """
    size = {"images": 50000, "width": 64, "batches": 4, "epochs": 2, "threads": 1}
    plain, analysed = (run_task("cifar", options, watched, **size) for watched in (False, True))
    batch = {kind: np.median(run["batches"][kind]) for run in (plain, analysed) for kind in run["batches"]}
    epoch = math.ceil(size["images"] / 128) * batch["train"] + math.ceil(size["images"] / 5 / 256) * batch["validation"]
    analysis = np.mean(analysed["analyses"]) + 1024 / 256 * batch["validation"]
    background = (analysed["background"] - plain["background"]) / len(analysed["analyses"])
    print(
        f"cifar at full size, expected from its parts, CPU seconds on one thread: an epoch {epoch:.0f}, from "
        f"{batch['train']:.2f} a training and {batch['validation']:.2f} a validation batch; an analysis "
        f"{analysis:.1f} in the training thread, {background:.1f} in the background; ratio "
        f"{1 + analysis / epoch:.3f} with the background on another core, "
        f"{1 + (analysis + background) / epoch:.3f} on the same; peak memory of the measured parts "
        f"{plain['peak']:.0f} MiB, {analysed['peak'] - plain['peak']:+.0f} MiB with",
        flush=True,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=5000, help="CIFAR-like training images; CIFAR has 50000")
    parser.add_argument("--width", type=int, default=16, help="of the ResNet's first stage; ResNet-18 has 64")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--accelerator", default="auto")
    parser.add_argument("--tasks", nargs="*", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--expected", action="store_true", help="compute CIFAR's full size from its measured parts")
    parser.add_argument("--epochs", type=int, default=2, help="of the CIFAR-like training")
    parser.add_argument("--batches", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--task", choices=list(TASKS), help=argparse.SUPPRESS)
    parser.add_argument("--analysed", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.task:
        train(options)
        return
    milliseconds = [in_a_process("-c", IMPORT) for _ in range(options.rounds)]
    print(f"import lightning_ifa beside torch and Lightning: {np.median(milliseconds):.1f} ms", flush=True)
    for task in options.tasks:
        compare(task, options)
    if options.expected:
        expect(options)


if __name__ == "__main__":
    main()
