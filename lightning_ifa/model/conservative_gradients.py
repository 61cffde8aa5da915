"""Gradients whose contributions sum to the score again behind norms and attention, where plain ones sum to nothing.

A norm divides by a deviation, so that its output does not grow with its input: by Euler's theorem gradient times input
sums to zero, whatever the network has learnt. The remedy (Ali et al. 2022, "XAI for Transformers: better explanations
through conservative propagation"; Achtibat et al. 2024, "AttnLRP") is to treat what only weighs as a constant in the
backward pass, so that each step is homogeneous of degree one:

* a norm's deviation, or whatever else a value is divided by, is held; the mean is linear and keeps its gradient;
* attention weights and gates (softmax, sigmoid, tanh) that multiply a value are held;
* an activation function f is passed as the factor f(x) / x, which is held;
* two values that multiply one another get half of the gradient each.

The forward pass is not touched. The rule is read off the recorded graph, in which modules, functions and norms written
by hand look alike, and acts through hooks on its nodes for the duration of one backward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import Node, get_gradient_edge
from torch.nn import functional as F  # noqa: N812 - torch's own documentation calls it so

from lightning_ifa.model.autograd_graph import list_inputs_first

Gradients = tuple[Tensor | None, ...]
Hook = Callable[[Gradients, Gradients], Gradients]
"""From a node's gradients towards its inputs, and from its outputs, to those towards its inputs that are passed on."""


class Rule(NamedTuple):
    """What is changed in one backward pass: nodes of the graph, and what becomes of the gradients there."""

    hooks: Sequence[tuple[Node, Hook]]

    @contextmanager
    def active(self) -> Iterator[None]:
        """Change backward passes through the graph inside the ``with`` block."""
        with ExitStack() as handles:
            for node, hook in self.hooks:
                handles.callback(node.register_hook(hook).remove)
            yield


def find_rule(score: Tensor, activation: Tensor, beside: Tensor | None = None) -> Rule | None:
    """Read off the graph what has to be held between a score and an activation.

    Args:
        score: ``(n,)``, with a graph.
        activation: A tensor of that graph that requires a gradient.
        beside: Another one, which the score depends on beside the activation, and not through it.

    Returns:
        The rule; None where neither norm nor attention lies between them, or where the score depends on the activation
        through nothing but what would be held. The plain gradient serves there.
    """
    start = score.grad_fn
    if start is None:
        return None
    edges = [get_gradient_edge(tensor) for tensor in (activation, beside) if tensor is not None]
    steps = _steps(start, {edge.node: edge.output_nr for edge in edges})
    reached = _reached(start, steps)
    found = [(node, steps[node]) for node in reached if node in steps]
    if edges[0].node not in reached or not any(step.calls_for_rule for _, step in found):
        return None
    return Rule([(node, step.hook) for node, step in found if step.hook is not None])


def find_values(score: Tensor, x: Tensor) -> set[Node]:
    """Find the nodes through which a score depends on an input as on a value, not only as on a weight of others.

    A map behind which nothing but attention weights or gates are computed is none of them: its positions are asked
    where to look, and what is seen there is read off another tensor.

    Args:
        score: ``(n,)`` or one number, with a graph.
        x: The input, a tensor of that graph.

    Returns:
        The nodes; empty where the score depends on the input through weights only.
    """
    end = get_gradient_edge(x)
    assert score.grad_fn is not None
    reached = _reached(score.grad_fn, _steps(score.grad_fn, {end.node: end.output_nr}))
    return set(reached) if end.node in reached else set()


def _steps(start: Node, ends: dict[Node, int]) -> dict[Node, _Step]:
    steps: dict[Node, _Step] = {}
    for node in list_inputs_first(start, ends):
        levels = [_level(source, number, ends, steps) for source, number in node.next_functions]
        if any(level is not None for level in levels):
            steps[node] = _step(node, levels)
    return steps


def _level(source: Node | None, number: int, ends: dict[Node, int], steps: dict[Node, _Step]) -> int | None:
    if source in ends:
        return 0 if number == ends[source] else None
    return steps[source].level if source in steps else None


def _reached(start: Node, steps: dict[Node, _Step]) -> dict[Node, None]:
    """List the nodes that a gradient still comes to, in the order in which it does."""
    reached, stack = {start: None}, [start]
    while stack:
        node = stack.pop()
        if node not in steps:
            continue
        for number, (source, _) in enumerate(node.next_functions):
            if source is not None and number not in steps[node].held and source not in reached:
                reached[source] = None
                stack.append(source)
    return reached


class _Step(NamedTuple):
    """One node that depends on the activation.

    Attributes:
        level: How far it is a weight rather than a value: 0 for what depends on the activation as a value does, else
            what every path from the activation has passed, one of the constants below.
        hook: What becomes of its gradients, or None if nothing does.
        held: The inputs to which no gradient is passed on.
        calls_for_rule: Whether the plain gradient would do wrong here.
    """

    level: int
    hook: Hook | None = None
    held: frozenset[int] = frozenset()
    calls_for_rule: bool = False


