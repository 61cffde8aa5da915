"""Cut a network at one layer and differentiate only what comes after it.

The only place in the package that registers forward hooks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from types import TracebackType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from lightning_ifa.errors import LayerError, OutputError


def normal(value: Any) -> Any:
    """Turn an inference tensor into an ordinary one; hand anything else through.

    Must be called outside inference mode: a clone made inside it is an inference tensor again.
    """
    return value.clone() if torch.is_tensor(value) and value.is_inference() else value


@contextmanager
def gradients_allowed() -> Iterator[None]:
    """Leave inference mode and compiled code, with gradients off until the cut turns them on.

    Hooks added to a compiled module would recompile it, or be skipped where a caller was compiled.
    """
    with torch.inference_mode(False), torch.no_grad(), torch.compiler.set_stance("force_eager"):
        yield


class Tap:
    """The cut at one layer, for the duration of a ``with`` block.

    ``forward`` runs the network without a graph up to the layer and with one after it; ``gradient`` gives
    the layer's activation and the score's gradient there. No parameter's ``.grad`` is written. Works inside
    ``torch.inference_mode()``, with frozen parameters, and where the layer's output is later changed in place.

    Args:
        model: The network, already in evaluation mode.
        layer: The module to cut at, one of ``model.modules()``.
        name: What error messages call the layer.
        state: Parameters and buffers to run with in place of the model's own, by name; the model keeps its own.

    Example::

        with Tap(model, model.layer4, "layer4") as tap:
            logits = tap.forward(images)
            A, G = tap.gradient(logits[:, 0])
    """

    def __init__(
        self, model: nn.Module, layer: nn.Module, name: str, state: Mapping[str, Tensor] | None = None
    ) -> None:
        self.model, self.layer, self._name, self.state = model, layer, name, state
        self._paused = False
        self._leaf: Tensor | None = None
        self._handle: RemovableHandle | None = None

    def __enter__(self) -> Tap:
        self.state = self.state or _state_made_in_inference_mode(self.model)
        self._handle = self.layer.register_forward_hook(self._cut)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._handle is not None:
            self._handle.remove()
        self._handle = self._leaf = None

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Let the network run uncut inside the ``with`` block, for passes that are not to be differentiated."""
        self._paused = True
        try:
            yield
        finally:
            self._paused = False

    def _cut(self, module: nn.Module, args: Any, output: Any) -> Any:
        if self._paused:
            return output
        if not torch.is_tensor(output):
            raise LayerError(
                f'layer "{self._name}" returns a {type(output).__name__}; a map needs a single tensor '
                "(batch, channels, *space)"
            )
        if self._leaf is not None:
            raise LayerError(
                f'layer "{self._name}" runs more than once in one forward pass, so it has no single activation; '
                "name the module that contains it instead"
            )
        self._leaf = normal(output).detach().requires_grad_()
        torch.set_grad_enabled(True)  # the no_grad() around the forward pass undoes it
        return self._leaf.clone()  # the clone may be changed in place by what follows, the leaf must not

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
        self._leaf = None
        with gradients_allowed(), _inference_tensors_explained():
            output = _run(self.model, self.state, normal(x))
        self._require_leaf()
        return output

    def gradient(self, score: Tensor, *, keep: bool = False) -> tuple[Tensor, Tensor]:
        """Give the activation and the gradient of the score, and drop the graph.

        Args:
            score: One number a sample, shape ``(n,)``, computed from what ``forward`` returned, with gradients
                on and inference mode off.
            keep: Keep the graph, for the gradient of another score of the same pass.

        Returns:
            Activation ``A`` and gradient ``G``, both detached, shape ``(n, c, *space)``.

        Raises:
            OutputError: The score does not depend on the layer.
        """
        leaf = self._require_leaf()
        self._leaf = leaf if keep else None
        if not score.requires_grad:
            raise OutputError(
                f'the score does not depend on layer "{self._name}": it runs under no_grad, its output is '
                "detached, or the model returns class indices instead of logits"
            )
        with torch.inference_mode(False), _inference_tensors_explained():
            (grad,) = torch.autograd.grad(score.sum(), leaf, retain_graph=keep, allow_unused=True)
        if grad is None:
            raise OutputError(f'the score does not depend on layer "{self._name}"; name a layer before the output')
        return leaf.detach(), grad

    def _require_leaf(self) -> Tensor:
        if self._leaf is None:
            raise LayerError(f'layer "{self._name}" did not run in the forward pass')
        return self._leaf


