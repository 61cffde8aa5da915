"""Run a model over the reference samples and fill the FeatureTable."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from torch.utils.data import DataLoader

from lightning_ifa.cam.methods import Method, cam_weights, contributions_and_cam, method_name
from lightning_ifa.cam.rescoring import Rescore, reader
from lightning_ifa.data.batches import BatchFunction, read_with
from lightning_ifa.data.feature_table import FeatureTable
from lightning_ifa.data.image_properties import image_properties
from lightning_ifa.data.sampling import Indices, drawn_twice, reference_loader, sample_ids
from lightning_ifa.errors import DataError
from lightning_ifa.model.activation_capture import ActivationCapture, gradients, pause_captures, run_captured
from lightning_ifa.model.capture_check import CapturedBatch, require_sound_capture
from lightning_ifa.model.forward import allow_gradients, as_ordinary_tensor
from lightning_ifa.model.head import Head
from lightning_ifa.model.isolation import isolate
from lightning_ifa.model.layer_search import find_layer
from lightning_ifa.model.outputs import Readout, ScoreFunction, explained_class, infer_task, read_output
from lightning_ifa.model.target_layer import Reshape, TargetLayer


@dataclass(frozen=True)
class FeatureExtractor:
    """How features are taken from a model; one of these serves both splits.

    Attributes:
        model: The network; called as ``model(x)``.
        layer: Target layer, or None for the last one with spatial output.
        task: One of ``TASKS``, a function ``(output, target) -> (n,)``, or ``"auto"``.
        explain: ``"target"``, ``"prediction"`` or a class index.
        cam: Name of a CAM method, a function ``(A, G) -> weights``, or a ``WithForwards``.
        batch_fn: Takes ``(x, y)`` from a batch of unusual form.
        seed: Of every random draw made on the way.
        prepare: Takes a batch to the model's device, as the user's training loop does.
        forward_context: Wraps each forward pass, as for mixed precision.
        reshape: Takes maps ``(n, c, *space)`` from the layer's output where its form is not recognised.
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
            loader: As for a single layer.
            indices: Data-set indices, shape ``(n,)``.
            layers: Names; they may be nested in one another.
        """
        with isolate(self.model, self.seed), torch.inference_mode(False), torch.no_grad():
            return self._tables(loader, indices, layers)

    def is_augmented(self, loader: DataLoader[Any], indices: Indices) -> bool:
        """Whether the loader's data set gives different inputs for one and the same index."""
        with isolate(self.model, self.seed):
            first, second = (read_with(self.batch_fn, b)[0] for b in drawn_twice(loader, indices, self.seed))
        return first.shape != second.shape or not torch.equal(first, second)

    def _tables(self, loader: DataLoader[Any], indices: Indices, layers: Sequence[str | None]) -> list[FeatureTable]:
        task = self.task
        found: list[_Columns] = []
        taps: list[ActivationCapture] = []
        with ExitStack() as stack:
            for rows, crc, x, y in self.batches(reference_loader(loader, indices, self.seed)):
                if not taps:
                    places, task = self._survey(x, y, layers)
                    taps = [stack.enter_context(ActivationCapture(self.model, place)) for place in places]
                    found = [_Columns() for _ in taps]
                self._add(found, taps, task, rows, crc, x, y)
        ids = sample_ids(loader.dataset, indices)
        labels = {"task": task if isinstance(task, str) else "custom", "cam": method_name(self.cam)}
        return [
            columns.table(sample_ids=ids, layer=tap.place.name, **labels)
            for columns, tap in zip(found, taps, strict=True)
        ]

    def _survey(self, x: Tensor, y: Any, layers: Sequence[str | None]) -> tuple[list[TargetLayer], str | ScoreFunction]:
        with self.forward_context(), allow_gradients():
            found = [find_layer(self.model, x, layer, self.reshape) for layer in layers]
        return [target.place for target in found], infer_task(found[0].output, y) if self.task == "auto" else self.task

    def batches(self, loader: DataLoader[Any]) -> Iterator[tuple[list[int], NDArray[np.int64], Tensor, Any]]:
        """Read a reference loader: data-set indices, input fingerprints, inputs and targets on the model's device."""
        device = next((p.device for p in self.model.parameters()), torch.device("cpu"))
        for rows, batch in loader:
            raw, _ = read_with(self.batch_fn, batch)
            crc = np.array([zlib.crc32(np.ascontiguousarray(one.numpy(force=True)).data) for one in raw.float()])
            x, y = read_with(self.batch_fn, self.prepare(batch) if self.prepare else batch)
            if len(x) != len(rows):
                raise DataError(f"the collated batch holds {len(x)} inputs for {len(rows)} samples of the data set")
            yield rows, crc.astype(np.int64), _to(device, as_ordinary_tensor(x)), _to(device, as_ordinary_tensor(y))

    def _add(
        self,
        found: list[_Columns],
        taps: list[ActivationCapture],
        task: str | ScoreFunction,
        rows: list[int],
        crc: NDArray[np.int64],
        x: Tensor,
        y: Any,
    ) -> None:
        positions = torch.tensor(rows)
        with self.forward_context():
            output = run_captured(taps, x)
        with torch.enable_grad():
            readout = read_output(output, y, task, positions)
            explained = explained_class(readout, self.explain)
            score = readout.logits.gather(1, explained[:, None])[:, 0]
        pairs = gradients(taps, score)
        score, logits = score.detach(), readout.logits.detach()
        shared = {
            "logits": logits,
            "targets": readout.targets,
            "predictions": readout.predictions,
            "explained": explained,
            "indices": positions,
            "fingerprints": torch.from_numpy(crc),
        }
        properties = image_properties(x)
        read = reader(y, task, positions, explained)
        for columns, tap, (raw, grad) in zip(found, taps, pairs, strict=True):
            A, G = raw.float(), grad.float()
            _check_finite(A, rows)
            if not columns.parts:
                with pause_captures(taps), self.forward_context():
                    captured = CapturedBatch(x, A, G, score, explained, _coarsest(raw, output))
                    require_sound_capture(self.model, tap.place, captured)
            rescore = Rescore(tap, x, score, read, self.forward_context, taps)
            C, maps = contributions_and_cam(A, G, cam_weights(self.cam), rescore)
            columns.add(contributions=C, activations=A.flatten(2).mean(2), cams=maps, **shared)
            columns.add_properties(properties)


