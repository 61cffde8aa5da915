"""Run what comes after a layer again, from masked or otherwise changed activations, without paying for the backbone.

Nothing about the architecture is guessed. A forward pass notes which module calls had ended when the layer returned.
Then, with the layer's own activation put back in:

1. If the output stays the same although the samples of the input have changed places, the output depends on the
   input through the layer only. (A skip connection around the layer, for one, fails this.)
2. In that case what the earlier calls return does not matter any more, so they are replaced by stubs that return
   memory-free tensors of the right shape. If the output is still the same, for batches of other sizes as well,
   the backbone is skipped from now on.
3. If the output is also the same for the activation's mean over space, and stays so when channels are dropped,
   the head starts with global average pooling and is run on the means alone.

What fails is not used: the next more expensive way is, and the last is the whole network with its real input.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only

from lightning_ifa.model.activation_patching import ActivationPatch
from lightning_ifa.model.backbone_skipping import SkippedCalls
from lightning_ifa.model.batch_forward import repeat_first_of_other_inputs, roll_other_inputs
from lightning_ifa.model.target_layer import TargetLayer
from lightning_ifa.model.tracing import ForwardTrace, trace_forward

Scope = Literal["pooled", "head", "network"]
FEW = 4

TOLERANCE = 1e-4
"""Largest difference of outputs taken for rounding, as a share of the largest output."""


class Head:
    """What comes after one layer, for the duration of a ``with`` block.

    Args:
        model: The network, already in evaluation mode.
        layer: A module that runs once in a forward pass, or one of its calls.
        x: A few inputs, ``(n, ...)``, n >= 2, on which the shortcuts are tried.
        state: Parameters and buffers to run with in place of the model's own, by name.

    Attributes:
        scope: What has to run: ``"pooled"``, the head on spatial means; ``"head"``, the head on maps; or the whole
            ``"network"``.
    """

    scope: Scope

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        return self._few.device

    def __init__(
        self, model: nn.Module, layer: nn.Module | TargetLayer, x: Tensor, state: Mapping[str, Tensor] | None = None
    ) -> None:
        self._model, self._layer, self._few, self._state = model, layer, x[:FEW], state
        self._patch = ActivationPatch(model, layer, state)
        self._shortcut = ExitStack()
        self._skipped: SkippedCalls | None = None
        self._space, self._dtype = 0, x.dtype

    def __enter__(self) -> Head:
        trace = trace_forward(self._model, self._layer, self._few, self._state)
        self._space, self._dtype = trace.activation.dim() - 2, trace.activation.dtype
        self.scope = "network"
        with roll_other_inputs():
            moved = self._patch.run(self._few.roll(1, 0), trace.activation.clone())
        if _same(moved, trace.output):
            self._take_shortcut(trace)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._shortcut.close()

    def __call__(self, activation: Tensor, x: Tensor | None = None) -> Any:
        """Run the head.

        Args:
            activation: ``(n, c, *space)``, or ``(n, c)`` spatial means if ``scope`` is ``"pooled"``; what follows the
                layer may change it in place.
            x: The inputs that belong to it, ``(n, ...)``; read only if ``scope`` is ``"network"``.

        Returns:
            The network's own output, without a graph.
        """
        activation = activation.to(self._few.device, self._dtype)
        if self.scope == "network":
            assert x is not None, "the whole network needs its input"
            return self._patch.run(x, activation)
        if self._skipped is not None:
            self._skipped.begin(len(activation))
        if self.scope == "pooled":
            activation = activation.reshape(*activation.shape[:2], *[1] * self._space)
        with repeat_first_of_other_inputs():
            return self._patch.run(self._few[:1].expand(len(activation), *self._few.shape[1:]), activation)

    def _take_shortcut(self, trace: ForwardTrace) -> None:
        with ExitStack() as trial:
            self._skipped = trial.enter_context(SkippedCalls(trace.calls, len(self._few)))
            self.scope = "head"
            if self._agrees(trace.activation, trace.output):
                self._shortcut.push(trial.pop_all())
                if self._sees_means_only(trace.activation):
                    self.scope = "pooled"
                return
        self.scope, self._skipped = "network", None

    def _agrees(self, activation: Tensor, output: Any) -> bool:
        def check() -> bool:
            thrice = tree_map_only(Tensor, lambda t: torch.cat([t] * 3) if t.dim() else t, output)
            return _same(self(activation.clone()), output) and _same(self(torch.cat([activation] * 3)), thrice)

        return _is_valid(check)

    def _sees_means_only(self, activation: Tensor) -> bool:
        space = tuple(range(2, activation.dim()))
        kept = torch.arange(activation.shape[1], device=activation.device) % 2
        changed = activation.roll(1, 0) * kept.reshape(1, -1, *[1] * len(space))

        def check() -> bool:
            return all(_same(self(A.mean(space, keepdim=True)), self(A.clone())) for A in (activation, changed))

        return _is_valid(check)


def depends_on_layer_only(model: nn.Module, layer: nn.Module | TargetLayer, x: Tensor) -> bool:
    """Whether the output stays the same when the input's samples change places but the layer's output does not.

    Args:
        model: The network, already in evaluation mode.
        layer: A module that runs once in a forward pass, or one of its calls.
        x: Inputs, ``(n, ...)``, n >= 2.
    """
    trace = trace_forward(model, layer, x)
    with roll_other_inputs():
        return _same(ActivationPatch(model, layer).run(x.roll(1, 0), trace.activation), trace.output)


def _is_valid(check: Callable[[], bool]) -> bool:
    """Whether a shortcut holds; one that raises, in whatever way the user's code does, does not."""
    try:
        return check()
    except Exception:
        return False


def _same(a: Any, b: Any) -> bool:
    """Whether two outputs agree to rounding in every tensor."""
    pairs = list(zip(*([leaf for leaf in tree_leaves(v) if torch.is_tensor(leaf)] for v in (a, b)), strict=True))
    return bool(pairs) and all(
        u.shape == v.shape and bool(((u - v).abs().max() <= TOLERANCE * v.abs().max()).item()) for u, v in pairs
    )
