"""Tell by one backward pass which calls of a forward pass lie on the way from the input to the score."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.multiprocessing.reductions import StorageWeakRef

from lightning_ifa.model.autograd_graph import list_inputs_first
from lightning_ifa.model.call_watch import CallKey, EndedCall, watch_forward
from lightning_ifa.model.conservative_gradients import find_values
from lightning_ifa.model.forward import as_ordinary_tensor, copy_inference_state, explain_failures, run_with_state
from lightning_ifa.model.tracing import memory_of

Scores = Callable[[Any], Tensor]
"""From the model's output to scores ``(n, ...)``, classes in the second axis."""

LINEAR = (nn.Linear, nn.modules.conv._ConvNd, nn.modules.batchnorm._BatchNorm)
GATES = (nn.Sigmoid, nn.Hardsigmoid, nn.Softmax, nn.Softmax2d, nn.LogSoftmax)
CLASSES_TRIED = 3


SUMS_TO_ONE = 1e-2
"""Rounding of a softmax in half precision."""


@dataclass(eq=False)
class TracedCall:
    """What is known of one call after the pass.

    Attributes:
        key: Which call.
        module: The module, or the one whose own forward calls the function.
        shape: Of its output.
        memory: Where the output lay.
        is_leaf: Whether no other module ran inside.
        grew: Whether it only spreads what went in over more positions.
        edge: The output's place in the graph; None if it has none.
        is_attention: Whether it holds attention weights: numbers of at least 0 that add up to 1 along the last axis.
        is_weight: Whether the score depends on it as on weights of others only: attention, a mask, what makes them.
        depends: Whether it lies on a way from the input to the score; without any graph it is taken to.
        read: Whether the score's gradient is not zero, at each entry; None where that was not found.
        is_class_plane: Whether each score is made of the channel of its own class alone.
        source: The call whose output it was directly made of, if it is one only.
        readers: How many calls read it directly, on a way to the score.
        same: The first call that returned the very same tensor; itself if it was that.
    """

    key: CallKey
    module: nn.Module
    shape: tuple[int, ...]
    memory: StorageWeakRef
    is_leaf: bool
    grew: bool
    edge: GradientEdge | None
    is_attention: bool = False
    is_weight: bool = False
    depends: bool = True
    read: Tensor | None = None
    is_class_plane: bool = False
    source: TracedCall | None = None
    readers: int = 0
    same: TracedCall | None = None

    @property
    def is_linear(self) -> bool:
        """Whether a linear layer made it."""
        return self.is_leaf and isinstance(self.module, LINEAR)

    @property
    def is_gate(self) -> bool:
        """Whether it is made to be multiplied with features."""
        return self.is_attention or self.is_weight or (self.key.function is None and isinstance(self.module, GATES))


@dataclass
class Dependence:
    """One forward pass, and what the score depends on.

    Attributes:
        output: What the model returned.
        calls: Every call that returned a tensor, in the order in which they ended.
        state: The weights that the pass was run with, or None for the model's own.
    """

    output: Any
    calls: list[TracedCall] = field(default_factory=list)
    state: Mapping[str, Tensor] | None = None


def trace_dependence(model: nn.Module, x: Tensor, scores: Scores) -> Dependence:
    """Run a forward pass with a graph, and ask the graph; the weights' values decide as little as can be.

    What lies on the way is read off the graph's structure. Weights that are all zero, as of heads and residual
    branches before a training, are replaced by others for this pass, so that they hide nothing. Where the model
    cannot be run with a graph, or its score has none, every call is taken to be on the way.

    Args:
        model: The network, already in evaluation mode; the caller has left inference mode.
        x: A few inputs, ``(n, ...)``.
        scores: Reads the scores off the output.
    """
    state = awake_state(model)
    try:
        with torch.enable_grad(), explain_failures():
            return _trace(model, x, scores, state)
    except Exception:
        found = Dependence(None, [], copy_inference_state(model))
        with torch.no_grad():
            found.output = watch_forward(
                model,
                lambda: run_with_state(model, as_ordinary_tensor(x), found.state),
                lambda call: found.calls.append(_note(call)),
            )
        return found


def awake_state(model: nn.Module) -> dict[str, Tensor] | None:
    """Parameters and buffers with those weights replaced that are all zero; None if the model's own will do."""
    own = dict(model.named_parameters())
    asleep = [name for name, p in own.items() if not name.endswith("bias") and p.numel() and not p.detach().any()]
    state = copy_inference_state(model)
    if not asleep:
        return state
    generator = torch.Generator().manual_seed(0)
    state = state or dict(chain(own.items(), model.named_buffers()))
    for name in asleep:
        drawn = torch.randn(own[name].shape, generator=generator) * 0.1 + (0.5 if own[name].dim() < 2 else 0)
        state[name] = drawn.to(own[name])
    return state


def _note(call: EndedCall) -> TracedCall:
    output, entered = call.output, call.entered
    grew = (
        call.is_leaf
        and entered is not None
        and entered.dim() == output.dim() > 2
        and math.prod(output.shape[2:]) > math.prod(entered.shape[2:])
        and next(call.module.parameters(), None) is None
    )
    edge = get_gradient_edge(output) if output.requires_grad else None
    grew = grew or (edge is not None and "Upsample" in edge.node.name())
    return TracedCall(
        call.key,
        call.module,
        tuple(output.shape),
        memory_of(output),
        call.is_leaf,
        grew,
        edge,
        is_attention=_is_attention(output),
        depends=output.is_floating_point(),
    )


