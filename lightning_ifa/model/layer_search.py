"""Find the layer whose features are analysed, and say which layers would do."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from difflib import get_close_matches
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lightning_ifa.errors import LayerError
from lightning_ifa.model.activation_capture import ActivationCapture, gradients, run_captured
from lightning_ifa.model.forward import as_ordinary_tensor, run_with_state
from lightning_ifa.model.output_form import output_tensor
from lightning_ifa.model.target_layer import Reshape, TargetLayer, plain_name
from lightning_ifa.model.token_layouts import channels_first, find_layouts
from lightning_ifa.model.tracing import LayerShape, named_layers, trace_layers

FEW = 2


class FoundLayer(NamedTuple):
    """The layer to analyse, and what the model returned in the dry forward pass that found it."""

    target: TargetLayer
    output: Any


Scores = Callable[[Any], Tensor]


def find_layer(
    model: nn.Module,
    x: Tensor,
    name: str | None = None,
    reshape: Reshape | None = None,
    scores: Scores = output_tensor,
) -> FoundLayer:
    """Find the target layer by a dry forward pass.

    Without a name it is the last layer with spatial output: a tensor ``(n, c, *space)`` with more than one
    position and as many spatial axes as the input, which is neither the model's output nor its class planes. In a
    transformer it is the last layer of the embedding's width of whose image tokens the output still depends: behind
    the last attention only the class token may be read.

    Args:
        model: The network, already in evaluation mode.
        x: One batch of inputs, shape ``(n, ...)``; two samples of it are used.
        name: A dotted module name as in ``model.named_modules()``; parts that ``torch.compile`` adds may be
            left out. Of a module that runs more than once, ``"name#0"`` is the first call.
        reshape: Takes maps ``(n, c, *space)`` from the named layer's output if it is of a form that is not recognised
            (``(n, c, *space)``, tokens, channels last).
        scores: Reads the scores, ``(n, k)`` or of another shape, off the model's output.

    Raises:
        LayerError: The name is misspelt, the layer has no spatial output, did not run, or there is none.
    """
    few = x[:FEW].clone()
    output, layers = trace_layers(model, lambda: run_with_state(model, as_ordinary_tensor(few)))
    result = scores(output)
    layouts = find_layouts(layers, tuple(few.shape))
    candidates = [_Candidate(layer, layouts.get(layer.name)) for layer in layers]
    tokens = {candidate.layer.shape[1] for candidate in candidates if candidate.is_tokens}
    usable = [candidate for candidate in candidates if _is_usable(candidate, few, result, tokens)]
    if name is not None:
        return FoundLayer(_named(model, plain_name(name), reshape, candidates, usable), output)
    if reshape is not None:
        raise LayerError("a reshape belongs to the output of one layer; name it by layer=")
    if not usable:
        raise LayerError(
            "no layer with spatial output: a map needs a layer that returns (batch, channels, *space) with "
            f"more than one position, run once, before the output. Layers seen: {_join_names(candidates)}{_hint(model)}"
        )
    return FoundLayer(_last(model, few, usable, scores), output)


class _Candidate(NamedTuple):
    """A layer of the dry pass, and how maps are taken from its output if that is of another form."""

    layer: LayerShape
    reshape: Reshape | None

    @property
    def name(self) -> str:
        return self.layer.name

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the maps."""
        if self.reshape is None:
            return self.layer.shape
        return tuple(self.reshape(torch.empty(self.layer.shape, device="meta")).shape)

    @property
    def is_tokens(self) -> bool:
        return self.reshape is not None and self.reshape is not channels_first

    @property
    def target(self) -> TargetLayer:
        return TargetLayer(self.name, self.layer.module, None, self.reshape)