SQUASHED, GATE, ATTENTION, RECIPROCAL = 1, 2, 3, 4

WEIGHTS = {
    "TanhBackward0": SQUASHED,
    "ErfBackward0": SQUASHED,
    "ExpBackward0": GATE,
    "SigmoidBackward0": GATE,
    "HardsigmoidBackward0": GATE,
    "SoftmaxBackward0": ATTENTION,
    "SafeSoftmaxBackward0": ATTENTION,
    "RsqrtBackward0": RECIPROCAL,
    "ReciprocalBackward0": RECIPROCAL,
}
"""Functions whose value is a weight where it multiplies something that is less of one."""

PRODUCTS = {
    "MulBackward0": (0, 1),
    "BmmBackward0": (0, 1),
    "MmBackward0": (0, 1),
    "MvBackward0": (0, 1),
    "DotBackward0": (0, 1),
    "LinearBackward0": (0, 1),
    "ConvolutionBackward0": (0, 1),
    "AddmmBackward0": (1, 2),
    "BaddbmmBackward0": (1, 2),
    "AddcmulBackward0": (1, 2),
}
"""Which of their inputs are multiplied."""


def _step(node: Any, levels: list[int | None]) -> _Step:
    """Decide about one node by its kind, and by how far its inputs are weights; None for those that are independent."""
    name: str = node.name()
    lowest = min(level for level in levels if level is not None)
    if name in PRODUCTS:
        return _product(*PRODUCTS[name], levels, lowest)
    if name == "DivBackward0":
        return _quotient(levels, lowest)
    if name.startswith("ScaledDotProduct"):
        return _attention(levels, lowest)
    if name in WEIGHTS:
        return _Step(max(WEIGHTS[name], lowest), _tanh_as_factor(node) if name == "TanhBackward0" else None)
    if name in NORMS:
        hook = NORMS[name](node)
        return _Step(lowest, hook, calls_for_rule=hook is not None)
    if name == "PowBackward0" and node._saved_exponent < 0:
        return _Step(RECIPROCAL)
    if name in DEGREES:
        return _Step(lowest, _scale(1 / DEGREES[name](node)))
    if name == "GluBackward0":
        return _Step(lowest, _hold_gate(node))
    return _Step(lowest, _as_factor(node, FUNCTIONS[name]) if name in FUNCTIONS else None)


def _product(i: int, j: int, levels: list[int | None], lowest: int) -> _Step:
    a, b = levels[i], levels[j]
    if a is None or b is None:
        return _Step(lowest)
    if a == b:
        return _Step(lowest, _scale(0.5, i, j))
    held = i if a > b else j
    return _Step(lowest, _drop(held), frozenset({held}), max(a, b) >= ATTENTION)


def _quotient(levels: list[int | None], lowest: int) -> _Step:
    above, below = levels[0], levels[1] if len(levels) > 1 else None
    if below is None:
        return _Step(lowest)
    if above is None:
        return _Step(RECIPROCAL)
    if above >= GATE:
        return _Step(max(lowest, ATTENTION))  # a softmax written by hand
    return _Step(above, _drop(1), frozenset({1}), calls_for_rule=True)


def _attention(levels: list[int | None], lowest: int) -> _Step:
    query, key, value, *bias = levels
    if value is None:
        return _Step(max(lowest, ATTENTION))
    held = frozenset(number for number in range(len(levels)) if number != 2)
    fixed = query is None and key is None and all(level is None for level in bias)
    return _Step(value, _drop(*held), held, calls_for_rule=not fixed)


def _drop(*numbers: int) -> Hook:
    return lambda inputs, _: tuple(None if number in numbers else grad for number, grad in enumerate(inputs))


def _scale(factor: float, *numbers: int) -> Hook | None:
    """Scale the gradients towards some of the inputs, or towards all of them."""
    if factor == 1:
        return None
    return lambda inputs, _: tuple(
        grad * factor if grad is not None and (not numbers or number in numbers) else grad
        for number, grad in enumerate(inputs)
    )


def _replace(change: Callable[[Tensor, Tensor], Tensor]) -> Hook:
    """Compute the gradient towards the first input anew, from the plain one and that from the output."""

    def hook(inputs: Gradients, outputs: Gradients) -> Gradients:
        plain, grad = inputs[0], outputs[0]
        if plain is None or grad is None:
            return inputs
        return change(plain, grad).to(plain.dtype), *inputs[1:]

    return hook


def _hold_gate(node: Any) -> Hook:
    def without_gate(plain: Tensor, grad: Tensor) -> Tensor:
        value, gate = plain.chunk(2, node_dim)
        return torch.cat([value, torch.zeros_like(gate)], node_dim)

    node_dim = _as_signed(node._saved_dim)
    return _replace(without_gate)


