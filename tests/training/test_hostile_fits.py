"""Hostile fits: whatever happens to the analysis, weights, status and error are as without the callback.

Each case is played twice, with and without the callback; what is hostile towards the fit itself hurts both alike.
"""

from __future__ import annotations

import copy
import errno
import io
import os
import pickle
import socket
import threading
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib.figure
import mlflow
import pandas as pd
import pytest
import pytorch_lightning as pl
import torch
from interrupted_job import in_analysis
from lightning_modules import Classifier, loaders, weights
from pytorch_lightning.loggers import CSVLogger, MLFlowLogger
from torch.utils.data import DataLoader, Dataset, IterableDataset

from lightning_ifa.errors import IFAWarning
from lightning_ifa.training import callback as callback_module
from lightning_ifa.training.callback import IntegratedFeatureAnalysis
from lightning_ifa.training.session import Session

QUICK = ("every part fails", "forward fails in the analysis", "thread cannot start", "Ctrl-C in the analysis")


@dataclass
class Scene:
    """A fit before it begins: a case changes whatever it likes.

    Attributes:
        patch: Undone after the fit.
        folder: The fit's own.
        uri: A real store.
        module: The user's module.
        data: Training and validation loader.
        options: Options of the callback.
        settings: Options of the trainer.
        hooks: What the user's own callback does, by name of hook.
        resume: Whether the fit goes on with a checkpoint.
    """

    patch: pytest.MonkeyPatch
    folder: Path
    uri: str
    module: Any = field(default_factory=Classifier)
    data: Any = field(default_factory=loaders)
    options: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    hooks: dict[str, Any] = field(default_factory=dict)
    resume: bool = False


def raiser(error):
    def fail(*_, **__):
        raise error

    return fail


