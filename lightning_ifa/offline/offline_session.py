"""Let a configuration's validation be analysed as within a training, for the sake of the report alone."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from lightning_ifa.training import trainer as access
from lightning_ifa.training.lightning_packages import callback_bases
from lightning_ifa.training.session import Session, sessions


def prepare_offline(cli: Any) -> Session:
    """Prepare a LightningCLI for a validation with training samples, of which nothing is published.

    Args:
        cli: The LightningCLI whose parts are made, and have not run.

    Returns:
        The session that will hold the report: that of the first analysis. Further ones do nothing.
    """
    session, *others = sessions(cli.trainer)
    for other in others:
        other.is_fallback = True
    session.notices.raises = True
    session.publishes = False
    set_up_training_samples(cli.trainer, cli.model if cli.datamodule is None else cli.datamodule)
    cli.trainer.callbacks.insert(0, _TrainingSamples(session))
    return session


class _TrainingSamples(*callback_bases()):  # type: ignore[misc]  # pl.Callback, whichever package asks
    """Tells a session of the training samples, which a validation alone does not load."""

    def __init__(self, session: Session) -> None:
        self._analysed = session

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        """Make the training loaders, and look for samples without augmentation."""
        access.load_training_samples(trainer)
        self._analysed.find_clean_samples(trainer)


def set_up_training_samples(trainer: Any, owner: Any) -> None:
    """Set a module or data module up for a fit: a set-up for validation alone may leave the training samples out.

    Random states are put back, so that splits which Lightning's own set-up draws anew are drawn as in the training.
    """
    owner.trainer = trainer
    with _unmoved_generators():
        owner.prepare_data()
        owner.setup("fit")


@contextmanager
def _unmoved_generators() -> Iterator[None]:
    states = random.getstate(), np.random.get_state()  # noqa: NPY002 - the user's legacy state is at stake
    with torch.random.fork_rng(devices=[]):
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])  # noqa: NPY002
