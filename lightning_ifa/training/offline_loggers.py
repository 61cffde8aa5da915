"""Trainings without a server and without a line of code: ``LIGHTNING_IFA_OFFLINE=1 python train.py``.

A logger makes its run before any callback is asked, so the loggers' classes are changed, once: whichever logger is
about to make its run gets a spool first.
"""

from __future__ import annotations

import sys
from typing import Any

from lightning_ifa.tracking.switches import is_offline

_MODULES = ("pytorch_lightning.loggers.mlflow", "lightning.pytorch.loggers.mlflow")


def make_loggers_offline() -> None:
    """Let every ``MLFlowLogger`` that has no run yet get a spool, if the environment asks for that."""
    if not is_offline():
        return
    for name in _MODULES:
        kind = getattr(sys.modules.get(name), "MLFlowLogger", None)
        if kind is not None and not getattr(kind, "_lightning_ifa_offline", False):
            kind.experiment = property(_with_spool(kind.experiment.fget))
            kind._lightning_ifa_offline = True


def _with_spool(experiment: Any) -> Any:
    def get(logger: Any) -> Any:
        from lightning_ifa.tracking.spooling_client import outage_proof

        if is_offline() and not logger._initialized:
            outage_proof(logger)
        return experiment(logger)

    get.__doc__ = experiment.__doc__
    return get
