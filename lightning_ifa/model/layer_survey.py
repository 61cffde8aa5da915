"""What a few dry passes tell of every layer: whether the score depends on it, and how maps are taken from it."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Collection
from functools import cached_property

import torch
from torch import Tensor, nn

from lightning_ifa.errors import LayerError
from lightning_ifa.model.axes import CONFIRMED, Confirmed, Layout, confirm_layout, is_denied, spatial_ranks
from lightning_ifa.model.call_watch import CallKey
from lightning_ifa.model.dependence import Dependence, Scores, TracedCall, trace_dependence
from lightning_ifa.model.forward import allow_gradients, as_ordinary_tensor, run_with_state
from lightning_ifa.model.perturbation import Bands, Movement, measure_movement
from lightning_ifa.model.target_layer import TargetLayer
from lightning_ifa.model.token_layouts import find_layouts
from lightning_ifa.model.tracing import LayerShape, memory_of

FEW = 2
SOME = 6

CERTAIN = 0.9
"""Correlation below which a layer's positions are read off the clearest layer of the same shape."""


class Survey:
    """The layers of a network as seen from one batch.

    Attributes:
        model: The network.
        samples: How many samples the dry pass had.
        output: What the model returned for them.
        calls: Every call that returned a tensor, in the order in which they ended.
    """

    def __init__(
        self,
        model: nn.Module,
        x: Tensor,
        found: Dependence,
        result: Tensor,
        movements: dict[CallKey, Movement],
        bands: Bands | None,
    ) -> None:
        self.model, self.samples, self.output, self.calls = model, len(x), found.output, found.calls
        self._x, self._result, self._movements, self._bands = tuple(x.shape), result, movements, bands
        self._usual = find_layouts([_as_layer(call) for call in self.last_calls], self._x)
        self._confirmed: dict[CallKey, Confirmed | None] = {}
        self._layouts: dict[CallKey, Layout | bool] = {}

    @cached_property
    def last_calls(self) -> list[TracedCall]:
        """The last call of each module and function, of those on the way to the score if any is."""
        last: dict[tuple[str, str | None], TracedCall] = {}
        for call in self.calls:
            known = last.get((call.key.name, call.key.function))
            if known is None or call.depends or not known.depends:
                last[call.key.name, call.key.function] = call
        return [call for call in self.calls if last[call.key.name, call.key.function] is call]

    @cached_property
    def _turns(self) -> Counter[str]:
        return Counter(call.key.layer for call in self.calls)

    def rows(self, call: TracedCall) -> int:
        """Rows of the call's output that belong to one sample; 0 if its first axis does not hold samples."""
        if call.key in self._movements:
            return self._movements[call.key].rows
        return 0 if call.shape[0] % self.samples else call.shape[0] // self.samples

    def _batch_axis(self, call: TracedCall) -> int:
        return self._movements[call.key].batch_axis if call.key in self._movements else 0

    def _shape(self, call: TracedCall) -> tuple[int, ...]:
        """Of the output for one sample."""
        axis = self._batch_axis(call)
        return call.shape[:axis] + call.shape[axis + 1 :]

    def target(self, call: TracedCall, name: str, turn: int | None) -> TargetLayer | None:
        """The target layer at a call, or None if no maps can be taken from it."""
        layout = self._layout(call)
        if layout is False:
            return None
        rows = max(self.rows(call), 1)
        if rows > 1 and layout is True:
            return None
        reshape = None if isinstance(layout, bool) else layout
        inputs, axis = self._followed(call, layout), self._batch_axis(call)
        return TargetLayer(name, call.module, turn, reshape, call.key.function, rows, inputs, axis)

    def _followed(self, call: TracedCall, layout: Layout | bool) -> tuple[int, ...]:
        if isinstance(layout, Layout):
            return layout.inputs
        seen = self._confirm(call)
        sure = seen is not None and seen.is_certain and seen.layout.is_natural(self._shape(call))
        return seen.layout.inputs if seen is not None and sure else ()

    def usable(self) -> list[TracedCall]:
        """The calls that would do as target layers, in order."""
        return [call for call in self.last_calls if self._is_usable(call)]

    def default(self) -> TargetLayer | None:
        """The last usable call that is no copy, no projection and no lone channel; see ``find_layers``.

        Raises:
            LayerError: Where its positions lie could not be confirmed.
        """
        for kind in (self._is_stream, lambda call: True):
            for call in reversed(self.last_calls):
                if self._is_usable(call) and not self._is_copy(call) and kind(call):
                    turn = call.key.turn if self._turns[call.key.layer] > 1 else None
                    name = call.key.layer if turn is None else f"{call.key.layer}#{turn}"
                    if self.is_doubtful(call):
                        raise LayerError(
                            f'where the positions of layer "{name}" {call.shape} lie was not confirmed by '
                            "changing the input; name a layer by layer=, and take (batch, channels, *space) from it "
                            "by reshape="
                        )
                    return self.target(call, name, turn)
        planes = [call for call in self.calls if call.is_class_plane]
        for call in planes:
            call.is_class_plane = False
        return self.default() if planes else None  # nothing comes before them: they are all the features there are

    def is_doubtful(self, call: TracedCall) -> bool:
        """Whether positions were made of its tokens by a guess that no changed input has confirmed."""
        layout = self._layout(call)
        return (
            bool(self._movements)
            and isinstance(layout, Layout)
            and layout in self._usual.values()
            and (layout not in [one.layout for one in self._confirmed.values() if one and one.is_certain])
        )

    def _is_usable(self, call: TracedCall) -> bool:
        if not call.depends or len(call.shape) < 3 or call.is_class_plane or call.grew or call.is_gate:
            return False
        return call.memory != memory_of(self._result) and self._layout(call) is not False and self._is_read(call)

    def _is_read(self, call: TracedCall) -> bool:
        """Whether the score's gradient is not zero at the positions of the maps: it is at tokens that nobody reads."""
        if call.read is None or self.rows(call) != 1 or not self._reads_anything:
            return True
        layout = self._layout(call)
        read = call.read.any(self._batch_axis(call))[None].float()
        return bool((layout(read) if callable(layout) else read).any())

    @cached_property
    def _reads_anything(self) -> bool:
        """Whether any gradient is not zero: on inputs without content every unit may be dead."""
        return any(call.read is not None and bool(call.read.any()) for call in self.calls)

    def _is_copy(self, call: TracedCall) -> bool:
        """Whether another call, which made the tensor or contains all that did, is the better name for it."""
        if call.same is None:
            return False
        alike = [other for other in self.last_calls if other.same is call.same]
        whole = [other for other in alike if not other.is_leaf and other.key.function is None]
        makers = [other for other in alike if other.key.function is None] or alike
        return call is not (whole[-1] if whole else makers[0])

    def _is_stream(self, call: TracedCall) -> bool:
        """Whether it is no projection: linear in something that would do itself, and that others read beside it."""
        if self._channels(call) == 1:
            return False
        if not call.is_linear:
            return True
        root = call.source
        while root is not None and root.is_linear:
            root = root.source
        if root is None or not self._is_usable(root):
            return True
        return not isinstance(call.module, nn.Linear) and root.readers < 2

    def _channels(self, call: TracedCall) -> int:
        layout = self._layout(call)
        axis = layout.channels if isinstance(layout, Layout) else 0
        return self._shape(call)[axis] if not isinstance(layout, Layout) or self.rows(call) == 1 else 0

    def _layout(self, call: TracedCall) -> Layout | bool:
        """How maps are taken from the output: a reshape, True if it is maps already, False if it has none."""
        if call.key not in self._layouts:
            self._layouts[call.key] = self._find_layout(call)
        return self._layouts[call.key]

    def _find_layout(self, call: TracedCall) -> Layout | bool:
        seen = self._confirm(call)
        if seen is None or seen.agreement < CERTAIN:  # where all has been mixed, less is seen than before
            seen = _most_agreed([one for one in map(self._confirm, self._some_alike(call)) if one is not None])
        if seen is not None and seen.is_certain:
            natural = self.rows(call) == 1 and not self._batch_axis(call) and seen.layout.is_natural(self._shape(call))
            return True if natural else seen.layout
        if call.key in self._movements and (self.rows(call) != 1 or self._batch_axis(call)):
            return False
        return self._usual_layout(call)

    def _usual_layout(self, call: TracedCall) -> Layout | bool:
        """What the shape suggests, where what moved does not speak against it."""
        rank = len(self._x)
        layout = self._usual.get(call.key.layer)
        if layout is None:
            has_space = len(call.shape) > 2 and math.prod(call.shape[2:]) > 1
            if not has_space or len(call.shape) - 2 not in spatial_ranks(rank):
                return False
        supposed = layout or Layout(0, call.shape[2:], order=tuple(range(len(call.shape) - 2)))
        return False if any(self._is_denied(one, supposed) for one in self._some_alike(call)) else layout or True

    def _is_denied(self, call: TracedCall, layout: Layout) -> bool:
        movement = self._movements.get(call.key)
        return movement is not None and self._bands is not None and is_denied(movement, self._bands, layout)

    def _some_alike(self, call: TracedCall) -> list[TracedCall]:
        """A few calls with outputs of the same shape, this one among them."""
        alike = [other for other in self.calls if other.shape == call.shape and self.rows(other) == self.rows(call)]
        return [call, *alike[:: max(1, len(alike) // SOME)]]

    def _confirm(self, call: TracedCall) -> Confirmed | None:
        if call.key not in self._confirmed:
            movement = self._movements.get(call.key)
            known = movement is not None and movement.rows > 0 and self._bands is not None
            self._confirmed[call.key] = (
                confirm_layout(movement, self._bands, len(self._x)) if known else None  # type: ignore[arg-type]
            )
        return self._confirmed[call.key]


def _most_agreed(found: list[Confirmed]) -> Confirmed | None:
    """The clearest of those with the layout that is confirmed most often."""
    votes: dict[Layout, list[Confirmed]] = defaultdict(list)
    for one in found:
        votes[one.layout].append(one)
    weight = {layout: sum(max(one.agreement - CONFIRMED, 0) for one in own) for layout, own in votes.items()}
    if not weight:
        return None
    return max(votes[max(weight, key=weight.__getitem__)], key=lambda one: one.agreement)


def survey_layers(model: nn.Module, x: Tensor, scores: Scores, *, perturb: bool) -> Survey:
    """Run the dry passes.

    Args:
        model: The network, already in evaluation mode.
        x: One batch of inputs, ``(n, ...)``.
        scores: Reads the scores off the model's output.
        perturb: Whether the input is changed, too, to see where positions lie.
    """
    with allow_gradients():
        few = as_ordinary_tensor(x[:FEW])
        found = trace_dependence(model, few, scores)
        result = scores(found.output).detach()
        movements: dict[CallKey, Movement] = {}
        bands = None
        if perturb and not _is_random(model, few, scores, found, result):
            keys = {call.key for call in found.calls if len(call.shape) > 2}
            movements, bands = _measure(model, as_ordinary_tensor(x), keys, found)
    return Survey(model, few, found, result, movements, bands)


def _is_random(model: nn.Module, x: Tensor, scores: Scores, found: Dependence, result: Tensor) -> bool:
    """Whether a second pass gives other scores: what a changed input moves cannot be told from chance then."""
    try:
        with torch.no_grad():
            again = scores(run_with_state(model, x, found.state))
    except Exception:  # the model may refuse to run without a graph
        return True
    return again.shape != result.shape or not torch.allclose(again, result, rtol=1e-3, atol=1e-5, equal_nan=True)


def _measure(
    model: nn.Module, x: Tensor, keys: Collection[CallKey], found: Dependence
) -> tuple[dict[CallKey, Movement], Bands | None]:
    try:
        with torch.no_grad():
            return measure_movement(model, x, keys, found.state)
    except Exception:  # the model may refuse what it is not used to; shapes have to do then
        return {}, None


def _as_layer(call: TracedCall) -> LayerShape:
    return LayerShape(call.key.layer, call.module, call.shape, call.memory, 1)
