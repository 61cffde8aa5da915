"""Reuse the forward passes of the user's own validation.

While the user validates, a layer's output is stored beside a hash of what entered the network. Nothing is changed:
the hooks return nothing, and gradients and inference mode stay as they are. The separate pass then runs as ever, but
for a batch with the same content the modules before the layer are skipped and the layer returns the stored output;
any other batch passes through the whole network. So both ways see the same batches and give the same bits, which must
be shown on the first batch before the others are trusted.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only
from torch.utils.data import BatchSampler, DataLoader, SequentialSampler

from lightning_ifa.data.batches import is_wrapped
from lightning_ifa.data.feature_table import FeatureTable
from lightning_ifa.data.sampling import Indices, batch_size, is_stream
from lightning_ifa.features.extractor import FeatureExtractor
from lightning_ifa.features.look_capture import REPLAYED, LookCapture
from lightning_ifa.model.tracing import trace_forward, watch_calls

FEW = 4

MOST_BYTES = 2**26
"""Activations stored at most; batches beyond it go through the network again."""

PROOF = ("contributions", "activations", "cams", "logits", "predictions", "explained", "targets", "places", "looks")


class NotCacheableError(Exception):
    """Why the separate pass has to go through the whole network."""


def same_batches(loader: DataLoader[Any], indices: Indices) -> bool:
    """Whether a validation and the pass over the reference samples put the same samples into the same batches."""
    return (
        not is_stream(loader)
        and isinstance(loader.sampler, SequentialSampler)
        and type(loader.batch_sampler) is BatchSampler
        and np.array_equal(indices, np.arange(len(indices)))
        and (len(indices) == len(loader.dataset) or len(indices) % batch_size(loader) == 0)  # type: ignore[arg-type]
    )


class ActivationCache:
    """Stores one layer's outputs during a validation, and returns them in the pass over the same samples.

    Args:
        extraction: How the separate pass runs the network.
        x: Inputs as the network gets them, ``(n, ...)``; a few are run through it.
        y: Their targets, by which the scores are found among several outputs; or None.

    Raises:
        NotCacheableError: The network's calls cannot be skipped without a trace: it is compiled, in training mode,
            watched by the user's own hooks, draws random numbers, or changes state in a forward pass. Or it is not on
            the CPU, where telling inputs apart costs little beside a forward pass.
    """

    def __init__(self, extraction: FeatureExtractor, x: Tensor, y: Any = None) -> None:
        if x.device.type != "cpu":
            raise NotCacheableError("the inputs would have to be copied from the device to be told apart")
        if is_wrapped(x):
            raise NotCacheableError("the inputs are tensors of a class of their own")
        self._model = extraction.model
        _require_plain(self._model)  # another cache may be recording, and must not record what follows
        with extraction.session():
            before = _state(self._model), torch.get_rng_state()
            target = extraction.find_target(x.clone(), y)  # a network may change its input in place
            few = x[:FEW].clone()
            if target.function is not None or target.rows > 1 or target.batch_axis:
                raise NotCacheableError("the layer is a function, or its samples are not the rows of its output")
            with extraction.forward_context():
                calls = trace_forward(self._model, target, few).calls
                self._looks = LookCapture()
                if extraction.search:
                    self._looks.choose(self._model, target, few, None)
            if _state(self._model) != before[0] or not torch.equal(torch.get_rng_state(), before[1]):
                raise NotCacheableError("a forward pass changes state or draws random numbers")
        self._calls = [(module, tree_map_only(Tensor, _shape, output)) for module, output in calls]
        self._layer, self._first = target.module, calls[0][0]
        self._n = len(few)
        self._proven = False
        self._stored: dict[bytes, Tensor] = {}
        self._stored_looks: dict[bytes, Tensor] = {}
        self._bytes = 0
        self._keys: list[bytes] = []
        self._outputs: list[Tensor] = []
        self._turns: Counter[nn.Module] = Counter()
        self._playing: Tensor | None = None
        self.hits = 0

    @contextmanager
    def record(self) -> Iterator[None]:
        """Store what the user's forward passes return; ``next_batch`` goes before each of them.

        Raises:
            NotCacheableError: See the class.
        """
        _require_plain(self._model)
        self._stored.clear()
        self._stored_looks.clear()
        self._bytes = 0
        with watch_calls(self._first, self._layer, self._entered, self._left), self._looks.watch():
            yield
        self.next_batch()

    def next_batch(self) -> None:
        """Keep what the last batch returned, if layer and network ran exactly once for it."""
        looks = self._looks.take()
        if len(self._keys) == 1 and len(self._outputs) == 1:
            self._stored[self._keys[0]] = self._outputs[0]
            if looks is not None:
                self._stored_looks[self._keys[0]] = looks
        self._keys, self._outputs = [], []

    def _entered(self, args: Any) -> None:
        self._keys.append(_content(args))

    def _left(self, output: Any) -> None:
        size = output.numel() * output.element_size()
        if self._bytes + size <= MOST_BYTES:
            self._bytes += size
            with torch.inference_mode(False), torch.no_grad():
                self._outputs.append(output.clone())

    def table(self, extraction: FeatureExtractor, loader: DataLoader[Any], indices: Indices) -> FeatureTable:
        """Fill the table as ``extraction`` does, to the last bit.

        Raises:
            NotCacheableError: The first batch does not come out the same; the separate pass must do without.
        """
        if not self._proven:
            first = indices[: batch_size(loader)]
            ways = [extraction(loader, first), self._replayed(extraction, loader, first)]
            if not self.hits or not all(_is_identical(*(getattr(way, name) for way in ways)) for name in PROOF):
                raise NotCacheableError("the first batch does not come out the same")
            self._proven = True
        try:
            return self._replayed(extraction, loader, indices)
        finally:
            self._stored.clear()
            self._stored_looks.clear()

    def _replayed(self, extraction: FeatureExtractor, loader: DataLoader[Any], indices: Indices) -> FeatureTable:
        modules = dict.fromkeys([self._model, *(module for module, _ in self._calls)])
        own = {module: module.__dict__.get("forward") for module in modules}
        try:
            for module in modules:
                module.forward = self._root(module.forward) if module is self._model else self._stub(module)
            return extraction(loader, indices)
        finally:
            self._playing = None
            REPLAYED.set(None)
            for module, forward in own.items():
                module.__dict__.pop("forward", None)
                if forward is not None:
                    module.forward = forward

    def _root(self, forward: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **options: Any) -> Any:
            self._turns.clear()
            self._playing = None
            REPLAYED.set(None)
            return forward(*args, **options)

        return run

    def _stub(self, module: nn.Module) -> Callable[..., Any]:
        forward, returned = module.forward, [output for called, output in self._calls if called is module]

        def stub(*args: Any, **options: Any) -> Any:
            turn = self._turns[module]
            self._turns[module] += 1
            if module is self._first and turn == 0:
                key = _content(args)
                self._playing = self._stored.get(key)
                REPLAYED.set(self._stored_looks.get(key))
                self.hits += self._playing is not None
            if self._playing is None or turn >= len(returned):
                return forward(*args, **options)
            if module is self._layer:
                return self._playing.clone()
            return tree_map_only(Tensor, self._void, returned[turn])

        return stub

    def _void(self, output: Tensor) -> Tensor:
        """A tensor of the right shape that takes no memory, and shows wherever it is read."""
        assert self._playing is not None
        shape = list(output.shape)
        if shape and shape[0] % self._n == 0:
            shape[0] = shape[0] // self._n * len(self._playing)
        void = output.new_full((), torch.nan if output.is_floating_point() else 0)
        return void.expand(shape)


def _shape(output: Tensor) -> Tensor:
    return output.new_empty(()).expand(output.shape)


def _require_plain(model: nn.Module) -> None:
    for module in model.modules():
        if hasattr(module, "_orig_mod") or getattr(module, "_compiled_call_impl", None) is not None:
            raise NotCacheableError("the network is compiled")
        if getattr(module, "_compiler_ctx", None) is not None or isinstance(module, torch.jit.ScriptModule):
            raise NotCacheableError("the network is compiled")
        if module.training:
            raise NotCacheableError("a module is validated in training mode")
        if module._forward_hooks or module._forward_pre_hooks:
            raise NotCacheableError("a module has hooks of its own")


def _state(model: nn.Module) -> dict[tuple[int, str], tuple[int, int]]:
    """Which tensors the modules hold, and how often each was changed in place."""
    found: dict[tuple[int, str], tuple[int, int]] = {}
    for module in model.modules():
        for name, value in chain(vars(module).items(), module._parameters.items(), module._buffers.items()):
            if torch.is_tensor(value):
                found[id(module), name] = (id(value), -1 if value.is_inference() else value._version)
    return found


def _content(args: Any) -> bytes:
    """Tell an input from any other by its bits; the first of a module's arguments."""
    x = args[0].detach()
    head = f"{tuple(x.shape)} {x.dtype}".encode()
    bits = x.contiguous().cpu().reshape(-1).view(torch.uint8).numpy()
    return hashlib.blake2b(bits.data, digest_size=16, key=head[:64]).digest()


def _is_identical(a: Any, b: Any) -> bool:
    return bool(a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes())