@dataclass
class _Columns:
    """Batches on the way to columns; held on the CPU so that device memory stays flat."""

    parts: dict[str, list[NDArray[Any]]] = field(default_factory=dict)
    properties: list[pd.DataFrame] = field(default_factory=list)

    def add(self, **columns: Tensor) -> None:
        for name, values in columns.items():
            self.parts.setdefault(name, []).append(values.detach().numpy(force=True))

    def add_properties(self, columns: dict[str, Tensor]) -> None:
        self.properties.append(pd.DataFrame({name: values.numpy(force=True) for name, values in columns.items()}))

    def table(self, **labels: Any) -> FeatureTable:
        columns: dict[str, Any] = {name: np.concatenate(parts) for name, parts in self.parts.items()}
        properties = pd.concat(self.properties, ignore_index=True)
        return FeatureTable(**columns, properties=properties, metadata=pd.DataFrame(index=properties.index), **labels)


def _coarsest(*values: Any) -> torch.dtype:
    """The least precise floating-point type among some tensors, however nested."""
    found = {leaf.dtype for leaf in tree_leaves(values) if torch.is_tensor(leaf) and leaf.is_floating_point()}
    return max(found, key=lambda dtype: torch.finfo(dtype).eps)


def _to(device: torch.device, value: Any) -> Any:
    return value.to(device) if torch.is_tensor(value) else value


def _check_finite(A: Tensor, rows: list[int]) -> None:
    bad = ~A.flatten(1).sum(1).isfinite()  # the sum carries it on, and costs a twentieth of asking each entry
    if bool(bad.any()):
        first = rows[int(bad.int().argmax())]
        raise DataError(
            f"the target layer's activation has NaN or infinite values for {int(bad.sum())} of {len(rows)} samples "
            f"of a batch, first at data-set index {first}; has the training diverged?"
        )


