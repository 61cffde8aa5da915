"""How features are taken from a model: the one loop over the network, and the tables that come from it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lightning_ifa.cam.methods import Method
from lightning_ifa.data.batches import BatchFunction, read_with
from lightning_ifa.data.feature_table import FeatureTable
from lightning_ifa.data.preserved_state import preserve_generators
from lightning_ifa.data.sampling import Indices, drawn_twice, reference_loader, sample_ids
from lightning_ifa.features.feature_batch import FeatureBatch, NetworkRun
from lightning_ifa.features.samples import read_samples, regroup
from lightning_ifa.features.table_builder import TableBuilder
from lightning_ifa.model.isolation import isolate
from lightning_ifa.model.outputs import ScoreFunction
from lightning_ifa.model.target_layer import Reshape

_session: ContextVar[ExitStack | None] = ContextVar("session", default=None)
"""What the running session puts back at its end: a pass that is cut short by an error may be closed much later."""


@dataclass(frozen=True)
class FeatureExtractor:
    """How features are taken from a model; one of these serves both splits.

    Attributes:
        model: The network; called as ``model(x)``.
        layer: Target layer, or None for the last activation the score depends on.
        task: One of ``TASKS``, a function ``(output, target) -> (n,)``, or ``"auto"``.
        explain: ``"target"``, ``"prediction"`` or a class index.
        cam: Name of a CAM method, a function ``(A, G) -> weights``, or a ``WithForwards``.
        batch_fn: Takes ``(x, y)`` from a batch of unusual form.
        seed: Seed of every random draw made on the way.
        prepare: Takes a batch to the model's device, as the user's training loop does.
        forward_context: Wraps each forward pass, as for mixed precision.
        reshape: Takes maps ``(n, c, *space)`` from the layer's output where its form is not recognised.
        ask: Called before each sample and batch that is read; what it raises ends the pass.
        gradient: ``"conservative"`` or ``"plain"``; see ``model.conservative_gradients``.
    """

    model: nn.Module
    layer: str | None = None
    task: str | ScoreFunction = "auto"
    explain: str | int = "target"
    cam: str | Method = "hirescam"
    batch_fn: BatchFunction | None = None
    seed: int = 0
    prepare: Callable[[Any], Any] | None = None
    forward_context: Callable[[], AbstractContextManager[Any]] = nullcontext
    reshape: Reshape | None = None
    ask: Callable[[], None] | None = None
    gradient: str = "conservative"
    _known: dict[Any, Any] = field(default_factory=dict, repr=False, compare=False)

    def __call__(self, loader: DataLoader[Any], indices: Indices) -> FeatureTable:
        """Fill the table for the given samples of a loader's data set; nothing is disturbed.

        Args:
            loader: The user's loader; its data set, collation, batch size and workers are used.
            indices: Data-set indices, shape ``(n,)``.

        Raises:
            IFAError: A layer, batch, output or value that cannot be explained; see ``lightning_ifa.errors``.
        """
        return self.tables(loader, indices, [self.layer])[0]

    def tables(self, loader: DataLoader[Any], indices: Indices, layers: Sequence[str | None]) -> list[FeatureTable]:
        """Fill a table for each of several layers in one pass: one forward and one backward a batch.

        Args:
            loader: The user's loader, as for a single layer.
            indices: Data-set indices, shape ``(n,)``.
            layers: Names; they may be nested in one another.
        """
        builder = TableBuilder(self.explain, self.cam)
        with self.session():
            for batch in self.batches(loader, indices, layers=layers):
                builder.add(batch)
            return builder.tables(sample_ids(loader.dataset, indices))

    def is_augmented(self, loader: DataLoader[Any], indices: Indices) -> bool:
        """Whether the loader's data set gives different inputs for one and the same index."""
        with self.session():
            first, second = (read_with(self.batch_fn, b)[0] for b in drawn_twice(loader, indices, self.seed, self.ask))
        return first.shape != second.shape or not torch.equal(first, second)

    @contextmanager
    def session(self) -> Iterator[None]:
        """Leave no trace: evaluation mode, seeded random states, no gradients; everything is put back afterwards."""
        with isolate(self.model, self.seed), torch.inference_mode(False), torch.no_grad(), ExitStack() as stack:
            token = _session.set(stack)
            try:
                yield
            finally:
                _session.reset(token)

    def batches(
        self,
        loader: DataLoader[Any],
        indices: Indices,
        *,
        layers: Sequence[str | None] | None = None,
        state: Mapping[str, Tensor] | None = None,
        size: int | None = None,
        apart: int = 0,
    ) -> Iterator[FeatureBatch]:
        """Go through samples of a loader's data set: the one loop over the network, to be consumed in a session.

        Args:
            loader: The user's loader; its data set, collation, batch size and workers are used.
            indices: Data-set indices, shape ``(n,)``.
            layers: Names of the target layers; by default the extractor's own.
            state: Weights to run with in place of the model's own, by name.
            size: Samples a batch whatever the loader's batch size, which then decides nothing.
            apart: How many of the first samples share no batch with the others.
        """
        device = next((p.device for p in self.model.parameters()), torch.device("cpu"))
        own = reference_loader(loader, indices, self.seed, apart, self.ask)
        samples = read_samples(own, self.batch_fn, self.prepare, device)
        named = [self.layer] if layers is None else layers
        run = NetworkRun(
            self.model, named, self.task, self.reshape, self.forward_context, state, self.gradient, self._known
        )
        done = 0
        with ExitStack() as alone:
            stack = _session.get() or alone
            stack.enter_context(preserve_generators(loader.dataset, loader.collate_fn))
            stack.callback(run.close)
            for part in samples if size is None else regroup(samples, size):
                if self.ask is not None:
                    self.ask()
                yield FeatureBatch(part, slice(done, done + len(part.x)), run)
                done += len(part.x)
            run.close()
