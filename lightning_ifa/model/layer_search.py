"""Find the layer whose features are analysed, and say which layers would do."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from lightning_ifa.errors import LayerError
from lightning_ifa.model.dependence import Scores, TracedCall
from lightning_ifa.model.layer_survey import Survey, survey_layers
from lightning_ifa.model.output_form import output_tensor
from lightning_ifa.model.target_layer import Reshape, TargetLayer, plain_name
from lightning_ifa.model.tracing import named_layers


class FoundLayer(NamedTuple):
    """The layer to analyse, and what the model returned in the dry forward pass that found it."""

    target: TargetLayer
    output: Any


def find_layer(
    model: nn.Module,
    x: Tensor,
    name: str | None = None,
    reshape: Reshape | None = None,
    scores: Scores = output_tensor,
) -> FoundLayer:
    """Find one target layer; see ``find_layers``."""
    return find_layers(model, x, [name], reshape, scores)[0]


def find_layers(
    model: nn.Module,
    x: Tensor,
    names: Sequence[str | None],
    reshape: Reshape | None = None,
    scores: Scores = output_tensor,
) -> list[FoundLayer]:
    """Find target layers by dry forward passes.

    One has a graph, which tells what the score depends on. A few have bands of the input changed, which tells where an
    output's positions lie.

    Without a name it is the last activation with positions whose gradient of the score is not zero: of a module's
    (last) call, or of an activation function. It is neither the model's output nor its class planes, nor a copy or an
    enlargement of what came before, nor a projection of the residual stream, as queries, keys and values.

    Args:
        model: The network, already in evaluation mode.
        x: One batch of inputs, shape ``(n, ...)``; two samples of it are used.
        names: For each a dotted module name as in ``model.named_modules()``; parts that ``torch.compile`` adds may be
            left out. Of a module that runs more than once, ``"name#0"`` is the first call. ``"name.relu()"`` is what
            the function returns in the forward of module ``name``, ``"relu()"`` in the model's own. None is the
            default.
        reshape: Takes maps ``(n, c, *space)`` from the named layer's output if it is of a form that is not recognised.
        scores: Reads the scores, ``(n, k)`` or of another shape, off the model's output.

    Raises:
        LayerError: The name is misspelt, the layer has no spatial output, did not run, or there is none.
    """
    if reshape is not None and None in names:
        raise LayerError("a reshape belongs to the output of one layer; name it by layer=")
    survey = survey_layers(model, x, scores, perturb=reshape is None)
    output = tree_map_only(Tensor, Tensor.detach, survey.output)
    targets = [survey.default() if name is None else _named(survey, plain_name(name), reshape) for name in names]
    return [FoundLayer(target if target is not None else _none(survey), output) for target in targets]


def _none(survey: Survey) -> TargetLayer:
    for call in survey.calls[::-1]:
        rows = survey.rows(call)
        if rows > 1 and call.depends and len(call.shape) > 2:
            raise LayerError(
                f'layer "{call.key.layer}" returns {call.shape} for a batch of {survey.samples} samples: {rows} '
                "slices, views or windows per sample lie in the batch axis, and perturbing the input did not show how "
                "they form maps; name a layer behind the point where they are joined by layer=, or give "
                "(batch, channels, *space) by a model whose batch axis holds samples only"
            )
    raise LayerError(
        "no layer with spatial output: a map needs a layer that returns (batch, channels, *space) with more than one "
        "position, between the input and the score; layer= with a reshape= that takes such maps would do. "
        f"Layers seen: {_join_names(survey.last_calls)}{_hint(survey.model)}"
    )


def _named(survey: Survey, name: str, reshape: Reshape | None) -> TargetLayer:
    layer, is_marked, number = name.partition("#")
    calls = [call for call in survey.calls if call.key.layer == layer]
    would_do = _join_names(survey.usable())
    if not calls and layer not in named_layers(survey.model):
        known = [*named_layers(survey.model), *(call.key.layer for call in survey.calls if call.key.function)]
        near = get_close_matches(layer, known, n=1, cutoff=0.4)
        hint = f'; did you mean "{near[0]}"?' if near else ""
        raise LayerError(f'the model has no layer "{layer}"{hint} Layers that would do: {would_do}')
    if not calls:
        raise LayerError(
            f'layer "{layer}" did not run, or returned no tensor, in a forward pass. '
            f"Layers that would do: {would_do}{_hint(survey.model)}"
        )
    if not is_marked and len(calls) > 1:
        choices = ", ".join(f'"{layer}#{turn}"' for turn in range(len(calls)))
        raise LayerError(
            f'layer "{layer}" runs more than once in one forward pass, so it has no single activation; '
            f"name one of its calls ({choices}), or the module that contains it"
        )
    call = calls[_chosen_call(layer, len(calls), number) if is_marked else -1]
    if reshape is not None:
        return TargetLayer(name, call.module, call.key.turn if is_marked else None, reshape, call.key.function)
    target = survey.target(call, name, call.key.turn if is_marked else None)
    if target is None:
        rows = survey.rows(call)
        many = f" ({rows} rows per sample in the batch axis)" if rows > 1 else ""
        raise LayerError(
            f'layer "{layer}" returns {call.shape}{many}; a map needs (batch, channels, *space) with more than '
            f"one position, or a reshape= that takes such maps from it. Layers that would do: {would_do}"
        )
    return target


def _chosen_call(layer: str, count: int, number: str) -> int:
    if not number.isdecimal() or int(number) >= count:
        last = f' to "{layer}#{count - 1}"' if count > 1 else " only"
        raise LayerError(f'there is no call "{layer}#{number}"; in one forward pass there is "{layer}#0"{last}')
    return int(number)


def _hint(model: nn.Module) -> str:
    if isinstance(model, torch.fx.GraphModule):
        return ". The model was exported to a graph, whose layers are no modules any more: analyse the original one"
    if not any(isinstance(module, torch.jit.ScriptModule) for module in model.modules()):
        return ""
    return ". The model was made by torch.jit, whose inner modules cannot be observed: analyse the original one"


def _join_names(calls: Sequence[TracedCall], most: int = 8) -> str:
    shown = [f'"{call.key.layer}" {call.shape}' for call in calls[-most:]]
    left = len(calls) - len(shown)
    return ", ".join(shown) + (f" and {left} before them" if left else "") if shown else "none"
