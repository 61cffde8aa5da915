"""Run what comes after a layer again, from masked or otherwise changed activations, without paying for the backbone.

Nothing about the architecture is guessed. A forward pass notes which module calls had ended when the layer returned.
Then, with the layer's own activation put back in:

1. If the output stays the same although the samples of the input have changed places, the output depends on the
   input through the layer only. (A skip connection around the layer, for one, fails this.)
2. In that case what the earlier calls return does not matter any more, so they are replaced by stubs that return
   memory-free tensors of the right shape. If the output is still the same, for batches of other sizes as well,
   the backbone is skipped from now on.
3. If the output is also the same for the activation's mean over space, and stays so when channels are dropped,
   the tail starts with global average pooling and is run on the means alone.

What fails is not used: the next more expensive way is, and the last is the whole network with its real input.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only

from lightning_ifa.features.place import Place
from lightning_ifa.features.splice import Splice
from lightning_ifa.features.watch import Past, observe_past

Reach = Literal["means", "tail", "network"]

FEW = 4
TOLERANCE = 1e-4
"""Largest difference of outputs taken for rounding, as a share of the largest output."""


class Tail:
    """What comes after one layer, for the duration of a ``with`` block.

    Args:
        model: The network, already in evaluation mode.
        layer: A module that runs once in a forward pass, or one of its calls.
        x: A few inputs, ``(n, ...)``, n >= 2, on which the shortcuts are tried.
        state: Parameters and buffers to run with in place of the model's own, by name.

    Attributes:
        reach: What has to run: ``"means"``, the tail on spatial means; ``"tail"``; or the whole ``"network"``.
    """

    reach: Reach

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        return self._few.device

    def __init__(
        self, model: nn.Module, layer: nn.Module | Place, x: Tensor, state: Mapping[str, Tensor] | None = None
    ) -> None:
        self._model, self._layer, self._few, self._state = model, layer, x[:FEW], state
        self._splice = Splice(model, layer, state)
        self._shortcut = ExitStack()
        self._skipped: _Skipped | None = None
        self._space, self._dtype = 0, x.dtype

    def __enter__(self) -> Tail:
        past = observe_past(self._model, self._layer, self._few, self._state)
        self._space, self._dtype = past.activation.dim() - 2, past.activation.dtype
        self.reach = "network"
        moved = self._few.roll(1, 0)
        if _same(self._splice.run(moved, past.activation.clone()), past.output):
            self._take_shortcut(past)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._shortcut.close()

    def __call__(self, activation: Tensor, x: Tensor | None = None) -> Any:
        """Run the tail.

        Args:
            activation: ``(n, c, *space)``, or ``(n, c)`` spatial means if ``reach`` is ``"means"``; what follows the
                layer may change it in place.
            x: The inputs that belong to it, ``(n, ...)``; read only if ``reach`` is ``"network"``.

        Returns:
            The network's own output, without a graph.
        """
        activation = activation.to(self._few.device, self._dtype)
        if self.reach == "network":
            assert x is not None, "the whole network needs its input"
            return self._splice.run(x, activation)
        if self._skipped is not None:
            self._skipped.begin(len(activation))
        if self.reach == "means":
            activation = activation.reshape(*activation.shape[:2], *[1] * self._space)
        return self._splice.run(self._few[:1].expand(len(activation), *self._few.shape[1:]), activation)

    def _take_shortcut(self, past: Past) -> None:
        with ExitStack() as trial:
            self._skipped = trial.enter_context(_Skipped(past.calls, len(self._few)))
            self.reach = "tail"
            if self._agrees(past.activation, past.output):
                self._shortcut.push(trial.pop_all())
                if self._sees_means_only(past.activation):
                    self.reach = "means"
                return
        self.reach, self._skipped = "network", None

    def _agrees(self, activation: Tensor, output: Any) -> bool:
        def check() -> bool:
            thrice = tree_map_only(Tensor, lambda t: torch.cat([t] * 3) if t.dim() else t, output)
            return _same(self(activation.clone()), output) and _same(self(torch.cat([activation] * 3)), thrice)

        return _holds(check)

    def _sees_means_only(self, activation: Tensor) -> bool:
        space = tuple(range(2, activation.dim()))
        kept = torch.arange(activation.shape[1], device=activation.device) % 2
        changed = activation.roll(1, 0) * kept.reshape(1, -1, *[1] * len(space))

        def check() -> bool:
            return all(_same(self(A.mean(space, keepdim=True)), self(A.clone())) for A in (activation, changed))

        return _holds(check)


def depends_on_layer_only(model: nn.Module, layer: nn.Module | Place, x: Tensor) -> bool:
    """Whether the output stays the same when the input's samples change places but the layer's output does not.

    Args:
        model: The network, already in evaluation mode.
        layer: A module that runs once in a forward pass, or one of its calls.
        x: Inputs, ``(n, ...)``, n >= 2.
    """
    past = observe_past(model, layer, x)
    return _same(Splice(model, layer).run(x.roll(1, 0), past.activation), past.output)


def _holds(check: Callable[[], bool]) -> bool:
    """Whether a shortcut holds; one that raises, in whatever way the user's code does, does not."""
    try:
        return check()
    except Exception:
        return False


class _Skipped:
    """The calls before the layer's end, replaced by stubs; later calls of the same module run as ever."""

    def __init__(self, calls: list[tuple[nn.Module, Any]], n: int) -> None:
        self._n, self._batch = n, n
        self._returned: dict[nn.Module, list[Any]] = defaultdict(list)
        for module, output in calls:
            self._returned[module].append(tree_map_only(Tensor, lambda t: t.new_empty(()).expand(t.shape), output))
        self._turns: Counter[nn.Module] = Counter()
        self._own = {module: module.__dict__.get("forward") for module in self._returned}

    def __enter__(self) -> _Skipped:
        for module in self._returned:
            module.forward = self._stub(module, module.forward)
        return self

    def __exit__(self, *error: object) -> None:
        for module, own in self._own.items():
            del module.__dict__["forward"]
            if own is not None:
                module.forward = own

    def begin(self, batch: int) -> None:
        """Get ready for a forward pass of that many samples."""
        self._batch = batch
        self._turns.clear()

    def _stub(self, module: nn.Module, forward: Callable[..., Any]) -> Callable[..., Any]:
        def stub(*args: Any, **options: Any) -> Any:
            turn = self._turns[module]
            self._turns[module] += 1
            if turn >= len(self._returned[module]):
                return forward(*args, **options)
            return tree_map_only(Tensor, self._resized, self._returned[module][turn])

        return stub

    def _resized(self, output: Tensor) -> Tensor:
        if not output.dim() or output.shape[0] % self._n:
            return output
        return output[:1].expand(output.shape[0] // self._n * self._batch, *output.shape[1:])


def _same(a: Any, b: Any) -> bool:
    """Whether two outputs agree to rounding in every tensor."""
    pairs = list(zip(*([leaf for leaf in tree_leaves(v) if torch.is_tensor(leaf)] for v in (a, b)), strict=True))
    return bool(pairs) and all(
        u.shape == v.shape and bool(((u - v).abs().max() <= TOLERANCE * v.abs().max()).item()) for u, v in pairs
    )