@dataclass(frozen=True, eq=False)
class FeatureBatch:
    """One batch after its forward pass.

    Attributes:
        x: Input, ``(n, ...)``.
        y: Target as the loader gives it, or None.
        readout: Logits with a graph, targets, predictions.
        task: The task, found out if it was ``"auto"``.
        positions: Data-set indices, ``(n,)``.
        rows: Where these samples stand among all that were asked for.
        layer: The layer.
        tap: The cut at it.
    """

    x: Tensor
    y: Any
    readout: Readout
    task: str | ScoreFunction
    positions: Tensor
    rows: slice
    layer: TargetLayer
    tap: ActivationCapture
    _context: Callable[[], AbstractContextManager[Any]]

    def classes(self, of: int | NDArray[np.int64]) -> Tensor:
        """One class for all samples, or one a sample ``(n,)``, where ``gradient`` and ``rescore`` want them."""
        return torch.as_tensor(of, device=self.readout.logits.device).expand(len(self.x))

    def gradient(self, classes: Tensor) -> tuple[Tensor, Tensor]:
        """Activation and gradient of each sample's logit of a class, both ``(n, c, *space)`` float32.

        Args:
            classes: ``(n,)`` one class a sample. May be called again until the next batch is taken.
        """
        with torch.enable_grad():
            score = self.readout.logits.gather(1, classes[:, None])[:, 0]
        A, G = self.tap.gradient(score, keep=True)
        return A.float(), G.float()

    def rescore(self, classes: Tensor) -> Rescore:
        """What scores these samples again for a class each, ``(n,)``, as some CAM methods ask."""
        score = self.readout.logits.detach().gather(1, classes[:, None])[:, 0]
        read = reader(self.y, self.task, self.positions, classes)
        return Rescore(self.tap, self.x, score, read, self._context)

    def logits_of_means(self, means: Tensor) -> NDArray[np.float32] | None:
        """What the network makes of spatial means, ``(m, c)`` to ``(m, k)``; None if it sees more than means."""
        if len(self.x) < 2:  # too few to tell
            return None
        with (
            pause_captures([self.tap]),
            self._context(),
            Head(self.tap.model, self.layer, self.x, self.tap.state) as tail,
        ):
            if tail.reach != "means":
                return None
            y = self.y[:1].expand(len(means), *self.y.shape[1:]) if torch.is_tensor(self.y) else self.y
            logits = read_output(tail(means), y, self.task, self.positions[:1].expand(len(means))).logits
        return np.asarray(logits.numpy(force=True))


def explained_batches(
    extraction: FeatureExtractor, loader: DataLoader[Any], indices: Indices, state: Mapping[str, Tensor] | None = None
) -> Iterator[FeatureBatch]:
    """Run a model over samples of a loader's data set; to be consumed inside ``isolate``.

    Args:
        extraction: The model, its layer, and how its output is read.
        loader: The user's loader.
        indices: Data-set indices, ``(n,)``.
        state: Weights to run with in place of the model's own.
    """
    tap, task, done = None, extraction.task, 0
    try:
        for rows, _, x, y in extraction.batches(reference_loader(loader, indices, extraction.seed)):
            if tap is None:
                with extraction.forward_context(), allow_gradients():
                    place, output = find_layer(extraction.model, x, extraction.layer, extraction.reshape)
                task = infer_task(output, y) if task == "auto" else task
                tap = ActivationCapture(extraction.model, place, state=state).__enter__()
            with extraction.forward_context():
                output = tap.forward(x)
            with torch.enable_grad():
                readout = read_output(output, y, task, torch.tensor(rows))
            here, context = slice(done, done + len(rows)), extraction.forward_context
            yield FeatureBatch(x, y, readout, task, torch.tensor(rows), here, tap.place, tap, context)
            done += len(rows)
    finally:
        if tap is not None:
            tap.__exit__(None, None, None)
