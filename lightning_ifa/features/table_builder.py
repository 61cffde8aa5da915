"""From batches to a FeatureTable for each target layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils._pytree import tree_leaves

from lightning_ifa.cam.methods import Method, cam_weights, contributions_and_cam, method_name
from lightning_ifa.data.feature_table import ONE_LABEL, FeatureTable
from lightning_ifa.data.image_properties import image_properties
from lightning_ifa.data.several_sizes import median_size, resize
from lightning_ifa.data.thumbnails import thumbnails
from lightning_ifa.errors import DataError
from lightning_ifa.features.feature_batch import FeatureBatch
from lightning_ifa.features.look_capture import LookCapture
from lightning_ifa.features.place_evidence import PlaceEvidence
from lightning_ifa.model.activation_capture import pause_captures
from lightning_ifa.model.capture_check import CapturedBatch, require_sound_capture
from lightning_ifa.model.outputs import explained_class


class TableBuilder:
    """Fills tables batch by batch, with one forward pass and one backward pass of the head each.

    Args:
        explain: ``"target"``, ``"prediction"`` or a class index.
        cam: Name of a CAM method, a function ``(A, G) -> weights``, or a ``WithForwards``.
        map_size: Size of the maps, where the inputs may be of several sizes; by default the median one.
        search: Whether places and looks are noted.
    """

    def __init__(
        self, explain: str | int, cam: str | Method, map_size: tuple[int, ...] | None = None, *, search: bool = False
    ) -> None:
        self._explain, self._cam, self._map_size, self._search = explain, cam, map_size, search
        self._columns: list[_Columns] = []
        self._looks = LookCapture()
        self._task = ""
        self._from_probabilities = False

    def add(self, batch: FeatureBatch) -> None:
        """Add a batch's rows; of the first one the captures are checked.

        Raises:
            IFAError: A batch, output or value that cannot be explained.
        """
        readout, run = batch.readout, batch.run
        explained = explained_class(readout, self._explain)
        pairs = batch.gradients(explained)
        shared = {
            "logits": readout.logits,
            "targets": readout.targets,
            "predictions": readout.predictions,
            "explained": explained,
            "indices": batch.samples.positions,
            "fingerprints": batch.samples.fingerprints,
        }
        pictures = batch.pictures
        small = thumbnails(pictures)
        if small is not None:
            shared["thumbnails"] = small
        for name in ("object_size", "dice"):
            if (values := getattr(readout, name)) is not None:
                shared[name] = values
        self._from_probabilities |= readout.from_probabilities
        properties = pd.DataFrame({k: values.numpy(force=True) for k, values in image_properties(pictures).items()})
        self._task = run.task if isinstance(run.task, str) else "custom"
        for number, (capture, (raw, grad)) in enumerate(zip(run.captures, pairs, strict=True)):
            A, G, rescore = raw.float(), grad.float(), batch.rescore(explained, number)
            _check_finite(A, batch.samples.positions)
            if len(self._columns) <= number:
                with pause_captures(run.captures), run.context():
                    precision = _coarsest(raw, batch.output)
                    captured = CapturedBatch(batch.x, A, G, rescore.score, explained, precision)
                    require_sound_capture(run.model, capture.target, captured)
                gradient = "conservative" if capture.held else "plain"
                self._columns.append(_Columns(capture.target.name, gradient, self._map_size))
            C, maps = contributions_and_cam(A, G, cam_weights(self._cam), rescore)
            own = {"contributions": C, "activations": A.flatten(2).mean(2), "cams": maps}
            own["unplaced"] = C.new_zeros(len(C)) if capture.unplaced is None else capture.unplaced
            self._columns[number].add(properties, **own, **shared)
            if self._search and self._task in ONE_LABEL:
                self._columns[number].places.add(A, G, explained, readout.logits.shape[1])

    def run(self, batch: FeatureBatch) -> None:
        """Run the network on a batch that is added next, and note what the blocks before the target layer see."""
        if not self._search:
            return
        run = batch.run
        run.find_targets(batch.x, batch.samples.y)
        with pause_captures(run.captures), run.context():
            self._looks.choose(run.model, run.targets[0], batch.x, run.state)
        with self._looks.watch():
            _ = batch.output
        self._looks.keep()

    def tables(self, asked: int, name_samples: Callable[[NDArray[np.int64]], NDArray[np.str_]]) -> list[FeatureTable]:
        """Give the tables, one a target layer.

        Args:
            asked: Number of samples that were asked for.
            name_samples: Gives the names of samples from their data-set indices.

        Raises:
            DataError: No sample was added.
        """
        if not self._columns:
            raise DataError(f"the loader's collate_fn drops every one of {asked} samples")
        indices = self._columns[0].indices
        labels: dict[str, Any] = {"sample_ids": name_samples(indices), "task": self._task}
        labels["cam"] = method_name(self._cam)
        if self._task in ONE_LABEL:
            labels |= {"looks": self._looks.looks(len(indices)), "blocks": self._looks.blocks}
        notes = [_PROBABILITIES] if self._from_probabilities else []
        if len(indices) < asked:
            notes.append(_DROPPED.format(asked - len(indices), asked))
        return [columns.table(notes, **labels) for columns in self._columns]


_PROBABILITIES = (
    "the model returns probabilities; they are read as the logits before its sigmoid or softmax, which is what is "
    "explained"
)
_DROPPED = "the loader's collate_fn dropped {} of {} samples; they are left out, the others are analysed"
_SIZES = "the inputs are of several sizes; their maps are resized to the median size, {}"


@dataclass
class _Columns:
    """Batches on the way to columns; they lie on the CPU so that device memory stays flat."""

    layer: str
    gradient: str
    map_size: tuple[int, ...] | None
    parts: dict[str, list[NDArray[Any]]] = field(default_factory=dict)
    properties: list[pd.DataFrame] = field(default_factory=list)
    places: PlaceEvidence = field(default_factory=PlaceEvidence)

    def add(self, properties: pd.DataFrame, **columns: Tensor) -> None:
        self.properties.append(properties)
        for name, values in columns.items():
            self.parts.setdefault(name, []).append(values.detach().numpy(force=True))

    @property
    def indices(self) -> NDArray[np.int64]:
        return np.concatenate(self.parts["indices"])

    def table(self, notes: Sequence[str], **labels: Any) -> FeatureTable:
        size = median_size(self.parts["cams"])
        notes = [*notes, _SIZES.format(" x ".join(map(str, size)))] if size else notes
        if size or self.map_size:
            size = self.map_size or size
            self.parts["cams"] = [resize(part, size or (), keep_sum=True) for part in self.parts["cams"]]
        columns: dict[str, Any] = {name: np.concatenate(parts) for name, parts in self.parts.items()}
        labels["notes"] = tuple(notes)
        properties = pd.concat(self.properties, ignore_index=True)
        columns["places"] = self.places.evidence(len(properties))
        metadata = pd.DataFrame(index=properties.index)
        labels |= {"layer": self.layer, "gradient": self.gradient, "place_unit": self.places.unit}
        return FeatureTable(**columns, properties=properties, metadata=metadata, **labels)


def _coarsest(*values: Any) -> torch.dtype:
    """The least precise floating-point type among some tensors, however nested."""
    found = {leaf.dtype for leaf in tree_leaves(values) if torch.is_tensor(leaf) and leaf.is_floating_point()}
    return max(found, key=lambda dtype: torch.finfo(dtype).eps)


def _check_finite(A: Tensor, positions: Tensor) -> None:
    bad = ~A.flatten(1).sum(1).isfinite()  # the sum shows it too, at a twentieth of the cost of asking each entry
    if bool(bad.any()):
        first = int(positions[int(bad.int().argmax())])
        raise DataError(
            f"the target layer's activation has NaN or infinite values for {int(bad.sum())} of {len(positions)} "
            f"samples of a batch, first at data-set index {first}; has the training diverged?"
        )
