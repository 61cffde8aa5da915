"""Captures the layer's output in the user's own validation where that gives the same bits, and only there."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from typing import Any

from torch.utils.data import DataLoader

from lightning_ifa.data.batches import read_with
from lightning_ifa.data.feature_table import FeatureTable
from lightning_ifa.data.sampling import Indices
from lightning_ifa.features.activation_cache import ActivationCache, NotCacheableError, same_batches
from lightning_ifa.training.loaders import ReferenceSamples

log = logging.getLogger(__name__)


class ValidationCapture:
    """Captures the validations of one trainer and module; after a failure, the separate pass does all the work.

    Args:
        trainer: The trainer whose validations are captured.
        module: The module that is validated.

    Attributes:
        refused: Why nothing is captured, or None.
        cache: What was captured, once it has begun.
    """

    def __init__(self, trainer: Any, module: Any) -> None:
        self._trainer, self._module = id(trainer), module  # a trainer that outlived its fit would hold the data
        self.refused: str | None = None
        self.cache: ActivationCache | None = None
        self._loader: DataLoader[Any] | None = None
        self._open = ExitStack()

    def knows(self, trainer: Any, module: Any) -> bool:
        """Whether it was made for these two."""
        return self._trainer == id(trainer) and self._module is module

    def start(self, samples: ReferenceSamples, batch: Any) -> None:
        """Begin to note what the user's forward passes do; ``batch`` is the first that is about to be validated."""
        if self.refused is not None:
            return
        try:
            if samples.extraction.forward_fn is not None:
                raise NotCacheableError("the network is called by forward_fn")
            if not same_batches(samples.loader, samples.indices):
                raise NotCacheableError("the reference samples are validated in other batches, or not all of them")
            if self.cache is None:
                self.cache = ActivationCache(samples.extraction, *read_with(samples.extraction.batch_fn, batch))
            self._open.enter_context(self.cache.record())
            self._loader = samples.loader
        except Exception as error:
            self._refuse(error)

    def next_batch(self) -> None:
        """Say that the user's next batch begins."""
        if self.cache is not None:
            self.cache.next_batch()

    def stop(self) -> None:
        """Take every hook off the network."""
        self._open.close()

    def table(self, samples: ReferenceSamples, indices: Indices) -> FeatureTable:
        """Fill a table, with what was captured or without: the bits are the same."""
        if self.cache is not None and self.refused is None and samples.loader is self._loader:
            try:
                return self.cache.table(samples.extraction, samples.loader, indices)
            except Exception as error:  # the separate pass below meets the same error if it is the user's
                self._refuse(error)
        return samples.extraction(samples.loader, indices)

    def _refuse(self, error: Exception) -> None:
        self.stop()
        self.cache = self._loader = None
        self.refused = f"{type(error).__name__}: {error}"
        log.info("validation samples pass through the network a second time: %s", error)
