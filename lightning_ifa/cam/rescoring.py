"""The explained score of a batch from other inputs, or from other activations of the target layer."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from lightning_ifa.model.activation_capture import ActivationCapture, pause_captures
from lightning_ifa.model.activation_patching import ActivationPatch
from lightning_ifa.model.forward import run_forward
from lightning_ifa.model.head import Head
from lightning_ifa.model.outputs import ScoreFunction, read_output

SAMPLES = 64
"""Samples that pass through the network at once, or the user's own batch if that is larger."""

MEANS = 4096
"""The same where the head starts with global average pooling and is run on the means."""


class Rescore:
    """Scores the samples of one batch again; without a graph, in bounded memory.

    Args:
        capture: The capture at the target layer, after the batch's own pass.
        x: Its input, ``(n, ...)``.
        score: The explained score, ``(n,)``, without a graph.
        read: From the network's output for r versions of the batch, and r, to the explained scores ``(r * n,)``.
        context: Wraps each forward pass, as for mixed precision.
        others: Further captures of the same network.
    """

    def __init__(
        self,
        capture: ActivationCapture,
        x: Tensor,
        score: Tensor,
        read: Callable[[Any, int], Tensor],
        context: Callable[[], AbstractContextManager[Any]] = nullcontext,
        others: Iterable[ActivationCapture] = (),
    ) -> None:
        self._capture, self._read, self._context, self._captures = capture, read, context, [capture, *others]
        self.x, self.score = x, score

    @property
    def pictures(self) -> Tensor:
        """Inputs as ``(n, channels, *space)``, the space being the axes that the maps follow."""
        return self._capture.target.as_picture(self.x)

    def inputs(self, versions: Iterable[Tensor]) -> Tensor:
        """Score changed inputs.

        Args:
            versions: r tensors in the form of ``pictures``, made one at a time; several of them share a forward pass.

        Returns:
            Shape ``(n, r)``.
        """
        with pause_captures(self._captures), self._context():
            return self._scored(versions, SAMPLES // len(self.x), self._run)

    def activations(self, versions: Iterable[Tensor]) -> Tensor:
        """Score changed activations of the target layer; the backbone is skipped where that can be shown to be right.

        Args:
            versions: r tensors ``(n, c, *space)``, made one at a time.

        Returns:
            Shape ``(n, r)``.
        """
        capture, several = self._capture, SAMPLES // len(self.x)
        with pause_captures(self._captures), self._context():
            if len(self.x) < 2:  # too few to try a shortcut on
                patch = ActivationPatch(capture.model, capture.target, capture.state)
                return self._scored(versions, several, lambda v: patch.run(self._repeated(v), v))
            with Head(capture.model, capture.target, self.x, capture.state) as head:
                if head.scope == "pooled":
                    means = (version.flatten(2).mean(2) for version in versions)
                    return self._scored(means, MEANS // len(self.x), head)
                return self._scored(versions, several, lambda v: head(v, self._repeated(v)))

    def _scored(self, versions: Iterable[Tensor], together: int, run: Callable[[Tensor], Any]) -> Tensor:
        n, rest, found = len(self.x), iter(versions), []
        while group := list(islice(rest, max(1, together))):
            scores = self._read(run(torch.cat(group)), len(group))
            found.append(scores.detach().reshape(len(group), n))
        return torch.cat(found).T

    def _run(self, pictures: Tensor) -> Any:
        x = self._capture.target.from_picture(pictures, self.x)
        return run_forward(self._capture.model, x, self._capture.state)

    def _repeated(self, version: Tensor) -> Tensor:
        return torch.cat([self.x] * (len(version) // len(self.x)))


def reader(y: Any, task: str | ScoreFunction, positions: Tensor, explained: Tensor) -> Callable[[Any, int], Tensor]:
    """Make the function that reads the explained scores of r versions of one batch.

    Args:
        y: The batch's target, or None.
        task: The task.
        positions: Data-set indices, ``(n,)``.
        explained: Explained classes, ``(n,)``.
    """

    def read(output: Any, r: int) -> Tensor:
        target = torch.cat([y] * r) if torch.is_tensor(y) else y
        logits = read_output(output, target, task, positions.repeat(r)).logits
        return logits.gather(1, explained.repeat(r)[:, None])[:, 0]

    return read
