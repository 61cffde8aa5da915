"""How features are taken from a model: the one loop over the network, and the tables that come from it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lightning_ifa.cam.methods import Method
from lightning_ifa.data.batches import BatchFunction
from lightning_ifa.data.feature_table import FeatureTable
from lightning_ifa.data.preserved_state import preserve_generators
from lightning_ifa.data.sampling import Indices, collate_alone, draw_twice, read_batches, reference_loader, sample_ids
from lightning_ifa.features.feature_batch import FeatureBatch, NetworkRun
from lightning_ifa.features.samples import SampleReader, regroup
from lightning_ifa.features.table_builder import TableBuilder
from lightning_ifa.features.transfer_hooks import own_preparation
from lightning_ifa.model.batch_forward import BatchForward, ForwardFunction
from lightning_ifa.model.isolation import isolate
from lightning_ifa.model.output_form import widen_task
from lightning_ifa.model.outputs import ScoreFunction
from lightning_ifa.model.target_layer import Reshape, TargetLayer

_session: ContextVar[ExitStack | None] = ContextVar("session", default=None)
"""What the running session puts back at its end: a pass that is cut short by an error may be closed much later."""


@dataclass(frozen=True)
class FeatureExtractor:
    """How features are taken from a model; one of these serves both splits.

    Attributes:
        model: The network; called as ``model(x)``, unless ``forward_fn`` calls it.
        layer: Target layer, or None for the last activation the score depends on.
        task: One of ``TASKS``, a function ``(output, target) -> (n,)``, or ``"auto"``.
        explain: ``"target"``, ``"prediction"`` or a class index.
        cam: Name of a CAM method, a function ``(A, G) -> weights``, or a ``WithForwards``.
        batch_fn: Takes ``(x, y)`` from a batch of unusual form.
        seed: Seed of every random draw made on the way.
        prepare: Makes a batch ready for the model, as the user's training loop does; by default the transfer hooks of
            a LightningModule do.
        forward_context: Wraps each forward pass, as for mixed precision.
        reshape: Takes maps ``(n, c, *space)`` from the layer's output where its form is not recognised.
        forward_fn: Calls the network with a batch, where it is not called as ``model(x)``.
        ask: Called before each sample and batch that is read; what it raises ends the pass.
        gradient: ``"conservative"`` or ``"plain"``; see ``model.conservative_gradients``.
        search: Whether the places and looks are noted in which hidden variables are searched, of classifiers.
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
    forward_fn: ForwardFunction | None = None
    ask: Callable[[], None] | None = None
    gradient: str = "conservative"
    search: bool = False
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
        own, task = self, self.task
        with self.session():
            while True:
                builder = TableBuilder(self.explain, self.cam, search=self.search)
                for batch in own.batches(loader, indices, layers=layers, may_drop=True):
                    builder.run(batch)
                    if self.task == "auto":
                        task = widen_task(batch.told_task, str(batch.run.task))
                        if task != batch.run.task:
                            break
                    builder.add(batch)
                else:
                    return builder.tables(len(indices), partial(sample_ids, loader.dataset))
                own = replace(self, task=task)

    def is_augmented(self, loader: DataLoader[Any], indices: Indices) -> bool:
        """Whether the loader's data set gives different inputs for one and the same index."""
        with self.session():
            reader = self._reader(loader, may_drop=True)
            return any(
                not torch.equal(reader.input_of(first)[0], reader.input_of(second)[0])
                for first, second in draw_twice(loader, indices, self.seed, self.ask)
            )

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
        may_drop: bool = False,
    ) -> Iterator[FeatureBatch]:
        """Go through samples of a loader's data set: the one loop over the network, to be consumed in a session.

        Args:
            loader: The user's loader; its data set, collation, batch size and workers are used.
            indices: Data-set indices, shape ``(n,)``.
            layers: Names of the target layers; by default the extractor's own.
            state: Weights to run with in place of the model's own, by name.
            size: Samples a batch whatever the loader's batch size, which then decides nothing.
            apart: How many of the first samples share no batch with the others.
            may_drop: Whether samples that the user's collation drops are left out.

        Raises:
            DataError: The user's collation cannot join samples, or drops some that it had not dropped before.
        """
        own = reference_loader(loader, indices, self.seed, apart, self.ask)
        samples = self._reader(loader, may_drop).read(read_batches(own))
        named = [self.layer] if layers is None else layers
        caller = None if self.forward_fn is None else BatchForward(self.model, self.forward_fn)
        run = NetworkRun(
            self.model, named, self.task, self.reshape, self.forward_context, state, self.gradient, self._known
        )
        done = 0
        with ExitStack() as stack:
            session = _session.get()
            if session is not None:
                session.callback(stack.close)
            stack.enter_context(preserve_generators(loader.dataset, loader.collate_fn))
            stack.callback(run.close)
            if caller is not None:
                stack.enter_context(caller.installed())
            for part in samples if size is None else regroup(samples, size):
                if self.ask is not None:
                    self.ask()
                if caller is not None:
                    caller.begin(part.batch, part.x)
                yield FeatureBatch(part, slice(done, done + len(part.x)), run)
                done += len(part.x)

    def find_target(self, x: Tensor, y: Any = None) -> TargetLayer:
        """Find the target layer as an extraction of these samples does; to be called in a session.

        Args:
            x: Inputs as the network gets them, ``(n, ...)``.
            y: Their targets, or None.
        """
        ways = self.reshape, self.forward_context, None, self.gradient, self._known
        run = NetworkRun(self.model, [self.layer], self.task, *ways)
        run.find_targets(x, y)
        return run.targets[0]

    @contextmanager
    def calling(self, loader: DataLoader[Any], indices: Indices) -> Iterator[Tensor]:
        """Let ``model(x)`` run inside the ``with`` block, which gives a few inputs; also if ``forward_fn`` does.

        Args:
            loader: The user's loader.
            indices: Data-set indices of a few samples, ``(n,)``.
        """
        own = reference_loader(loader, indices, self.seed, 0, self.ask)
        first = next(iter(self._reader(loader, False).read(read_batches(own))))
        if self.forward_fn is None:
            yield first.x
            return
        caller = BatchForward(self.model, self.forward_fn)
        caller.begin(first.batch, first.x)
        with caller.installed():
            yield first.x

    def _reader(self, loader: DataLoader[Any], may_drop: bool) -> SampleReader:
        device = next((p.device for p in self.model.parameters()), torch.device("cpu"))
        return SampleReader(
            self.batch_fn,
            self.prepare or own_preparation(self.model, device),
            device,
            keeps_batch=self.forward_fn is not None,
            alone=partial(collate_alone, loader, self.seed),
            may_drop=may_drop,
        )