def no_space(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")


# The cases.


def part_fails(name):
    def case(scene):
        scene.patch.setattr(Session, name, no_space)
        scene.resume = name == "restore"

    return case


def every_part_fails(scene):
    for name in PARTS:
        scene.patch.setattr(Session, name, no_space)


def every_part_fails_and_so_does_the_fit(scene):
    every_part_fails(scene)
    scene.hooks["on_train_epoch_end"] = raiser(ValueError("the user's own"))


def moment_cannot_be_read(scene):
    scene.patch.setattr(callback_module, "moment_of", no_space)
    scene.resume = True


def forward_fails(error):
    """The network fails in the analysis, and only there."""

    def case(scene):
        plain = scene.module.net.forward

        def forward(x):
            if in_analysis():
                raise error
            return plain(x)

        scene.module.net.forward = forward

    return case


def forward_gives(value):
    def case(scene):
        plain = scene.module.head.forward
        scene.module.head.forward = lambda x: plain(x) * 0 + value if in_analysis() else plain(x)

    return case


class Brittle(Dataset):
    """Fails at an index, in the analysis only; or ends its worker."""

    def __init__(self, data, error=None):
        self.data, self.error = data, error

    def __len__(self):
        return len(self.data)

    def __getitem__(self, index):
        if index == 5 and in_analysis():
            if self.error is None:
                os._exit(1)
            raise self.error
        return self.data[index]


def brittle(error, **options):
    def case(scene):
        train, validation = scene.data
        fragile = DataLoader(Brittle(validation.dataset, error), batch_size=8, **options)
        scene.data = DataLoader(Brittle(train.dataset, error), batch_size=8, **options), fragile

    return case


class Once(IterableDataset):
    """A stream that can be read once an epoch: whoever reads it apart from the fit gets an error."""

    def __init__(self, data):
        self.data = data

    def __iter__(self):
        if in_analysis():
            raise RuntimeError("read already")
        yield from (self.data[i] for i in range(len(self.data)))


def stream_is_gone(scene):
    scene.data = tuple(DataLoader(Once(each.dataset), batch_size=8) for each in scene.data)


def metadata_goes(scene):
    path = scene.folder / "metadata.csv"
    pd.DataFrame({"split": "validation", "index": range(24), "site": "a"}).to_csv(path, index=False)
    scene.options["metadata"] = str(path)
    scene.hooks["on_train_start"] = lambda *_: path.unlink(missing_ok=True)


def metadata_is_garbage(scene):
    path = scene.folder / "metadata.csv"
    path.write_bytes(bytes(range(256)) * 9)
    scene.options["metadata"] = str(path)


def artifacts_cannot_be_written(scene):
    (scene.folder / "file").write_text("")
    client = mlflow.MlflowClient(scene.uri)
    name = f"blocked-{scene.folder.name}"
    client.create_experiment(name, artifact_location=(scene.folder / "file" / "below").as_uri())
    scene.settings["logger"] = MLFlowLogger(name, tracking_uri=scene.uri)


def spool_cannot_be_made(scene):
    scene.hooks["setup"] = lambda *_: (scene.folder / "ifa").write_text("")


def spool_goes(scene):
    def remove(*_):
        for job in (scene.folder / "ifa").rglob("*"):
            if job.is_file():
                job.unlink(missing_ok=True)

    scene.hooks["on_train_batch_end"] = scene.hooks["on_train_epoch_start"] = remove


def disk_is_full(scene):
    """Everything that the package writes from its threads fails."""
    plain = io.open

    def full(file, mode="r", *arguments, **options):
        if set("wax+") & set(mode) and threading.current_thread().name.startswith("lightning-ifa"):
            no_space()
        return plain(file, mode, *arguments, **options)

    scene.patch.setattr("builtins.open", full)
    scene.patch.setattr("io.open", full)


def no_thread_starts(scene):
    plain = threading.Thread.start

    def start(thread):
        if thread.name.startswith("lightning-ifa"):
            raise RuntimeError("can't start new thread")
        plain(thread)

    scene.patch.setattr(threading.Thread, "start", start)


def server(answers):
    """The callback's own run lies on a server which hangs up, or never answers."""

    def case(scene):
        listening = socket.create_server(("127.0.0.1", 0))
        scene.patch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
        scene.patch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        port = listening.getsockname()[1]
        if answers == "refuses":
            listening.close()
        else:
            scene.hooks["_kept"] = listening
        scene.options |= {"tracking_uri": f"http://127.0.0.1:{port}", "run_id": "0" * 32}
        scene.settings["logger"] = CSVLogger(scene.folder)

    return case


class Unruly(CSVLogger):
    """A logger of the user's whose attributes fail whoever is not Lightning."""

    def __getattribute__(self, name):
        if name in {"experiment", "run_id", "_tracking_uri", "log_image", "_prefix"} and in_analysis():
            raise ConnectionError(name)
        return super().__getattribute__(name)


def logger_fails(scene):
    scene.settings["logger"] = Unruly(scene.folder)


def run_is_gone(scene):
    logger = MLFlowLogger("gone", tracking_uri=scene.uri)
    scene.settings["logger"] = logger
    scene.options["run_id"] = "f" * 32


def drawing_fails(scene):
    scene.patch.setattr(matplotlib.figure.Figure, "savefig", raiser(RuntimeError("no fonts")))


def sent_to_processes(scene):
    """The callback is copied and pickled in the midst of a fit."""

    def copy_all(trainer, *_):
        for each in trainer.callbacks:
            if isinstance(each, IntegratedFeatureAnalysis):
                pickle.loads(pickle.dumps(IntegratedFeatureAnalysis()))
                copy.deepcopy(each.state_dict())

    scene.hooks["on_train_epoch_end"] = copy_all


def interrupted_in_analysis(scene):
    """Ctrl-C while the package works; without it, in the same hook."""

    def interrupt(*_):
        raise KeyboardInterrupt

    scene.patch.setattr(Session, "analyze", interrupt)
    scene.hooks["on_validation_epoch_end"] = lambda trainer, *_: trainer.sanity_checking or interrupt()


def user_fails(hook, error):
    def case(scene):
        def fail(trainer, *_):
            if not trainer.sanity_checking and trainer.current_epoch == 1:
                raise error

        scene.hooks[hook] = fail

    return case


def user_fails_and_nothing_can_be_sent(scene):
    disk_is_full(scene)
    user_fails("on_train_epoch_end", ValueError("the user's own"))(scene)


PARTS = ("take", "start_stage", "start_fit", "start_epoch", "see_validation_batch", "is_due", "finish_validation",
         "analyze", "send", "finish_fit", "record", "state", "restore", "close")  # fmt: skip
CASES = {
    **{f"{name} fails": part_fails(name) for name in PARTS},
    "every part fails": every_part_fails,
    "every part fails, and the fit": every_part_fails_and_so_does_the_fit,
    "moment cannot be read": moment_cannot_be_read,
    "forward fails in the analysis": forward_fails(RuntimeError("not here")),
    "no memory on the device": forward_fails(torch.OutOfMemoryError("CUDA out of memory")),
    "no memory": forward_fails(MemoryError()),
    "endless recursion": forward_fails(RecursionError("maximum recursion depth exceeded")),
    "outputs that are no numbers": forward_gives(float("nan")),
    "infinite outputs": forward_gives(float("inf")),
    "data set fails": brittle(IndexError("five")),
    "data set fails in a worker": brittle(KeyError("five"), num_workers=1),
    "worker dies": brittle(None, num_workers=1),
    "stream is gone": stream_is_gone,
    "metadata file goes": metadata_goes,
    "metadata file is garbage": metadata_is_garbage,
    "artifacts cannot be written": artifacts_cannot_be_written,
    "spool cannot be made": spool_cannot_be_made,
    "spool goes": spool_goes,
    "disk is full": disk_is_full,
    "thread cannot start": no_thread_starts,
    "server hangs": server("hangs"),
    "server refuses": server("refuses"),
    "logger fails": logger_fails,
    "run is gone": run_is_gone,
    "drawing fails": drawing_fails,
    "copied and pickled": sent_to_processes,
    "Ctrl-C in the analysis": interrupted_in_analysis,
    "Ctrl-C in the training": user_fails("on_train_batch_end", KeyboardInterrupt()),
    "exit in the training": user_fails("on_train_batch_end", SystemExit(3)),
    "the user's hook fails": user_fails("on_validation_end", ValueError("the user's own")),
    "the user's hook fails on a full disk": user_fails_and_nothing_can_be_sent,
}  # fmt: skip


def played(case, folder, store, analysed):
    """Play a case; give weights, state of the trainer, status of the run, and the error."""
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        pl.seed_everything(0, verbose=False)
        scene = Scene(patch, folder, store)
        scene.settings["logger"] = MLFlowLogger("fits", tracking_uri=store)
        CASES[case](scene)
        pl.seed_everything(0, verbose=False)
        user = type("User", (pl.Callback,), {name: staticmethod(act) for name, act in scene.hooks.items()})()
        ours = [IntegratedFeatureAnalysis(probes=2, install_view=False, **scene.options)] if analysed else []
        settings = {"max_epochs": 2, "accelerator": "cpu", "default_root_dir": folder} | scene.settings
        trainer = pl.Trainer(callbacks=[*ours, user], enable_progress_bar=False, enable_model_summary=False, **settings)
        begin = folder.parent / "begin.ckpt"
        error = None
        try:
            trainer.fit(scene.module, *scene.data, ckpt_path=begin if scene.resume else None)
        except BaseException as found:
            error = type(found), str(found)
        run = getattr(trainer.logger, "run_id", None) if isinstance(trainer.logger, MLFlowLogger) else None
        status = mlflow.MlflowClient(store).get_run(run).info.status if run else None
        assert not any(part._forward_hooks or part._forward_pre_hooks for part in scene.module.modules())
        kept = scene.hooks.get("_kept")
        if kept is not None:
            kept.close()
        return weights(scene.module), trainer.state.status, trainer.global_step, trainer.interrupted, status, error


@pytest.mark.usefixtures("one_thread", "no_pictures")
@pytest.mark.parametrize("case", [*(pytest.param(c, marks=() if c in QUICK else pytest.mark.slow) for c in CASES)])
def test_the_fit_is_as_without_the_callback(case, store, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", IFAWarning)
        first = pl.Trainer(max_epochs=1, logger=False, accelerator="cpu", enable_progress_bar=False,
                           enable_model_summary=False, callbacks=[IntegratedFeatureAnalysis(probes=2)],
                           default_root_dir=tmp_path, num_sanity_val_steps=0)  # fmt: skip
        if case in ("restore fails", "moment cannot be read"):
            first.fit(Classifier(), *loaders())
            first.save_checkpoint(tmp_path / "begin.ckpt")
        plain = played(case, tmp_path / "without", store, analysed=False)
        assert played(case, tmp_path / "with", store, analysed=True) == plain
