"""A training in a process of its own that gets a signal: ``interrupted_job.py FOLDER MOMENT SIGNAL ANALYSED``."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
import time
import warnings
from pathlib import Path

import pytorch_lightning as pl
from lightning_modules import Classifier, loaders, weights
from pytorch_lightning.loggers import CSVLogger
from time_limit import run_within
from torch.utils.data import DataLoader, Dataset

from lightning_ifa.training.callback import IntegratedFeatureAnalysis


def run_job(folder, moment, name, analysed):
    """Train in a process and send it a signal; give the seconds until its end, and what it left."""
    folder.mkdir()
    helpers, root = Path(__file__).parent, Path(__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(helpers), str(root)]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, str(folder), moment, name, "1" if analysed else ""]
    code, said = run_within(180, command, env=environment, cwd=folder)
    ended = time.time()
    assert (folder / "signalled").exists(), said
    found = folder / "found.json"
    left = json.loads(found.read_text()) if found.exists() else None
    return ended - float((folder / "signalled").read_text()), (code, left)


class Signal:
    """Sends the signal to this process, once."""

    def __init__(self, folder, number):
        self.file, self.number = folder / "signalled", number

    def send(self):
        if not self.file.exists():
            self.file.write_text(str(time.time()))
            os.kill(os.getpid(), self.number)


class Slow(Dataset):
    """Takes its time in the analysis."""

    def __init__(self, data, act):
        self.data, self.act = data, act

    def __len__(self):
        return len(self.data)

    def __getitem__(self, index):
        if self.act is not None and in_analysis():
            self.act()
            time.sleep(0.2)
        return self.data[index]


def in_analysis():
    """Whether the package runs right now, in this process or the one that it forked from."""
    frame = sys._getframe()
    while frame is not None:
        if "/lightning_ifa/" in frame.f_code.co_filename:
            return True
        frame = frame.f_back
    return False


def main():
    folder, moment, number = Path(sys.argv[1]), sys.argv[2], signal.Signals[sys.argv[3]]
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a parent in the background may have ignored
    warnings.simplefilter("ignore")
    send = Signal(folder, number).send
    pl.seed_everything(0, verbose=False)
    module, data = Classifier(), loaders()
    data = tuple(DataLoader(Slow(each.dataset, send if moment == "data" else None), batch_size=8) for each in data)
    hooks, options = {}, {"probes": 2, "install_view": False}
    if moment in ("training", "drawing"):
        hooks["on_train_batch_end"] = lambda trainer, *_: trainer.global_step == 8 and send()
    if moment == "validation":
        hooks["on_validation_epoch_end"] = lambda trainer, *_: trainer.sanity_checking or send()
    if moment == "drawing":
        from matplotlib.figure import Figure

        Figure.savefig = lambda *_, **__: time.sleep(20)
    if moment == "forward":
        plain = module.net.forward

        def forward(x):
            if in_analysis():
                send()
                time.sleep(0.5)
            return plain(x)

        module.net.forward = forward
    listening = socket.create_server(("127.0.0.1", 0))
    if moment == "closing":
        options |= {"tracking_uri": f"http://127.0.0.1:{listening.getsockname()[1]}", "run_id": "0" * 32}
        hooks["on_fit_end"] = lambda *_: threading.Timer(1.0, send).start()
    user = type("User", (pl.Callback,), {name: staticmethod(act) for name, act in hooks.items()})()
    ours = [IntegratedFeatureAnalysis(**options)] if sys.argv[4] else []
    trainer = pl.Trainer(
        callbacks=[*ours, user], max_epochs=2, accelerator="cpu", logger=CSVLogger(folder), default_root_dir=folder,
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
    )  # fmt: skip
    error = None
    try:
        trainer.fit(module, *data)
    except BaseException as found:
        error = type(found).__name__
        raise
    finally:
        left = [weights(module), trainer.global_step, trainer.state.status, trainer.interrupted, error]
        (folder / "found.json").write_text(json.dumps(left))


if __name__ == "__main__":
    main()
