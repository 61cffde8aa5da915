"""Run a model over the reference samples and fill the FeatureTable."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
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

from lightning_ifa.errors import DataError
from lightning_ifa.features.batches import BatchFunction, read_with
from lightning_ifa.features.cam import Method, cam_weights, contributions_and_cam, method_name
from lightning_ifa.features.isolation import undisturbed
from lightning_ifa.features.layers import find_layer
from lightning_ifa.features.passes import gradients_allowed, normal
from lightning_ifa.features.place import Place, Reshape
from lightning_ifa.features.properties import image_properties
from lightning_ifa.features.rescore import Rescore, reader
from lightning_ifa.features.sampling import Indices, drawn_twice, reference_loader, sample_ids
from lightning_ifa.features.self_check import Captured, require_sound_capture
from lightning_ifa.features.table import FeatureTable
from lightning_ifa.features.tap import Tap, gradients, paused, run_cut
from lightning_ifa.features.targets import ScoreFunction, explained_class, infer_task, read_output


@dataclass(frozen=True)
class Extraction:
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
        with undisturbed(self.model, self.seed), torch.inference_mode(False), torch.no_grad():
            return self._tables(loader, indices, layers)

    def is_augmented(self, loader: DataLoader[Any], indices: Indices) -> bool:
        """Whether the loader's data set gives different inputs for one and the same index."""
        with undisturbed(self.model, self.seed):
            first, second = (read_with(self.batch_fn, b)[0] for b in drawn_twice(loader, indices, self.seed))
        return first.shape != second.shape or not torch.equal(first, second)

    def _tables(self, loader: DataLoader[Any], indices: Indices, layers: Sequence[str | None]) -> list[FeatureTable]:
        task = self.task
        found: list[_Columns] = []
        taps: list[Tap] = []
        with ExitStack() as stack:
            for rows, crc, x, y in self.batches(reference_loader(loader, indices, self.seed)):
                if not taps:
                    places, task = self._survey(x, y, layers)
                    taps = [stack.enter_context(Tap(self.model, place)) for place in places]
                    found = [_Columns() for _ in taps]
                self._add(found, taps, task, rows, crc, x, y)
        ids = sample_ids(loader.dataset, indices)
        labels = {"task": task if isinstance(task, str) else "custom", "cam": method_name(self.cam)}
        return [
            columns.table(sample_ids=ids, layer=tap.place.name, **labels)
            for columns, tap in zip(found, taps, strict=True)
        ]

    def _survey(self, x: Tensor, y: Any, layers: Sequence[str | None]) -> tuple[list[Place], str | ScoreFunction]:
        with self.forward_context(), gradients_allowed():
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
            yield rows, crc.astype(np.int64), _to(device, normal(x)), _to(device, normal(y))

    def _add(
        self,
        found: list[_Columns],
        taps: list[Tap],
        task: str | ScoreFunction,
        rows: list[int],
        crc: NDArray[np.int64],
        x: Tensor,
        y: Any,
    ) -> None:
        positions = torch.tensor(rows)
        with self.forward_context():
            output = run_cut(taps, x)
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
                with paused(taps), self.forward_context():
                    captured = Captured(x, A, G, score, explained, _coarsest(raw, output))
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