def _is_usable(candidate: _Candidate, x: Tensor, result: Tensor, tokens: set[int]) -> bool:
    shape = candidate.shape
    same_rank = x.dim() < 3 or len(shape) == x.dim()
    if candidate.layer.calls > 1 or not shape[2:] or not same_rank or math.prod(shape[2:]) < 2:
        return False
    if candidate.reshape is None and tokens & set(shape[2:]):  # heads of an attention: (n, heads, tokens, ...)
        return False
    is_class_plane = result.dim() == len(shape) and shape[1] == result.shape[1]
    return not candidate.layer.shares_memory(result) and not is_class_plane


def _last(model: nn.Module, x: Tensor, usable: list[_Candidate], scores: Scores) -> TargetLayer:
    """The last usable layer; of token layers the last whose image tokens the output depends on."""
    if not usable[-1].is_tokens:
        return usable[-1].target
    tokens = [candidate for candidate in usable if candidate.is_tokens]
    targets = [candidate.target for candidate in tokens if candidate.shape[1] == tokens[0].shape[1]]
    with ExitStack() as stack, torch.enable_grad():
        captures = [stack.enter_context(ActivationCapture(model, target)) for target in targets]
        score = scores(run_captured(captures, x)).flatten(1)[:, 0]
        found = gradients(captures, score, required=False)
    read = [target for target, (_, G) in zip(targets, found, strict=True) if bool(G.any())]
    return (read or targets)[-1]


def _named(
    model: nn.Module, name: str, reshape: Reshape | None, seen: list[_Candidate], usable: list[_Candidate]
) -> TargetLayer:
    module_name, is_marked, number = name.partition("#")
    modules = named_layers(model)
    if module_name not in modules:
        near = get_close_matches(module_name, modules, n=1, cutoff=0.4)
        hint = f'; did you mean "{near[0]}"?' if near else ""
        raise LayerError(f'the model has no layer "{module_name}"{hint} Layers that would do: {_join_names(usable)}')
    ran = {candidate.name: candidate for candidate in seen}
    if module_name not in ran:
        raise LayerError(
            f'layer "{module_name}" did not run, or returned no tensor, in a forward pass. '
            f"Layers that would do: {_join_names(usable)}{_hint(model)}"
        )
    found = ran[module_name] if reshape is None else _Candidate(ran[module_name].layer, reshape)
    call = _chosen_call(found.layer, number) if is_marked else None
    if call is None and found.layer.calls > 1:
        choices = ", ".join(f'"{module_name}#{turn}"' for turn in range(found.layer.calls))
        raise LayerError(
            f'layer "{module_name}" runs more than once in one forward pass, so it has no single activation; '
            f"name one of its calls ({choices}), or the module that contains it"
        )
    if reshape is None and (len(found.shape) < 3 or math.prod(found.shape[2:]) < 2):
        raise LayerError(
            f'layer "{module_name}" returns {found.layer.shape}; a map needs (batch, channels, *space) with more than '
            f"one position, or a reshape= that takes such maps from it. Layers that would do: {_join_names(usable)}"
        )
    return TargetLayer(name if is_marked else module_name, found.layer.module, call, found.reshape)


def _chosen_call(layer: LayerShape, number: str) -> int:
    if not number.isdecimal() or int(number) >= layer.calls:
        last = f' to "{layer.name}#{layer.calls - 1}"' if layer.calls > 1 else " only"
        raise LayerError(
            f'there is no call "{layer.name}#{number}"; in one forward pass there is "{layer.name}#0"{last}'
        )
    return int(number)


def _hint(model: nn.Module) -> str:
    if not any(isinstance(module, torch.jit.ScriptModule) for module in model.modules()):
        return ""
    return ". The model was made by torch.jit, whose inner modules cannot be observed: analyse the original one"


def _join_names(candidates: Sequence[_Candidate], most: int = 8) -> str:
    shown = [f'"{candidate.name}" {candidate.layer.shape}' for candidate in candidates[-most:]]
    left = len(candidates) - len(shown)
    return ", ".join(shown) + (f" and {left} before them" if left else "") if shown else "none"