def _as_signed(number: int) -> int:
    """Autograd shows a negative dimension as an unsigned 64-bit number."""
    return number - 2**64 if number >= 2**63 else number


def _as_factor(node: Any, function: Callable[[Any, Tensor], Tensor]) -> Hook:
    """Pass an activation function as f(x) / x; where x is 0 that is its derivative there."""
    x = node._saved_self

    def factor(plain: Tensor, grad: Tensor) -> Tensor:
        is_zero = x == 0
        return torch.where(is_zero, plain, grad * function(node, x) / x.masked_fill(is_zero, 1))

    return _replace(factor)


def _tanh_as_factor(node: Any) -> Hook:
    """The same for tanh, of which autograd keeps the value only; where that is 1 to rounding, x is taken for 9."""
    y = node._saved_result

    def factor(plain: Tensor, grad: Tensor) -> Tensor:
        x = y.clamp(-1 + torch.finfo(y.dtype).eps, 1 - torch.finfo(y.dtype).eps).atanh()
        return torch.where(x == 0, plain, grad * y / x.masked_fill(x == 0, 1))

    return _replace(factor)


def _elu(node: Any, x: Tensor) -> Tensor:
    return torch.ops.aten.elu(x, node._saved_alpha, node._saved_scale, node._saved_input_scale)  # type: ignore[no-any-return]


FUNCTIONS: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "GeluBackward0": lambda node, x: F.gelu(x, approximate=node._saved_approximate),
    "SiluBackward0": lambda _, x: F.silu(x),
    "MishBackward0": lambda _, x: F.mish(x),
    "HardswishBackward0": lambda _, x: F.hardswish(x),
    "EluBackward0": _elu,
    "CeluBackward0": lambda node, x: F.celu(x, node._saved_alpha),
    "HardtanhBackward0": lambda node, x: x.clamp(node._saved_min_val, node._saved_max_val),
    "SoftshrinkBackward0": lambda node, x: F.softshrink(x, node._saved_lambd),
}
"""Activation functions with f(0) = 0 that are not homogeneous already, as ReLU and its leaky relatives are."""

DEGREES: dict[str, Callable[[Any], float]] = {
    "PowBackward0": lambda node: float(node._saved_exponent) or 1.0,
    "SqrtBackward0": lambda _: 0.5,
    "VarBackward0": lambda _: 2.0,
}
"""Homogeneous functions, and their degree."""


def _layer_norm(node: Any) -> Hook:
    rstd: Tensor = node._saved_result2
    weight: Tensor | None = node._saved_weight
    axes = tuple(range(-len(node._saved_normalized_shape), 0))

    def hold_deviation(plain: Tensor, grad: Tensor) -> Tensor:
        grad = grad if weight is None else grad * weight
        return (grad - grad.mean(axes, keepdim=True)) * rstd

    return _replace(hold_deviation)


def _rms_norm(node: Any) -> Hook:
    rstd: Tensor = node._saved_result1
    weight: Tensor | None = node._saved_weight
    return _replace(lambda _, grad: (grad if weight is None else grad * weight) * rstd)


def _group_norm(node: Any) -> Hook:
    rstd: Tensor = node._saved_result2
    weight: Tensor | None = node._saved_weight
    groups: int = node._saved_group

    def hold_deviation(plain: Tensor, grad: Tensor) -> Tensor:
        grad = grad if weight is None else grad * weight.reshape(1, -1, *[1] * (grad.dim() - 2))
        grouped = grad.reshape(len(grad), groups, -1)
        return ((grouped - grouped.mean(2, keepdim=True)) * rstd.reshape(len(grad), groups, 1)).reshape(grad.shape)

    return _replace(hold_deviation)


def _instance_norm(node: Any) -> Hook | None:
    """Instance norm is a batch norm by each sample's own statistics; one by running statistics is linear already."""
    if not node._saved_training:
        return None
    rstd: Tensor = node._saved_result2
    weight: Tensor | None = node._saved_weight

    def hold_deviation(plain: Tensor, grad: Tensor) -> Tensor:
        shape, axes = (1, -1, *[1] * (grad.dim() - 2)), (0, *range(2, grad.dim()))
        grad = grad if weight is None else grad * weight.reshape(shape)
        return (grad - grad.mean(axes, keepdim=True)) * rstd.reshape(shape)

    return _replace(hold_deviation)


NORMS: dict[str, Callable[[Any], Hook | None]] = {
    "NativeLayerNormBackward0": _layer_norm,
    "FusedRmsNormBackward0": _rms_norm,
    "NativeGroupNormBackward0": _group_norm,
    "NativeBatchNormBackward0": _instance_norm,
    "CudnnBatchNormBackward0": _instance_norm,
}
"""Norms that torch computes in one step."""
