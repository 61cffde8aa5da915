"""Batches with their activations and any class's gradient, for what a FeatureTable does not hold."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from lightning_ifa.features.extract import Extraction
from lightning_ifa.features.layers import find_layer
from lightning_ifa.features.passes import gradients_allowed
from lightning_ifa.features.place import Place
from lightning_ifa.features.rescore import Rescore, reader
from lightning_ifa.features.sampling import Indices, reference_loader
from lightning_ifa.features.tail import Tail
from lightning_ifa.features.tap import Tap, paused
from lightning_ifa.features.targets import Readout, ScoreFunction, infer_task, read_output


@dataclass(frozen=True, eq=False)
class ExplainedBatch:
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
    layer: Place
    tap: Tap
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
        with paused([self.tap]), self._context(), Tail(self.tap.model, self.layer, self.x, self.tap.state) as tail:
            if tail.reach != "means":
                return None
            y = self.y[:1].expand(len(means), *self.y.shape[1:]) if torch.is_tensor(self.y) else self.y
            logits = read_output(tail(means), y, self.task, self.positions[:1].expand(len(means))).logits
        return np.asarray(logits.numpy(force=True))


def explained_batches(
    extraction: Extraction, loader: DataLoader[Any], indices: Indices, state: Mapping[str, Tensor] | None = None
) -> Iterator[ExplainedBatch]:
    """Run a model over samples of a loader's data set; to be consumed inside ``undisturbed``.

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
                with extraction.forward_context(), gradients_allowed():
                    place, output = find_layer(extraction.model, x, extraction.layer, extraction.reshape)
                task = infer_task(output, y) if task == "auto" else task
                tap = Tap(extraction.model, place, state=state).__enter__()
            with extraction.forward_context():
                output = tap.forward(x)
            with torch.enable_grad():
                readout = read_output(output, y, task, torch.tensor(rows))
            here, context = slice(done, done + len(rows)), extraction.forward_context
            yield ExplainedBatch(x, y, readout, task, torch.tensor(rows), here, tap.place, tap, context)
            done += len(rows)
    finally:
        if tap is not None:
            tap.__exit__(None, None, None)