class Splice:
    """The network run from any activation of one layer.

    Args:
        model: The network, already in evaluation mode.
        layer: The module whose output is replaced; it runs once in a forward pass.
        state: Parameters and buffers to run with in place of the model's own, by name.

    Example::

        logits = Splice(model, model.layer4).run(images, A * mask)
    """

    def __init__(self, model: nn.Module, layer: nn.Module, state: Mapping[str, Tensor] | None = None) -> None:
        self._model, self._layer = model, layer
        self._state = state or _state_made_in_inference_mode(model)

    def run(self, x: Tensor, activation: Tensor) -> Any:
        """Run the network on ``x``, ``(n, ...)``, with the layer's output replaced by ``activation``, ``(n, c, ...)``.

        What follows the layer may change ``activation`` in place. Returns the network's own output, without a graph.
        """
        with replaced(self._layer, lambda output: activation.to(output)):
            return run_plainly(self._model, x, self._state)


def run_plainly(model: nn.Module, x: Tensor, state: Mapping[str, Tensor] | None = None) -> Any:
    """Run the network on ``x``, ``(n, ...)``, without a graph.

    Args:
        model: The network, already in evaluation mode.
        x: Input.
        state: Parameters and buffers to run with in place of the model's own, by name.
    """
    with gradients_allowed(), _inference_tensors_explained():
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


def observe_past(model: nn.Module, layer: nn.Module, x: Tensor, state: Mapping[str, Tensor] | None = None) -> Past:
    """Run a forward pass and note which module calls lie before the layer's end.

    Args:
        model: The network, already in evaluation mode.
        layer: A module that runs once and returns a tensor.
        x: Input, ``(n, ...)``.
        state: Parameters and buffers to run with in place of the model's own, by name.
    """
    ended: list[list[tuple[nn.Module, Any]]] = [[]]  # for each call still open, the calls inside it that have ended
    calls: list[tuple[nn.Module, Any]] = []
    activation: list[Tensor] = []

    def enter(module: nn.Module, args: Any) -> None:
        ended.append([])

    def leave(module: nn.Module, args: Any, output: Any) -> None:
        ended.pop()
        ended[-1].append((module, output))
        if module is layer:
            activation.append(output.clone())  # what follows may change it in place
            calls.extend(chain.from_iterable(ended))

    handles = [module.register_forward_pre_hook(enter) for module in model.modules()]
    handles += [module.register_forward_hook(leave) for module in model.modules()]
    try:
        output = run_plainly(model, x, state or _state_made_in_inference_mode(model))
    finally:
        for handle in handles:
            handle.remove()
    return Past(output, activation[0], calls)


@contextmanager
def replaced(layer: nn.Module, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Let a function replace a layer's output for the duration of a ``with`` block.

    Args:
        layer: The module.
        change: Takes its output, shape ``(n, c, *space)``, and gives what later layers see.
    """
    handle = layer.register_forward_hook(lambda module, args, output: change(output))
    try:
        yield
    finally:
        handle.remove()


class LayerShape(NamedTuple):
    """What one module returned in a dry forward pass."""

    name: str
    module: nn.Module
    shape: tuple[int, ...]
    storage: int
    calls: int


def observe_layers(model: nn.Module, run: Callable[[], Any]) -> tuple[Any, list[LayerShape]]:
    """Run a forward pass and note every module that returns a tensor, in order of completion.

    Args:
        model: The network, already in evaluation mode.
        run: Runs it once.

    Returns:
        What ``run`` returned, and the modules (the root left out) in the order in which their last call ended.
    """
    seen: dict[str, LayerShape] = {}

    def note(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            if torch.is_tensor(output):
                before = seen.pop(name, None)
                calls = 1 if before is None else before.calls + 1
                seen[name] = LayerShape(name, module, tuple(output.shape), output.data_ptr(), calls)

        return hook

    handles = [module.register_forward_hook(note(name)) for name, module in named_layers(model).items()]
    try:
        with gradients_allowed():
            output = run()
    finally:
        for handle in handles:
            handle.remove()
    return output, list(seen.values())


def named_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Every module but the root by its plain name; of a compiled module and its original, the original."""
    return {plain_name(name): module for name, module in model.named_modules() if name}


def plain_name(name: str) -> str:
    """Remove what ``torch.compile`` adds to a module's name."""
    return ".".join(part for part in name.split(".") if part != "_orig_mod")


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
def _inference_tensors_explained() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        if "nference tensor" not in str(error):
            raise
        raise OutputError(
            "the model reads a tensor that it cached during an earlier pass in inference mode; "
            "Trainer(inference_mode=False) avoids it"
        ) from error
