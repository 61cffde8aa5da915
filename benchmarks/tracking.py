"""What a real tracking server costs a training: requests, time of the training thread, and what outages add.

    PYTHONPATH=. python benchmarks/tracking.py                     # both parts
    PYTHONPATH=. python benchmarks/tracking.py --parts outages --rounds 9

A real ``mlflow server`` on loopback stands behind a proxy that counts, delays, fails or goes silent. The trainings are
those of the demo's network on 2,500 digits, analysed at every epoch with the callback's defaults.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import tempfile
import time
import warnings
from contextlib import contextmanager
from pathlib import Path

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")  # the rounds follow each other sooner
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "helpers"))

import numpy as np
import pytorch_lightning as pl
import torch
from mnist import Digits, SmallCNN
from pytorch_lightning.loggers import MLFlowLogger
from servers import Proxy, Server

from lightning_ifa.tracking.spooling_client import outage_proof
from lightning_ifa.training.callback import IntegratedFeatureAnalysis

ROOT = Path(__file__).resolve().parents[1]
EPOCHS = 5
QUIET = 3.0  # seconds without a request after which an analysis counts as uploaded


class Watched(IntegratedFeatureAnalysis):
    """Notes how long the training thread is held by the hand-over of each analysis."""

    def __init__(self):
        super().__init__(on_error="raise")
        self.blocked = []

    def on_validation_end(self, trainer, pl_module):
        fresh = not trainer.sanity_checking
        began = time.perf_counter()
        super().on_validation_end(trainer, pl_module)
        if fresh:
            self.blocked.append(time.perf_counter() - began)


class Counted(Watched):
    """Waits after each analysis until its uploads are over, so that requests can be told apart."""

    def __init__(self, proxy):
        super().__init__()
        self.proxy, self.before, self.requests = proxy, 0, []

    def on_validation_epoch_end(self, trainer, pl_module):
        self.before = len(self.proxy.seen)
        super().on_validation_epoch_end(trainer, pl_module)

    def on_validation_end(self, trainer, pl_module):
        super().on_validation_end(trainer, pl_module)
        if trainer.sanity_checking:
            return
        since, count = time.monotonic(), self.before
        while not self._uploads() or time.monotonic() - since < QUIET:
            time.sleep(0.05)
            if len(self.proxy.seen) != count:
                since, count = time.monotonic(), len(self.proxy.seen)
        self.requests.append(count - self.before)

    def _uploads(self):
        return [path for method, path in self.proxy.seen[self.before :] if method == "PUT"]


class Breaks(pl.Callback):
    """Times a training, and lets the server be undisturbed again when it is over: the end's waiting is not measured."""

    def __init__(self, proxy, epoch, act):
        self.proxy, self.epoch, self.act = proxy, epoch, act

    def on_train_start(self, trainer, pl_module):
        self.began = time.perf_counter(), time.process_time() - time.thread_time()

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == self.epoch:
            self.act(self.proxy)

    def on_train_end(self, trainer, pl_module):
        self.seconds = time.perf_counter() - self.began[0]
        self.beside = time.process_time() - time.thread_time() - self.began[1]
        self.proxy.reset()


def dies(proxy):
    proxy.dies = lambda number: True


def slows(proxy):
    proxy.delay = 5.0


def fails(proxy):
    proxy.fails = lambda number: number % 2 == 0


OUTAGES = {
    "undisturbed": (0, lambda proxy: None),
    "gone from epoch 2 on": (2, dies),
    "every answer takes 5 s": (0, slows),
    "every second request is a 500": (0, fails),
}


def timed(logger):
    """Note the seconds that the training thread spends in logging metrics."""
    log_metrics, spent = logger.log_metrics, []

    def noted(*args, **options):
        began = time.perf_counter()
        log_metrics(*args, **options)
        spent.append(time.perf_counter() - began)

    logger.log_metrics = noted
    return spent


def fit(logger, callbacks, epochs=EPOCHS):
    pl.seed_everything(0, verbose=False)
    with tempfile.TemporaryDirectory() as folder:
        trainer = pl.Trainer(
            max_epochs=epochs,
            logger=logger,
            callbacks=callbacks,
            default_root_dir=folder,
            accelerator="cpu",
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
        )
        trainer.fit(SmallCNN(), Digits())


def requests(proxy, options):
    """Count what an analysis asks of the server, and how long its hand-over holds the training thread."""
    callback = Counted(proxy)
    fit(MLFlowLogger("requests", tracking_uri=proxy.uri), [callback], options.analyses)
    first, *usual = callback.requests
    print(f"requests of an analysis: {first} (the first: probes one by one, view), then {usual}")
    print(
        f"training thread held by the hand-over, ms an analysis: median {1000 * np.median(callback.blocked):.1f}, "
        f"most {1000 * max(callback.blocked):.1f} ({len(callback.blocked)} analyses)",
        flush=True,
    )


def outages(proxy, options):
    """Time the same training beside each sort of outage, in shuffled order; print after every round."""
    seconds, beside, held = ({name: [] for name in OUTAGES} for _ in range(3))
    fit(False, [Watched()], 1)  # warms up
    for number in range(options.rounds):
        for name in np.random.default_rng(number).permutation(list(OUTAGES)).tolist():
            logger = outage_proof(MLFlowLogger("outages", tracking_uri=proxy.uri), "ifa")
            analysis, breaks, spent = Watched(), Breaks(proxy, *OUTAGES[name]), timed(logger)
            fit(logger, [analysis, breaks])
            seconds[name].append(breaks.seconds)
            beside[name].append(breaks.beside)
            held[name].append(sum(analysis.blocked) + sum(spent))
        _print_outages(seconds, beside, held)


def _print_outages(seconds, beside, held):
    """Print wall time, and what depends less on the machine: how long training was held, and what ran beside it."""
    plain = np.array(seconds["undisturbed"])
    print(f"training of {EPOCHS} epochs, undisturbed server: {np.median(plain):.2f} s, {len(plain)} rounds")
    for name in OUTAGES:
        low, middle, high = np.quantile(np.array(seconds[name]) / plain, (0.25, 0.5, 0.75))
        share = np.array(held[name]) / np.array(seconds[name])
        print(
            f"{name}: time / undisturbed: median {middle:.3f}, quartiles {low:.3f} to {high:.3f}; training thread in "
            f"logging and hand-over {1000 * np.median(held[name]):.1f} ms, {np.median(share):.2%} of the training; CPU "
            f"time of the other threads {np.median(beside[name]):.2f} s",
            flush=True,
        )


PARTS = {"requests": requests, "outages": outages}


@contextmanager
def served():
    """A proxy before a server of our own, in a working directory of our own."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        os.chdir(folder)
        server = Server(Path(folder)).start()
        proxy = Proxy(server.port)
        try:
            yield proxy
        finally:
            proxy.close()
            server.kill()
            os.chdir(ROOT)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="*", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--analyses", type=int, default=6)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # takes the server along
    for name in ("pytorch_lightning", "lightning.pytorch", "mlflow", "lightning_ifa"):
        logging.getLogger(name).setLevel(logging.ERROR)
    torch.set_num_threads(options.threads)
    with served() as proxy:
        for part in options.parts:
            PARTS[part](proxy, options)


if __name__ == "__main__":
    main()
