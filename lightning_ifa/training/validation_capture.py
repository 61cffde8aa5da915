"""Rides on the user's validation where that gives the same bits, and stays out of it where it does not."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from typing import Any

from torch.utils.data import DataLoader

from lightning_ifa.data.batches import read_with
from lightning_ifa.data.feature_table import FeatureTable
from lightning_ifa.data.sampling import Indices
from lightning_ifa.features.activation_cache import ActivationCache, NotCacheableError, same_batches
from lightning_ifa.training.loaders import Source

log = logging.getLogger(__name__)


class ValidationCapture:
    """Rides with one trainer and module; once something goes wrong, the separate pass does the work from then on.

    Args:
        trainer: Whose batches.
        module: Whose forward passes.

    Attributes:
        refused: Why there is no ride, if there is none.
        ride: The ride, once begun.
    """

    def __init__(self, trainer: Any, module: Any) -> None:
        self._trainer, self._module = id(trainer), module  # a trainer that outlived its fit would hold the data
        self.refused: str | None = None
        self.ride: ActivationCache | None = None
        self._loader: DataLoader[Any] | None = None
        self._open = ExitStack()

    def knows(self, trainer: Any, module: Any) -> bool:
        """Whether it was made for these two."""
        return self._trainer == id(trainer) and self._module is module

    def start(self, source: Source, batch: Any) -> None:
        """Begin to note what the user's forward passes do.

        Args:
            source: Validation samples that will be analysed.
            batch: The first of the batches that are about to be validated.
        """
        if self.refused is not None:
            return
        try:
            if not same_batches(source.loader, source.indices):
                raise NotCacheableError("the reference samples are validated in other batches, or not all of them")
            if self.ride is None:
                self.ride = ActivationCache(source.extraction, read_with(source.extraction.batch_fn, batch)[0])
            self._open.enter_context(self.ride.record())
            self._loader = source.loader
        except Exception as error:
            self._refuse(error)

    def next_batch(self) -> None:
        """Say that the user's next batch begins."""
        if self.ride is not None:
            self.ride.next_batch()

    def stop(self) -> None:
        """Take every hook off the network."""
        self._open.close()

    def table(self, source: Source, indices: Indices) -> FeatureTable:
        """Fill a table, with what was noted or without: the bits are the same."""
        if self.ride is not None and self.refused is None and source.loader is self._loader:
            try:
                return self.ride.table(source.extraction, source.loader, indices)
            except Exception as error:  # the separate pass below meets the same error if it is the user's
                self._refuse(error)
        return source.extraction(source.loader, indices)

    def _refuse(self, error: Exception) -> None:
        self.stop()
        self.ride = self._loader = None
        self.refused = f"{type(error).__name__}: {error}"
        log.info("validation samples pass through the network a second time: %s", error)