def _is_attention(output: Tensor) -> bool:
    """Whether a tensor is what a softmax over the last of four axes gives, or a copy of that."""
    if output.dim() < 4 or output.shape[-1] < 2 or not output.is_floating_point():
        return False
    values = output.detach().float()
    return bool((values >= 0).all()) and bool(((values.sum(-1) - 1).abs() < SUMS_TO_ONE).all())


def _trace(model: nn.Module, x: Tensor, scores: Scores, state: Mapping[str, Tensor] | None) -> Dependence:
    leaf = x.detach().clone()
    if leaf.is_floating_point() or leaf.is_complex():
        leaf.requires_grad_()
    found = Dependence(None, [], state)
    found.output = watch_forward(
        model, lambda: run_with_state(model, leaf.clone(), state), lambda call: found.calls.append(_note(call))
    )
    values = scores(found.output)
    if values.grad_fn is None:
        return found
    score = _one_score(values)
    on_way = _nodes_between(score, leaf)
    for call in found.calls:
        call.depends = call.edge is not None and call.edge.node in on_way
    _find_weights(found.calls, score, leaf)
    _find_sources(found.calls)
    _find_read(found.calls, score)
    _find_class_planes(found.calls, values)
    for call in found.calls:  # the graph is let go
        call.edge = None
    return found


def _one_score(values: Tensor) -> Tensor:
    """A sum in which no class is worth the same as another: that of probabilities would be constant."""
    if values.dim() < 2:
        return values.sum()
    weights = torch.cos(torch.arange(values.shape[1], device=values.device).float())
    return (values.movedim(1, -1).float() * weights).sum()


def _nodes_between(score: Tensor, leaf: Tensor) -> set[Any]:
    """Nodes of the score's graph from which a way leads on to the leaf; all of them if the leaf has no gradient."""
    order = list_inputs_first(score.grad_fn)
    if not leaf.requires_grad:
        return set(order)
    reached = {get_gradient_edge(leaf).node}
    for node in order:
        if any(parent in reached for parent, _ in node.next_functions):
            reached.add(node)
    return reached & set(order)


def _find_weights(calls: list[TracedCall], score: Tensor, leaf: Tensor) -> None:
    values = find_values(score, leaf) if leaf.requires_grad else set()
    for call in calls:
        call.is_weight = bool(values) and call.depends and call.edge is not None and call.edge.node not in values


def _find_sources(calls: list[TracedCall]) -> None:
    """Find for each tensor the recorded ones that it was directly made of."""
    places: dict[tuple[Any, int], TracedCall] = {}
    for call in calls:
        if call.depends and call.edge is not None:
            places.setdefault((call.edge.node, call.edge.output_nr), call)
    readers: dict[int, set[int]] = defaultdict(set)
    for call in places.values():
        assert call.edge is not None
        sources = list(_nearest(call.edge.node, places))
        for source in sources:
            readers[id(source)].add(id(call))
        if len(sources) == 1:
            call.source = sources[0]
    for call in calls:
        if call.edge is not None:
            first = places.get((call.edge.node, call.edge.output_nr))
            if first is not None:
                call.readers = len(readers[id(first)])
                call.source, call.same = first.source, first


def _nearest(start: Any, places: Mapping[tuple[Any, int], TracedCall]) -> Iterable[TracedCall]:
    seen, stack = {start}, [start]
    found: dict[int, TracedCall] = {}
    while stack:
        for parent in stack.pop().next_functions:
            if parent in places:
                found[id(places[parent])] = places[parent]
            elif parent[0] is not None and parent[0] not in seen:
                seen.add(parent[0])
                stack.append(parent[0])
    return found.values()


def _find_read(calls: list[TracedCall], score: Tensor) -> None:
    asked = [call for call in calls if call.depends and len(call.shape) > 2]
    for call, gradient in zip(asked, _gradients(score, asked), strict=True):
        if gradient is not None:
            call.read = gradient != 0 if gradient.shape[0] else None


def _find_class_planes(calls: list[TracedCall], values: Tensor) -> None:
    """Class planes are maps whose every channel is read by the score of its own class alone, or by no weight at all."""
    if values.dim() < 2:
        return
    classes = values.shape[1]
    asked = [call for call in calls if call.depends and len(call.shape) > 2 and call.shape[1] == classes]
    last = max((i for i, call in enumerate(calls) if call.depends and _has_weights(call)), default=-1)
    for call in asked:
        call.is_class_plane = calls.index(call) >= last
    tried = sorted({*range(min(classes, CLASSES_TRIED)), classes - 1})
    diagonal: dict[int, list[bool]] = {id(call): [] for call in asked}
    for label in tried:
        for call, gradient in zip(asked, _gradients(values[:, label].sum(), asked), strict=True):
            if gradient is not None:
                others = torch.arange(classes, device=gradient.device) != label
                diagonal[id(call)].append(not bool(gradient[:, others].any()))
    for call in asked:
        call.is_class_plane = call.is_class_plane or (bool(diagonal[id(call)]) and all(diagonal[id(call)]))


def _has_weights(call: TracedCall) -> bool:
    return call.is_leaf and next(call.module.parameters(recurse=False), None) is not None


def _gradients(score: Tensor, calls: list[TracedCall]) -> list[Tensor | None]:
    edges = [call.edge for call in calls if call.edge is not None]
    if not edges:
        return [None] * len(calls)
    return list(torch.autograd.grad(score, edges, retain_graph=True, allow_unused=True))
