"""Cut a network at one layer and differentiate only what comes after it.

The only place in the package that registers forward hooks.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from itertools import chain, count
from types import TracebackType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from lightning_ifa.errors import LayerError, OutputError
from lightning_ifa.features.place import Place, as_place, plain_name


def normal(value: Any) -> Any:
    """Turn an inference tensor into an ordinary one; hand anything else through.

    Must be called outside inference mode: a clone made inside it is an inference tensor again.
    """
    return value.clone() if torch.is_tensor(value) and value.is_inference() else value


@contextmanager
def gradients_allowed() -> Iterator[None]:
    """Leave inference mode and compiled code, with gradients off until the cut turns them on.

    Hooks added to a compiled module would recompile it, or be skipped where a caller was compiled. Where nothing was
    compiled the compiler is not even loaded: it takes some 70 MiB.
    """
    is_loaded = "torch._dynamo" in sys.modules
    stance = torch.compiler.set_stance("force_eager") if is_loaded else nullcontext()
    with torch.inference_mode(False), torch.no_grad(), stance:
        yield


class Tap:
    """The cut at one layer, for the duration of a ``with`` block.

    ``forward`` runs the network without a graph up to the layer and with one after it; ``gradient`` gives
    the layer's activation and the score's gradient there. No parameter's ``.grad`` is written. Works inside
    ``torch.inference_mode()``, with frozen parameters, and where the layer's output is later changed in place.
    Several taps of one network share a pass by ``run_cut`` and ``gradients``; they may be nested.

    Args:
        model: The network, already in evaluation mode.
        layer: The module to cut at, one of ``model.modules()``, or one of its calls.
        name: What error messages call a module.
        state: Parameters and buffers to run with in place of the model's own, by name; the model keeps its own.

    Example::

        with Tap(model, model.layer4, "layer4") as tap:
            logits = tap.forward(images)
            A, G = tap.gradient(logits[:, 0])
    """

    def __init__(
        self,
        model: nn.Module,
        layer: nn.Module | Place,
        name: str = "",
        state: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.model, self.place, self.state = model, as_place(layer, name), state
        self._leaf: Tensor | None = None
        self._lends: bool | None = None  # None until a pass has shown that what follows leaves the activation as it is
        self._lent: tuple[int, Tensor | None] = 0, None
        self._calls = 0
        self._paused = self._shut_in = False
        self._handle: RemovableHandle | None = None

    def __enter__(self) -> Tap:
        _require_fixed_normalisation(self.model)
        self.state = self.state or _state_made_in_inference_mode(self.model)
        self._handle = self.place.module.register_forward_hook(self._cut)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._handle is not None:
            self._handle.remove()
        self._handle = self._leaf = None

    def begin(self) -> None:
        """Forget the last pass; ``forward`` does it, and so must who runs the network without it."""
        self._leaf, self._calls, self._shut_in = None, 0, False

    def _cut(self, module: nn.Module, args: Any, output: Any) -> Any:
        if self._paused:
            return output
        turn, self._calls = self._calls, self._calls + 1
        if not self.place.is_at(turn):
            return output
        if torch.is_inference_mode_enabled():
            raise LayerError(_shut_in(self.place, "torch.inference_mode()"))
        output = normal(output)
        maps = self.place.read(output)
        is_behind_another_cut = torch.is_grad_enabled() and maps.requires_grad
        self._leaf = maps if is_behind_another_cut else maps.detach().requires_grad_()
        torch.set_grad_enabled(True)  # the no_grad() around the forward pass undoes it
        self._lent = self._leaf._version, _sums(self._leaf) if self._lends is None else None
        return self.place.write(output, self._leaf.clone() if self._lends is False else self._leaf)

    def _keeps_activation(self) -> bool:
        """Whether what followed the layer left its activation as it was; without a copy it may not have."""
        if self._leaf is None or self._lends is False:
            return True
        version, sums = self._lent
        return self._leaf._version == version and (sums is None or torch.equal(_sums(self._leaf), sums))

    def forward(self, x: Tensor) -> Any:
        """Run the network on one batch.

        Args:
            x: Input, shape ``(n, ...)``.

        Returns:
            The network's own output; the part behind the layer carries a graph.

        Raises:
            LayerError: The layer did not run, ran more than once, or returned no tensor.
            OutputError: The network reads a tensor that was cached during an earlier inference-mode pass.
        """
        return run_cut([self], x)

    def gradient(self, score: Tensor, *, keep: bool = False) -> tuple[Tensor, Tensor]:
        """Give the activation and the gradient of the score, and drop the graph.

        Args:
            score: One number a sample, shape ``(n,)``, computed from what ``forward`` returned, with gradients
                on and inference mode off.
            keep: Keep the graph, for the gradient of another score of the same pass.

        Returns:
            Activation ``A`` and gradient ``G``, both detached, shape ``(n, c, *space)``.

        Raises:
            OutputError: The score does not depend on the layer, or what follows it cannot be differentiated.
        """
        return gradients([self], score, keep=keep)[0]

    def _require_leaf(self) -> Tensor:
        if self._leaf is None:
            name, calls = self.place.name, self._calls
            ran = f"ran {calls} time{'' if calls == 1 else 's'}" if calls else "did not run"
            raise LayerError(f'layer "{name}" {ran} in the forward pass')
        return self._leaf


def run_cut(taps: Sequence[Tap], x: Tensor) -> Any:
    """Run the network on one batch, ``(n, ...)``, through the cuts of all taps; see ``Tap.forward``.

    What follows the layer gets the activation itself. If it changes it in place, the pass is made again with a copy,
    and so are all later ones.
    """
    with suppress(_OverwrittenError):
        return _run_cut(taps, x)
    for tap in taps:
        tap._lends = False
    return _run_cut(taps, x)


class _OverwrittenError(Exception):
    """What follows a layer changes its activation in place."""


def _run_cut(taps: Sequence[Tap], x: Tensor) -> Any:
    for tap in taps:
        tap.begin()
    with gradients_allowed(), _failures_explained():
        output = _run(taps[0].model, taps[0].state, normal(x))
        shut_in = not torch.is_grad_enabled()  # a block of the model's own forward has put back what the cut turned on
    if not all(tap._keeps_activation() for tap in taps):
        raise _OverwrittenError
    for tap in taps:
        tap._require_leaf()
        tap._shut_in, tap._lends = shut_in, tap._lends is not False
    return output


def gradients(
    taps: Sequence[Tap], score: Tensor, *, keep: bool = False, required: bool = True
) -> list[tuple[Tensor, Tensor]]:
    """Activation and gradient at every tap, from one backward pass; see ``Tap.gradient``.

    Args:
        taps: Taps of one pass.
        score: ``(n,)``.
        keep: Keep the graph.
        required: Whether the score has to depend on each of them; if not, the gradient is 0 where it does not.
    """
    leaves = [tap._require_leaf() for tap in taps]
    if not keep:
        for tap in taps:
            tap._leaf = None
    if not score.requires_grad:
        raise OutputError(_without_graph(taps[0]))
    with torch.inference_mode(False), _failures_explained():
        found: tuple[Tensor | None, ...] = torch.autograd.grad(
            score.sum(), leaves, retain_graph=keep, allow_unused=True
        )
    for tap, grad in zip(taps, found, strict=True):
        if grad is None and required:
            raise OutputError(
                f'the score does not depend on layer "{tap.place.name}"; name a layer on the way to the output'
            )
    pairs = zip(leaves, found, strict=True)
    return [(leaf.detach(), torch.zeros_like(leaf) if grad is None else grad) for leaf, grad in pairs]


@contextmanager
def paused(taps: Iterable[Tap]) -> Iterator[None]:
    """Let the network run uncut inside the ``with`` block, for passes that are not to be differentiated."""
    held = list(taps)
    for tap in held:
        tap._paused = True
    try:
        yield
    finally:
        for tap in held:
            tap._paused = False


class Splice:
    """The network run from any activation of one layer.

    Args:
        model: The network, already in evaluation mode.
        layer: The module whose output is replaced, or one of its calls.
        state: Parameters and buffers to run with in place of the model's own, by name.

    Example::

        logits = Splice(model, model.layer4).run(images, A * mask)
    """

    def __init__(self, model: nn.Module, layer: nn.Module | Place, state: Mapping[str, Tensor] | None = None) -> None:
        self._model, self._layer = model, layer
        self._state = state or _state_made_in_inference_mode(model)

    def run(self, x: Tensor, activation: Tensor) -> Any:
        """Run the network on ``x``, ``(n, ...)``, with the layer's output replaced by ``activation``, ``(n, c, ...)``.

        What follows the layer may change ``activation`` in place. Returns the network's own output, without a graph.
        """
        with replaced(self._layer, lambda maps: activation):
            return run_plainly(self._model, x, self._state)


def run_plainly(model: nn.Module, x: Tensor, state: Mapping[str, Tensor] | None = None) -> Any:
    """Run the network on ``x``, ``(n, ...)``, without a graph.

    Args:
        model: The network, already in evaluation mode.
        x: Input.
        state: Parameters and buffers to run with in place of the model's own, by name.
    """
    with gradients_allowed(), _failures_explained():
        return _run(model, state, normal(x))


class Past(NamedTuple):
    """What a forward pass had done when the layer returned.

    Attributes:
        output: Of the whole network.
        activation: The layer's output, ``(n, c, *space)``.
        calls: The outermost module calls that had ended, the layer's own among them, and what they returned.
    """

    output: Any
    activation: Tensor
    calls: list[tuple[nn.Module, Any]]


def observe_past(
    model: nn.Module, layer: nn.Module | Place, x: Tensor, state: Mapping[str, Tensor] | None = None
) -> Past:
    """Run a forward pass and note which module calls lie before the layer's end.

    Args:
        model: The network, already in evaluation mode.
        layer: A module, or one of its calls.
        x: Input, ``(n, ...)``.
        state: Parameters and buffers to run with in place of the model's own, by name.
    """
    ended: list[list[tuple[nn.Module, Any]]] = [[]]  # for each call still open, the calls inside it that have ended
    calls: list[tuple[nn.Module, Any]] = []
    activation: list[Tensor] = []
    place, turns = as_place(layer), count()

    def enter(module: nn.Module, args: Any) -> None:
        ended.append([])

    def leave(module: nn.Module, args: Any, output: Any) -> None:
        ended.pop()
        ended[-1].append((module, output))
        if module is place.module and place.is_at(next(turns)):
            activation.append(place.read(output).clone())  # what follows may change it in place
            calls.extend(chain.from_iterable(ended))

    modules = [module for module in model.modules() if not isinstance(module, torch.jit.ScriptModule)]
    handles = [module.register_forward_pre_hook(enter) for module in modules]
    handles += [module.register_forward_hook(leave) for module in modules]
    try:
        output = run_plainly(model, x, state or _state_made_in_inference_mode(model))
    finally:
        for handle in handles:
            handle.remove()
    return Past(output, activation[0], calls)


@contextmanager
def replaced(layer: nn.Module | Place, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Let a function replace a layer's maps for the duration of a ``with`` block.

    Where one of several calls is meant, the block is for one forward pass.

    Args:
        layer: The module, or one of its calls.
        change: Takes its maps, shape ``(n, c, *space)``, and gives what later layers see.
    """
    place, turns = as_place(layer), count()

    def hook(module: nn.Module, args: Any, output: Any) -> Any:
        if place.call is None or place.is_at(next(turns)):
            return place.write(output, change(place.read(output)))
        return None

    handle = place.module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def _sums(activation: Tensor) -> Tensor:
    """Shows changes that no version counter sees, as those through ``.data``."""
    return activation.detach().flatten(1).sum(1)


