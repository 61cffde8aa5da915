"""What each rank of a ``torchrun`` in the tests runs: ``torchrun_job.py FOLDER cpu``, or ``gpu``."""

from __future__ import annotations

import json
import os
import sys
import warnings
from pathlib import Path

import pytorch_lightning as pl
import torch
from lightning_modules import Net
from models import loader
from pytorch_lightning.loggers import MLFlowLogger
from time_limit import run_within

from lightning_ifa.training.callback import IntegratedFeatureAnalysis


def run_job(folder, accelerator, processes):
    """Run ``torchrun`` on this file; the results lie in the folder then."""
    helpers, root = Path(__file__).parent, Path(__file__).parents[2]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(helpers), str(root)]), "OMP_NUM_THREADS": "1"}
    code, said = run_within(300, [*command, __file__, str(folder), accelerator], env=environment, cwd=folder)
    assert code == 0, said


class FailsOnRankOne(IntegratedFeatureAnalysis):
    def on_validation_epoch_end(self, trainer, pl_module):
        if trainer.global_rank == 1:
            self.batch_fn = lambda batch: 1 / 0
        super().on_validation_epoch_end(trainer, pl_module)


def fit(folder, analysis, n_train, n_val, logger):
    """Train for an epoch; what this rank knows then goes to a file."""
    pl.seed_everything(0, verbose=False)
    trainer = pl.Trainer(
        accelerator=sys.argv[2], devices=int(os.environ["WORLD_SIZE"]), strategy="ddp", max_epochs=1,
        num_sanity_val_steps=0, logger=logger,
        callbacks=[analysis], default_root_dir=folder, enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False,
    )  # fmt: skip
    module = Net()
    trainer.fit(module, loader(n_train, seed=1, batch_size=4), loader(n_val, seed=2, batch_size=4))
    known = {key: float(value) for key, value in trainer.callback_metrics.items() if key.startswith("ifa/")}
    found = {"metrics": known, "weights": float(sum(p.double().abs().sum() for p in module.parameters()))}
    if analysis.report is not None:
        torch.save(module.state_dict(), folder / "weights.pt")
        found["ids"] = {split: list(table.sample_ids) for split, table in analysis.report.tables.items()}
    folder.mkdir(exist_ok=True)
    (folder / f"rank{trainer.global_rank}.json").write_text(json.dumps(found))


def main():
    folder = Path(sys.argv[1])
    warnings.simplefilter("ignore")
    logger = MLFlowLogger("torchrun", tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")
    (folder / "uneven").mkdir(exist_ok=True)
    fit(folder / "uneven", IntegratedFeatureAnalysis(on_error="raise"), 21, 13, logger)
    fit(folder / "failing", FailsOnRankOne(), 21, 13, False)
    fit(folder / "scarce", IntegratedFeatureAnalysis(max_samples=4), 4, 7, False)


if __name__ == "__main__":
    main()
