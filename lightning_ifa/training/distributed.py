"""What the ranks of a trainer do together: every one of them must call these functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import torch

from lightning_ifa.data.feature_table import FeatureTable
from lightning_ifa.data.sampling import Indices
from lightning_ifa.errors import IFAError

T = TypeVar("T")


def own_share(trainer: Any, indices: Indices) -> Indices:
    """This rank's part of the samples; no sample is padded or seen twice."""
    return indices[trainer.global_rank :: trainer.world_size]


def run_on_all_ranks(trainer: Any, work: Callable[[], T]) -> T:
    """Do something on every rank, or raise on every rank: one that failed alone would leave the others waiting."""
    error: Exception | None = None
    try:
        result = work()
    except Exception as failure:
        error = failure
    if not bool(trainer.strategy.reduce_boolean_decision(error is None, all=True)):
        raise error or IFAError("the analysis failed on another rank")
    return result


def run_on_rank_zero(trainer: Any, work: Callable[[], T]) -> T:
    """Do something on rank 0 and give its result to every rank; raise on every rank where it fails."""
    result = run_on_all_ranks(trainer, lambda: work() if trainer.is_global_zero else None)
    return trainer.strategy.broadcast(result)  # type: ignore[no-any-return]


def gather_texts(trainer: Any, text: str) -> list[str]:
    """Bring one text of every rank to all ranks."""
    texts: list[Any] = [text]
    if trainer.world_size > 1:
        texts = [None] * trainer.world_size
        torch.distributed.all_gather_object(texts, text)
    return texts


def gather_tables(trainer: Any, table: FeatureTable | None) -> list[FeatureTable]:
    """Bring the ranks' tables to rank 0; nothing on the others."""
    tables: list[FeatureTable | None] | None = [table]
    if trainer.world_size > 1:
        tables = [None] * trainer.world_size if trainer.is_global_zero else None
        torch.distributed.gather_object(table, tables)
    return [part for part in tables or [] if part is not None]


def join_indices(trainer: Any, indices: Indices) -> Indices:
    """Join the samples that the ranks know of, so that all of them choose from the same ones; sorted, ``(n,)``."""
    if trainer.world_size == 1:
        return indices
    parts: list[Any] = [None] * trainer.world_size
    torch.distributed.all_gather_object(parts, indices)
    return np.unique(np.concatenate(parts))