def _run(model: nn.Module, state: Mapping[str, Tensor] | None, x: Tensor) -> Any:
    return model(x) if state is None else torch.func.functional_call(model, dict(state), (x,))


def _state_made_in_inference_mode(model: nn.Module) -> dict[str, Tensor] | None:
    """Ordinary copies of parameters and buffers, if any was made in inference mode (some EMA swaps do)."""
    state = dict(chain(model.named_parameters(), model.named_buffers()))
    if not any(tensor.is_inference() for tensor in state.values()):
        return None
    with torch.inference_mode(False):
        return {name: normal(tensor) for name, tensor in state.items()}


@contextmanager
def _failures_explained() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        if _LEAF_CHANGED in str(error):
            raise _OverwrittenError from error
        for sign, message in _KNOWN_FAILURES.items():
            if sign in str(error):
                raise OutputError(message) from error
        raise


_LEAF_CHANGED = "leaf Variable that requires grad is being used in an in-place operation"
"""What torch says of a change in place that it does not carry out."""

_KNOWN_FAILURES = {
    "nference tensor": "the model reads a tensor that it cached during an earlier pass in inference mode; "
    "Trainer(inference_mode=False) avoids it",
    "use_reentrant=True": "the model checkpoints activations behind the layer with use_reentrant=True, through which "
    "the gradient at a layer cannot be taken; checkpoint(..., use_reentrant=False) can do it",
}


