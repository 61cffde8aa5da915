"""Run a model over the reference samples and fill the FeatureTable."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
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
from lightning_ifa.features.cam import Method, cam, cam_weights, contributions
from lightning_ifa.features.isolation import undisturbed
from lightning_ifa.features.layers import find_layer
from lightning_ifa.features.properties import image_properties
from lightning_ifa.features.rescore import Rescore, reader
from lightning_ifa.features.sampling import Indices, drawn_twice, reference_loader, sample_ids
from lightning_ifa.features.self_check import Captured, require_sound_capture
from lightning_ifa.features.table import FeatureTable
from lightning_ifa.features.tap import Tap, gradients_allowed, normal
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

    def __call__(self, loader: DataLoader[Any], indices: Indices) -> FeatureTable:
        """Fill the table for the given samples of a loader's data set; nothing is disturbed.

        Args:
            loader: The user's loader; its data set, collation, batch size and workers are used.
            indices: Data-set indices, shape ``(n,)``.

        Raises:
            IFAError: A layer, batch, output or value that cannot be explained; see ``lightning_ifa.errors``.
        """
        with undisturbed(self.model, self.seed), torch.inference_mode(False), torch.no_grad():
            return self._table(loader, indices)

    def is_augmented(self, loader: DataLoader[Any], indices: Indices) -> bool:
        """Whether the loader's data set gives different inputs for one and the same index."""
        with undisturbed(self.model, self.seed):
            first, second = (read_with(self.batch_fn, b)[0] for b in drawn_twice(loader, indices, self.seed))
        return first.shape != second.shape or not torch.equal(first, second)

    def _table(self, loader: DataLoader[Any], indices: Indices) -> FeatureTable:
        batches = self.batches(reference_loader(loader, indices, self.seed))
        rows, crc, x, y = next(batches)
        with self.forward_context(), gradients_allowed():
            target = find_layer(self.model, x, self.layer)
        task = infer_task(target.output, y) if self.task == "auto" else self.task
        collected = _Columns()
        with Tap(self.model, target.module, target.name) as tap:
            while True:
                self._add(collected, tap, task, rows, crc, x, y)
                try:
                    rows, crc, x, y = next(batches)
                except StopIteration:
                    break
        assert collected.first is not None
        require_sound_capture(self.model, target.module, target.name, collected.first)
        return collected.table(
            sample_ids=sample_ids(loader.dataset, indices),
            layer=target.name,
            task=task if isinstance(task, str) else "custom",
            cam=self.cam if isinstance(self.cam, str) else getattr(self.cam, "__name__", "custom"),
        )

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
        collected: _Columns,
        tap: Tap,
        task: str | ScoreFunction,
        rows: list[int],
        crc: NDArray[np.int64],
        x: Tensor,
        y: Any,
    ) -> None:
        positions = torch.tensor(rows)
        with self.forward_context():
            output = tap.forward(x)
        with torch.enable_grad():
            readout = read_output(output, y, task, positions)
            explained = explained_class(readout, self.explain)
            score = readout.logits.gather(1, explained[:, None])[:, 0]
        raw, G = tap.gradient(score)
        A, G = raw.float(), G.float()
        _check_finite(A, rows)
        read = reader(y, task, positions, explained)
        rescore = Rescore(tap, x, score.detach(), read, self.forward_context)
        if not collected.parts:
            collected.first = Captured(x, A, G, score.detach(), explained, _coarsest(raw, output))
        collected.add(
            contributions=contributions(A, G),
            activations=A.flatten(2).mean(2),
            cams=cam(A, G, cam_weights(self.cam), rescore),
            logits=readout.logits,
            targets=readout.targets,
            predictions=readout.predictions,
            explained=explained,
            indices=positions,
            fingerprints=torch.from_numpy(crc),
        )
        collected.add_properties(image_properties(x))


@dataclass
class _Columns:
    """Batches on the way to columns; held on the CPU so that device memory stays flat."""

    parts: dict[str, list[NDArray[Any]]] = field(default_factory=dict)
    properties: list[pd.DataFrame] = field(default_factory=list)
    first: Captured | None = None

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
    bad = ~A.flatten(1).isfinite().all(1)
    if bool(bad.any()):
        first = rows[int(bad.int().argmax())]
        raise DataError(
            f"the target layer's activation has NaN or infinite values for {int(bad.sum())} of {len(rows)} samples "
            f"of a batch, first at data-set index {first}; has the training diverged?"
        )
