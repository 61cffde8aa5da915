"""Which data set inside torch's ``Subset`` and ``ConcatDataset`` knows something of a sample."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from typing import Any

from torch.utils.data import ConcatDataset, Subset

Knows = Callable[[Any], bool]


def owner(dataset: Any, index: int, knows: Knows) -> tuple[Any, int] | None:
    """Find the data set that holds a sample and knows something.

    Args:
        dataset: The outermost data set.
        index: Of the sample in it.
        knows: Whether a data set is the one looked for.

    Returns:
        The outermost such data set on the way to the sample, and the sample's index in it; None if there is none.
    """
    while not knows(dataset):
        if isinstance(dataset, Subset):
            dataset, index = dataset.dataset, int(dataset.indices[index])
        elif isinstance(dataset, ConcatDataset):
            part = bisect_right(dataset.cumulative_sizes, index)
            index -= dataset.cumulative_sizes[part - 1] if part else 0
            dataset = dataset.datasets[part]
        else:
            return None
    return dataset, index


def any_owner(dataset: Any, knows: Knows) -> bool:
    """Whether some of a data set's samples have such an owner."""
    if knows(dataset):
        return True
    if isinstance(dataset, Subset):
        return any_owner(dataset.dataset, knows)
    return isinstance(dataset, ConcatDataset) and any(any_owner(part, knows) for part in dataset.datasets)
