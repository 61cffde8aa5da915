"""Where the callback takes its samples from: a trainer's loaders, a clean counterpart, or samples of a stream."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from torch.utils.data import DataLoader

from lightning_ifa.data.reservoir import Reservoir
from lightning_ifa.data.sampling import BATCH_SIZE, Indices, batch_size, draw_from, is_stream, reach_of
from lightning_ifa.data.single_samples import split_batches
from lightning_ifa.errors import DataError
from lightning_ifa.features.extractor import FeatureExtractor
from lightning_ifa.training import trainer as access
from lightning_ifa.training.distributed import join_indices, run_on_all_ranks

AUGMENTED_SAMPLES = 256
"""Training samples that are looked at both clean and augmented."""


@dataclass(frozen=True)
class ReferenceSamples:
    """Samples to analyse.

    Attributes:
        split: ``"train"`` or ``"validation"``.
        number: The number of the loader among those of its split.
        loader: A loader over a data set that can be indexed.
        extraction: How features are taken from it.
        indices: Data-set indices of the reference samples, shape ``(n,)``, the same on every rank.
    """

    split: str
    number: int
    loader: DataLoader[Any]
    extraction: FeatureExtractor
    indices: Indices


class Streams:
    """Samples of the trainer's streams, kept while they are read; no stream is iterated a second time.

    Args:
        size: The number of samples kept of each stream.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._held: dict[tuple[str, int], Reservoir | Exception] = {}

    def restart(self, split: str, loaders: Sequence[Any], extraction: FeatureExtractor, ranks: int) -> None:
        """Begin anew, for those loaders that are streams."""
        self._held = {key: held for key, held in self._held.items() if key[0] != split}
        for number, loader in enumerate(loaders):
            if is_stream(loader):
                alone = Reservoir(self._size, extraction.seed, extraction.batch_fn)
                self._held[split, number] = alone if ranks == 1 else DataError(_ONE_PROCESS.format(split))

    def add(self, split: str, number: int, batch: Any) -> None:
        """Keep some samples of a batch; an error waits until the samples are asked for."""
        held = self._held.get((split, number))
        if isinstance(held, Reservoir):
            try:
                held.add(batch)
            except Exception as error:
                self._held[split, number] = error

    def loader(self, split: str, number: int, size: int) -> DataLoader[Any]:
        """Give a loader over the samples that were kept.

        Raises:
            DataError: None was kept. The error that prevented it is raised again.
        """
        held = self._held.get((split, number), DataError(f"no sample of the {split} stream has been read yet"))
        if isinstance(held, Exception):
            raise held
        return held.loader(size)


_ONE_PROCESS = (
    "the {} samples come as a stream, which only one process can sample while it is read, and this training has "
    "several; give a map-style data set"
)


def _leave(batch: Any) -> Any:
    """Leave a batch as it is: a stream's samples were made ready when they were read."""
    return batch


@dataclass(frozen=True)
class TrainerLoaders:
    """A trainer's loaders, from which the reference samples of one analysis are chosen.

    Attributes:
        trainer: The trainer, of either Lightning package.
        extraction: How features are taken from batches as the loaders give them.
        streams: The samples that were kept of streams.
        max_samples: The largest number of samples of a split.
        clean: The user's training loader without augmentation, or None.
        warn: A function that warns the user once of a text.
    """

    trainer: Any
    extraction: FeatureExtractor
    streams: Streams
    max_samples: int
    clean: Any | None
    warn: Callable[[str], None]

    def validation(self, number: int) -> ReferenceSamples:
        """Samples of one validation loader, of those that the validation itself sees.

        Raises:
            DataError: They cannot be had.
        """
        loader = access.validation_loaders(self.trainer)[number]
        return self._source("validation", number, loader, access.validation_batches(self.trainer, number))

    def train(self) -> ReferenceSamples | None:
        """Training samples: clean ones if offered, else of those that the training itself sees; None without any.

        Raises:
            DataError: They cannot be had.
        """
        own = next(iter(access.training_loaders(self.trainer)), None)
        if self.clean is not None and (own is None or not self._holds_same_samples(own)):
            return self._source("train", 0, self.clean, None)
        if own is None:
            return None
        source = self._source("train", 0, own, access.training_batches(self.trainer))
        return source if self.clean is None else replace(source, loader=self.clean)

    def augmented(self, clean: ReferenceSamples | None) -> ReferenceSamples | None:
        """Some of the clean training samples as the training itself sees them; None unless they are augmented."""
        own = next(iter(access.training_loaders(self.trainer)), None)
        if clean is None or self.clean is None or own is None or not self._holds_same_samples(own):
            return None
        few = clean.indices[:: -(-len(clean.indices) // AUGMENTED_SAMPLES)]
        if self.extraction.is_augmented(clean.loader, few) or not self.extraction.is_augmented(own, few):
            return None
        return ReferenceSamples("train", 0, own, self.extraction, few)

    def _holds_same_samples(self, own: Any) -> bool:
        """Whether index i may mean one and the same sample in both training sets."""
        if is_stream(own) or is_stream(self.clean):
            return False
        return len(own.dataset) == len(self.clean.dataset)  # type: ignore[union-attr]

    def _source(self, split: str, number: int, loader: Any, batches: int | None) -> ReferenceSamples:
        prepare = access.batch_preparation(self.trainer, number)
        extraction = replace(self.extraction, prepare=prepare, search=split == "validation")
        loader = split_batches(loader, extraction.batch_fn)
        if is_stream(loader):
            loader = self.streams.loader(split, number, getattr(loader, "batch_size", None) or BATCH_SIZE)
            extraction, batches = replace(extraction, prepare=_leave, batch_fn=None), None
        most = batch_size(loader) if access.is_fast_dev_run(self.trainer) else self.max_samples
        reach = run_on_all_ranks(self.trainer, partial(reach_of, loader, split, batches))
        if reach.doubt:
            self.warn(reach.doubt)
        reachable = join_indices(self.trainer, reach.indices) if reach.asked else reach.indices
        indices = draw_from(reachable, most, extraction.seed)
        return ReferenceSamples(split, number, loader, extraction, indices)
