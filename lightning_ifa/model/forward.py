"""Forward passes of the network, whether the caller is in inference mode or in code that was compiled."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from itertools import chain
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

import torch
from torch import Tensor, nn

from lightning_ifa.errors import IFAError, OutputError
from lightning_ifa.model.probabilities import floating_leaves, is_squashed, is_within_unit, record_logits


def as_ordinary_tensor(value: Any) -> Any:
    """Turn an inference tensor into an ordinary one; return anything else unchanged.

    Must be called outside inference mode: a clone made inside it is an inference tensor again.
    """
    return value.clone() if torch.is_tensor(value) and value.is_inference() else value


@contextmanager
def allow_gradients() -> Iterator[None]:
    """Leave inference mode and compiled code, with gradients off until an ``ActivationCapture`` turns them on.

    Hooks added to a compiled module would recompile it, or be skipped where a caller was compiled. Where nothing was
    compiled the compiler is not even loaded: it takes some 70 MiB.
    """
    is_loaded = "torch._dynamo" in sys.modules
    stance = torch.compiler.set_stance("force_eager") if is_loaded else nullcontext()
    with torch.inference_mode(False), torch.no_grad(), stance:
        yield


def run_forward(model: nn.Module, x: Tensor, state: Mapping[str, Tensor] | None = None) -> Any:
    """Run the network on ``x``, ``(n, ...)``, without a graph.

    Args:
        model: The network, already in evaluation mode.
        x: Input batch.
        state: Parameters and buffers to run with in place of the model's own, by name.
    """
    with allow_gradients(), explain_failures():
        return run_with_state(model, as_ordinary_tensor(x), state)


def run_with_state(model: nn.Module, x: Tensor, state: Mapping[str, Tensor] | None = None) -> Any:
    """Run the network on ``x``, ``(n, ...)``, with other parameters and buffers by name, or with its own.

    ``x`` stays as it is: a network that changes its input in place gets a copy. Whether it does, its first pass shows.
    """
    given = x.clone() if _overwrites_input.get(model, True) else x
    with record_logits() if model in _squashing else nullcontext():
        output = model(given) if state is None else torch.func.functional_call(model, dict(state), (given,))
    if model not in _overwrites_input:
        _overwrites_input[model] = given._version > 0 or not _is_equal(given, x)
    return output


_overwrites_input: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()
_squashing: WeakSet[nn.Module] = WeakSet()


def _is_equal(a: Tensor, b: Tensor) -> bool:
    return bool(((a == b) | (a.isnan() & b.isnan())).all())


def look_for_logits(model: nn.Module, output: Any, run: Callable[[], Any]) -> bool:
    """Find out whether a network's output holds probabilities that it makes itself; from then on logits are recorded.

    Args:
        model: The network.
        output: What it returned for a batch.
        run: Runs it again, on some samples.

    Returns:
        Whether it does, and this was not known: ``output`` came without its logits.
    """
    if model in _squashing or not any(map(is_within_unit, floating_leaves(output))):
        return False
    with record_logits():
        again = floating_leaves(run())
        found = any(is_squashed(leaf) for leaf in again)
    if found:
        _squashing.add(model)
    return found


def copy_inference_state(model: nn.Module) -> dict[str, Tensor] | None:
    """Copy parameters and buffers to ordinary tensors, if any was made in inference mode (some EMA swaps do)."""
    state = dict(chain(model.named_parameters(), model.named_buffers()))
    if not any(tensor.is_inference() for tensor in state.values()):
        return None
    with torch.inference_mode(False):
        return {name: as_ordinary_tensor(tensor) for name, tensor in state.items()}


@contextmanager
def explain_failures() -> Iterator[None]:
    """Turn torch's errors whose cause in the network is known into ones that say what helps.

    Raises:
        OutputError: The network reads a tensor cached in inference mode, is not called as ``model(x)``, or, behind the
            layer, checkpoints reentrantly or has a recurrent layer of cuDNN.
    """
    try:
        yield
    except IFAError:
        raise
    except (TypeError, NotImplementedError, AttributeError, LookupError) as error:
        raise OutputError(
            f"the model cannot be run as model(x) with the batch's input: {type(error).__name__}: {error}. "
            "forward_fn=lambda model, batch: ... says how it is called, as model(**batch) or model(batch[0], batch[1]),"
            " and batch_fn=lambda batch: (x, y) which input is explained, and the target"
        ) from error
    except RuntimeError as error:
        for sign, message in _KNOWN_FAILURES.items():
            if sign in str(error):
                raise OutputError(message) from error
        raise


_KNOWN_FAILURES = {
    "nference tensor": "the model reads a tensor that it cached during an earlier pass in inference mode; "
    "Trainer(inference_mode=False) avoids it",
    "cudnn RNN backward": "the model has a recurrent layer behind the target layer, and cuDNN has no backward pass for "
    "it in evaluation mode; set torch.backends.cudnn.enabled = False for the analysis, or analyse on the CPU",
    "use_reentrant=True": "the model checkpoints activations behind the layer with use_reentrant=True, through which "
    "the gradient at a layer cannot be taken; checkpoint(..., use_reentrant=False) can do it",
}