def _without_graph(tap: Tap) -> str:
    if tap._shut_in:
        return _shut_in(tap.place, "torch.no_grad()")
    return (
        f'the score does not depend on layer "{tap.place.name}": its output is detached, or the model returns class '
        "indices instead of logits"
    )


def _shut_in(place: Place, block: str) -> str:
    return (
        f'layer "{place.name}" runs inside a {block} block of the model\'s own forward, so that nothing behind it can '
        "be differentiated; freeze the backbone by requires_grad_(False) instead, or name a layer behind the block"
    )


def _require_fixed_normalisation(model: nn.Module) -> None:
    """Refuse batch statistics: with them a sample's score depends on the others of its batch."""
    for name, module in model.named_modules():
        if not isinstance(module, nn.modules.batchnorm._BatchNorm):
            continue
        if module.training:
            reason, remedy = "is in training mode", "call model.eval()"
        elif module.running_mean is None:
            reason, remedy = "keeps no running statistics", "build it with track_running_stats=True"
        else:
            continue
        raise LayerError(
            f'batch norm "{plain_name(name)}" {reason}: it normalises by the batch, so that samples explain one '
            f"another; {remedy}"
        )


@contextmanager
def watched(
    first: nn.Module, layer: nn.Module, entered: Callable[[Any], None], left: Callable[[Any], None]
) -> Iterator[None]:
    """Look on for the duration of a ``with`` block, whoever runs the network; an error in looking on reaches nobody.

    Args:
        first: The module whose input is told.
        layer: The module whose output is told.
        entered: Takes the positional arguments of ``first``.
        left: Takes the output of ``layer``.
    """

    def before(module: nn.Module, args: Any) -> None:
        with suppress(Exception):
            entered(args)

    def after(module: nn.Module, args: Any, output: Any) -> None:
        with suppress(Exception):
            left(output)

    handles = [first.register_forward_pre_hook(before), layer.register_forward_hook(after)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
