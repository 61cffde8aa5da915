"""One batch of samples, and every way in which the network is run on it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from lightning_ifa.cam.rescoring import Rescore, reader
from lightning_ifa.features.samples import Samples
from lightning_ifa.model.activation_capture import ActivationCapture, gradients, pause_captures, run_captured
from lightning_ifa.model.activation_patching import patch_output
from lightning_ifa.model.forward import allow_gradients, explain_failures, look_for_logits, run_forward
from lightning_ifa.model.layer_search import FoundLayer, find_layers
from lightning_ifa.model.layer_survey import FEW
from lightning_ifa.model.output_form import infer_task, output_tensor
from lightning_ifa.model.outputs import Readout, ScoreFunction, read_output
from lightning_ifa.model.probabilities import floating_leaves, is_within_unit
from lightning_ifa.model.target_layer import Reshape, TargetLayer

Classes = int | NDArray[np.int64] | Tensor
"""One class for all samples of a batch, or one a sample, ``(n,)``."""


@dataclass(eq=False)
class NetworkRun:
    """What all batches of one loop share: the network, and the captures at its target layers.

    Attributes:
        model: The network, already in evaluation mode.
        layers: Names of the target layers, or None for the last activation the score depends on.
        task: The task; ``"auto"`` until the first batch has shown it.
        reshape: Takes maps from the layer's output where its form is not recognised.
        context: Wraps each forward pass, as for mixed precision.
        state: Weights to run with in place of the model's own, or None.
        gradient: ``"conservative"`` or ``"plain"``.
        known: The layers that were found before, by name and input shape; shared by the runs of one extractor.
        targets: The target layers; none until the first batch has shown them.
        captures: Captures at these; none until a batch is run.
    """

    model: nn.Module
    layers: Sequence[str | None]
    task: str | ScoreFunction
    reshape: Reshape | None
    context: Callable[[], AbstractContextManager[Any]]
    state: Mapping[str, Tensor] | None
    gradient: str
    known: dict[tuple[str | None, torch.Size], FoundLayer] = field(default_factory=dict)
    targets: list[TargetLayer] = field(default_factory=list)
    captures: list[ActivationCapture] = field(default_factory=list)
    _open: ExitStack = field(default_factory=ExitStack)
    _has_looked: bool = False

    def find_targets(self, x: Tensor, y: Any) -> None:
        """Find the layers, and the task if it is not known, by dry forward passes; once for all."""
        if self.targets:
            return
        shape, scores = x.shape[1:], partial(self._scores, y)
        if any((name, shape) not in self.known for name in self.layers):
            with self.context(), allow_gradients(), explain_failures():
                made = find_layers(self.model, x, self.layers, self.reshape, scores)
            for name, one in zip(self.layers, made, strict=True):
                self.known[name, shape] = self.known[one.target.name, shape] = one
        found = [self.known[name, shape] for name in self.layers]
        self.targets = [one.target for one in found]
        if self.task == "auto":
            self.task = infer_task(scores(found[0].output), y)

    def forward(self, x: Tensor, y: Any) -> Any:
        """Run the network through the captures, and give its own output."""
        self.find_targets(x, y)
        if not self.captures:
            ways: dict[str, Any] = {"state": self.state, "conservative": self.is_conservative}
            made = [ActivationCapture(self.model, target, **ways) for target in self.targets]
            self.captures = [self._open.enter_context(capture) for capture in made]
        with self.context():
            output = run_captured(self.captures, x)
            if self.looks_for_logits(x, output):
                output = run_captured(self.captures, x)
            return output

    def looks_for_logits(self, x: Tensor, output: Any) -> bool:
        """Whether an output holds probabilities whose logits were not recorded, so that it has to be made again."""
        if self._has_looked or callable(self.task) or self.task == "regression":
            return False
        with pause_captures(self.captures):
            found = look_for_logits(self.model, output, lambda: run_forward(self.model, x[:FEW], self.state))
        self._has_looked = any(map(is_within_unit, floating_leaves(output)))
        return found

    def _scores(self, y: Any, output: Any) -> Tensor:
        """The scores in the output for the first samples of a batch."""
        count = next((len(leaf) for leaf in floating_leaves(output) if leaf.dim()), 0)
        few = tree_map_only(Tensor, lambda t: t[:count] if t.dim() else t, y)
        if callable(self.task):
            score = self.task(output, few)
            return score.reshape(len(score), -1) if torch.is_tensor(score) and score.dim() else torch.empty(0, 1)
        return output_tensor(output, few, self.task)

    @cached_property
    def is_conservative(self) -> bool:
        """Whether norms and attention are held; a ScriptModule records no graph that could be read."""
        is_scripted = any(isinstance(module, torch.jit.ScriptModule) for module in self.model.modules())
        return self.gradient == "conservative" and not is_scripted

    def close(self) -> None:
        """Take every hook off the network."""
        self._open.close()


@dataclass(frozen=True, eq=False)
class FeatureBatch:
    """One batch; the network is run when its readout, or what follows from it, is first asked for.

    Attributes:
        samples: Inputs, targets and data-set indices.
        rows: Where these samples stand among all that were asked for.
        run: The network and its captures, shared with the other batches.
    """

    samples: Samples
    rows: slice
    run: NetworkRun

    def __len__(self) -> int:
        return len(self.samples.x)

    @property
    def x(self) -> Tensor:
        """Inputs on the model's device, ``(n, ...)``."""
        return self.samples.x

    @property
    def pictures(self) -> Tensor:
        """Inputs as ``(n, channels, *space)``, the space being the axes that the (first) target layer's maps follow."""
        self.run.find_targets(self.x, self.samples.y)
        return self.run.targets[0].as_picture(self.x)

    @cached_property
    def output(self) -> Any:
        """What the network returns, with a graph."""
        return self.run.forward(self.x, self.samples.y)

    @property
    def told_task(self) -> str:
        """The task that these samples' targets show by themselves."""
        output = self.output  # which makes the run know its task
        if callable(self.run.task) or self.run.task == "segmentation":
            return str(self.run.task)
        y = self.samples.y
        return infer_task(output_tensor(output, y, self.run.task), y)

    @cached_property
    def readout(self) -> Readout:
        """Logits with a graph, targets, predictions."""
        with torch.enable_grad():
            return self._read(self.output)

    def gradient(self, classes: Classes) -> tuple[Tensor, Tensor]:
        """Activation at the (first) target layer and gradient of a logit, both ``(n, c, *space)`` float32.

        May be called again, with other classes, until the readout of another batch is asked for.

        Args:
            classes: The class whose logit is meant.
        """
        A, G = self.gradients(classes, keep=True)[0]
        return A.float(), G.float()

    def gradients(self, classes: Classes, *, keep: bool = False) -> list[tuple[Tensor, Tensor]]:
        """The same for every target layer, in the network's precision; the graph is dropped unless it is kept."""
        with torch.enable_grad():
            score = self._score(classes)
        return gradients(self.run.captures, score, keep=keep)

    def rescore(self, classes: Classes, capture: int = 0) -> Rescore:
        """What scores these samples again for a class each, as some CAM methods ask.

        Args:
            classes: The class whose logit is meant.
            capture: Number of the target layer.
        """
        run, score = self.run, self._score(classes).detach()
        read = reader(self.samples.y, run.task, self.samples.positions, self._each(classes))
        return Rescore(run.captures[capture], self.x, score, read, run.context, run.captures)

    def rerun(self, pictures: Tensor | None = None, activations: Callable[[Tensor], Tensor] | None = None) -> Readout:
        """Run the whole network again on something changed, without a graph.

        Args:
            pictures: Changed inputs, in the form of ``pictures``.
            activations: Function from the target layer's maps ``(n, c, *space)`` to changed ones.
        """
        run = self.run
        if activations or pictures is not None or run.task == "auto":
            run.find_targets(self.x, self.samples.y)
        change = patch_output(run.targets[0], activations) if activations else nullcontext()
        with pause_captures(run.captures), run.context(), change:
            x = self.x if pictures is None else run.targets[0].from_picture(pictures, self.x)
            output = run_forward(run.model, x, run.state)
            if run.looks_for_logits(x, output):
                output = run_forward(run.model, x, run.state)
            return self._read(output)

    def _read(self, output: Any) -> Readout:
        return read_output(output, self.samples.y, self.run.task, self.samples.positions)

    def _score(self, classes: Classes) -> Tensor:
        return self.readout.logits.gather(1, self._each(classes)[:, None])[:, 0]

    def _each(self, classes: Classes) -> Tensor:
        return torch.as_tensor(classes, device=self.readout.logits.device).expand(len(self))
