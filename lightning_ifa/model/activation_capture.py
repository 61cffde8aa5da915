"""Cut a network at one layer and differentiate only what comes after it.

Hooks are registered by ``layer_hooks``, ``call_watch`` and ``tracing`` only, each for the duration of a ``with`` block
or of one pass.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from lightning_ifa.errors import LayerError, OutputError
from lightning_ifa.model.conservative_gradients import Rule, find_rule
from lightning_ifa.model.forward import (
    allow_gradients,
    as_ordinary_tensor,
    copy_inference_state,
    explain_failures,
    run_with_state,
)
from lightning_ifa.model.layer_hooks import Removable, hook_output
from lightning_ifa.model.target_layer import TargetLayer, as_target_layer, first_output, plain_name


class ActivationCapture:
    """The cut at one layer, for the duration of a ``with`` block.

    ``forward`` runs the network without a graph up to the layer and with one after it; ``gradient`` gives
    the layer's activation and the score's gradient there. No parameter's ``.grad`` is written. Works inside
    ``torch.inference_mode()``, with frozen parameters, and where the layer's output is later changed in place.
    Several captures of one network share a pass by ``run_captured`` and ``gradients``; they may be nested.

    Args:
        model: The network, already in evaluation mode.
        layer: The module to cut at, one of ``model.modules()``, or one of its calls.
        name: Name of the layer in error messages.
        state: Parameters and buffers to run with in place of the model's own, by name; the model keeps its own.
        conservative: Whether to hold norms and attention weights behind the layer; see ``conservative_gradients``.

    Attributes:
        held: Whether the last gradient needed the rule, and was taken by it.
        unplaced: What of the last score, ``(n,)``, comes through entries of the layer's output without a position, as
            class tokens, and, where the rule was needed, past the layer, as in a residual stream; None if nothing
            does.

    Example::

        with ActivationCapture(model, model.layer4, "layer4") as capture:
            logits = capture.forward(images)
            A, G = capture.gradient(logits[:, 0])
    """

    def __init__(
        self,
        model: nn.Module,
        layer: nn.Module | TargetLayer,
        name: str = "",
        state: Mapping[str, Tensor] | None = None,
        conservative: bool = False,
    ) -> None:
        self.model, self.target, self.state = model, as_target_layer(layer, name), state
        self.conservative = self._follows_input = conservative
        self.held = False
        self.unplaced: Tensor | None = None
        self._input: Tensor | None = None
        self._marked: Tensor | None = None
        self._leaf: Tensor | None = None
        self._lends: bool | None = None  # None until a pass has shown that what follows leaves the activation as it is
        self._lent: tuple[int, Tensor | None] = 0, None
        self._calls = 0
        self._paused = self._shut_in = False
        self._handles: list[Removable] = []

    def __enter__(self) -> ActivationCapture:
        _require_fixed_normalisation(self.model)
        self.state = self.state or copy_inference_state(self.model)
        self._handles = [hook_output(self.target, self._cut)]
        if self.conservative and self.target.function is None:
            self._handles.append(self.target.module.register_forward_pre_hook(self._follow_input))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()
        self.begin()

    def begin(self) -> None:
        """Forget the last pass; ``forward`` does it, and so must who runs the network without it."""
        self._leaf, self._calls, self._shut_in = None, 0, False
        self._forget_input()

    def _follow_input(self, module: nn.Module, args: Any) -> None:
        """Let the graph hold what passes the layer by: its input, which a residual stream adds again behind it."""
        if self._paused or not self._follows_input or self.target.call not in (None, self._calls):
            return
        x = args[0] if args else None
        if torch.is_tensor(x) and x.is_floating_point() and not x.is_inference():
            self._input = x
            if not x.requires_grad:
                self._marked = x.requires_grad_()

    def _forget_input(self) -> None:
        if self._marked is not None:
            self._marked.requires_grad_(False)
        self._input = self._marked = None

    def _cut(self, output: Any) -> Any:
        if self._paused:
            return output
        turn, self._calls = self._calls, self._calls + 1
        if not self.target.is_at(turn):
            return output
        if torch.is_inference_mode_enabled():
            raise LayerError(_inside_block(self.target, "torch.inference_mode()"))
        output = tuple(map(as_ordinary_tensor, output)) if type(output) is tuple else as_ordinary_tensor(output)
        self.target.read(output)  # refuses what is no map
        whole = first_output(output)
        if self._input is not None and self._input.shape[:1] != whole.shape[:1]:
            self._forget_input()
        is_behind_another_cut = torch.is_grad_enabled() and whole.requires_grad
        self._leaf = whole if is_behind_another_cut else whole.detach().requires_grad_()
        torch.set_grad_enabled(True)  # the no_grad() around the forward pass undoes it
        self._lent = self._leaf._version, _sums(self._leaf) if self._lends is None else None
        given = self._leaf.clone() if self._lends is False else self._leaf
        return (given, *output[1:]) if type(output) is tuple else given

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
        return run_captured([self], x)

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
            name, calls = self.target.name, self._calls
            ran = f"ran {calls} time{'' if calls == 1 else 's'}" if calls else "did not run"
            raise LayerError(f'layer "{name}" {ran} in the forward pass')
        return self._leaf


def run_captured(captures: Sequence[ActivationCapture], x: Tensor) -> Any:
    """Run the network on one batch, ``(n, ...)``, through the cuts of all captures; see ``ActivationCapture.forward``.

    What follows the layer gets the activation itself. If it changes it in place, the pass is made again with a copy,
    and so are all later ones.
    """
    with suppress(_OverwrittenError):
        return _run_captured(captures, x)
    for capture in captures:
        capture._lends = capture._follows_input = False
    return _run_captured(captures, x)


class _OverwrittenError(Exception):
    """What follows a layer changes its activation in place."""


def _run_captured(captures: Sequence[ActivationCapture], x: Tensor) -> Any:
    for capture in captures:
        capture.begin()
    with allow_gradients(), explain_failures(), _detect_overwriting():
        output = run_with_state(captures[0].model, as_ordinary_tensor(x), captures[0].state)
        shut_in = not torch.is_grad_enabled()  # a block of the model's own forward has put back what the cut turned on
    if not all(capture._keeps_activation() for capture in captures):
        raise _OverwrittenError
    for capture in captures:
        capture._require_leaf()
        capture._shut_in, capture._lends = shut_in, capture._lends is not False
    return output


def gradients(
    captures: Sequence[ActivationCapture],
    score: Tensor,
    *,
    keep: bool = False,
    required: bool = True,
) -> list[tuple[Tensor, Tensor]]:
    """Activation and gradient at every capture, from one backward pass; see ``ActivationCapture.gradient``.

    A conservative capture with a norm or attention behind it gets a backward pass of its own.

    Args:
        captures: The captures of one pass.
        score: ``(n,)``.
        keep: Keep the graph.
        required: Whether the score has to depend on each of them; if not, the gradient is 0 where it does not.
    """
    leaves = [capture._require_leaf() for capture in captures]
    if not keep:
        for capture in captures:
            capture._leaf = None
    if not score.requires_grad:
        raise OutputError(_without_graph(captures[0]))
    with torch.inference_mode(False), explain_failures():
        found = _differentiate(captures, leaves, score, keep)
    for capture, grad in zip(captures, found, strict=True):
        if grad is None and required:
            raise OutputError(
                _quantized(capture.model)
                or f'the score does not depend on layer "{capture.target.name}"; name a layer on the way to the output'
            )
    return [
        (capture.target.read(leaf.detach()), capture.target.read(torch.zeros_like(leaf) if grad is None else grad))
        for capture, leaf, grad in zip(captures, leaves, found, strict=True)
    ]


def _differentiate(
    captures: Sequence[ActivationCapture], leaves: Sequence[Tensor], score: Tensor, keep: bool
) -> list[Tensor | None]:
    """One backward pass for each capture with a rule, and one for all others together."""
    rules = [
        find_rule(score, leaf, capture._input) if capture.conservative else None
        for capture, leaf in zip(captures, leaves, strict=True)
    ]
    plain = [number for number, rule in enumerate(rules) if rule is None]
    total, found = score.sum(), dict[int, Tensor | None]()
    if plain:
        wanted, more = [leaves[number] for number in plain], len(plain) < len(rules)
        grads = torch.autograd.grad(total, wanted, retain_graph=keep or more, allow_unused=True)
        found |= dict(zip(plain, grads, strict=True))
    for number, (capture, rule) in enumerate(zip(captures, rules, strict=True)):
        capture.held = rule is not None
        capture.unplaced = None if rule is not None else _outside_maps(capture, leaves[number], found[number])
        capture._follows_input = rule is not None and capture._follows_input
        if rule is not None:
            more = any(later is not None for later in rules[number + 1 :])
            found[number] = _by_rule(capture, leaves[number], total, rule, keep or more)
        if not keep:
            capture._forget_input()
    return [found[number] for number in range(len(leaves))]


def _by_rule(capture: ActivationCapture, leaf: Tensor, total: Tensor, rule: Rule, keep: bool) -> Tensor | None:
    """Take the gradient at the layer, and note what of the score has no position there."""
    at_leaf: list[Tensor] = []

    def stop(grad: Tensor) -> Tensor:  # what the layer's input gets is then what has passed the layer by
        at_leaf.append(grad)
        return torch.zeros_like(grad)

    wanted = [leaf] if capture._input is None else [leaf, capture._input]
    handle = leaf.register_hook(stop)  # type: ignore[no-untyped-call]
    try:
        with rule.active():
            grads = torch.autograd.grad(total, wanted, retain_graph=keep, allow_unused=True)
    finally:
        handle.remove()
    if not at_leaf:
        return None
    capture.unplaced = _without_position(capture, leaf.detach() * at_leaf[0])
    for x, grad in zip(wanted[1:], grads[1:], strict=True):
        if grad is not None:
            passed = capture.target.by_sample(x.detach() * grad)
            capture.unplaced += _sums(passed.float())
    return at_leaf[0]


def _outside_maps(capture: ActivationCapture, leaf: Tensor, grad: Tensor | None) -> Tensor | None:
    """The same of a plain gradient at a layer whose output is more than its maps."""
    if grad is None or not capture.conservative or capture.target.read(leaf).numel() == leaf.numel():
        return None
    return _without_position(capture, leaf.detach() * grad)


def _without_position(capture: ActivationCapture, product: Tensor) -> Tensor:
    return _sums(capture.target.by_sample(product).float()) - _sums(capture.target.read(product).float())


@contextmanager
def pause_captures(captures: Iterable[ActivationCapture]) -> Iterator[None]:
    """Let the network run uncut inside the ``with`` block, for passes that are not to be differentiated."""
    paused = list(captures)
    for capture in paused:
        capture._paused = True
    try:
        yield
    finally:
        for capture in paused:
            capture._paused = False


@contextmanager
def _detect_overwriting() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        if "leaf Variable that requires grad is being used in an in-place operation" in str(error):
            raise _OverwrittenError from error  # torch has not carried it out
        raise


def _sums(activation: Tensor) -> Tensor:
    """Shows changes that no version counter sees, as those through ``.data``."""
    return activation.detach().flatten(1).sum(1)


def _without_graph(capture: ActivationCapture) -> str:
    if capture._shut_in:
        return _inside_block(capture.target, "torch.no_grad()")
    return _quantized(capture.model) or (
        f'the score does not depend on layer "{capture.target.name}": its output is detached, or the model returns '
        "class indices instead of logits"
    )


def _quantized(model: nn.Module) -> str:
    """Say that a model is quantised; empty if it is not."""
    kinds = "torch.ao.nn.quantized", "torch.nn.quantized"
    for name, module in model.named_modules():
        if type(module).__module__.startswith(kinds):
            return (
                f'the model is quantised: module "{plain_name(name)}" computes in integers and has no backward pass; '
                "analyse the model from before the quantisation"
            )
    return ""


def _inside_block(target: TargetLayer, block: str) -> str:
    return (
        f'layer "{target.name}" runs inside a {block} block of the model\'s own forward, so that nothing behind it can '
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
