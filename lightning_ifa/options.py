"""What an analysis can be asked for, checked when it is asked: one place for every function, callback and command.

Nothing heavy is imported here. A wrong name, number or type is a ``ValueError`` that names the option.
"""

from __future__ import annotations

import math
import os
import reprlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from importlib.util import find_spec
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Literal, get_args

from lightning_ifa.errors import did_you_mean

if TYPE_CHECKING:
    import pandas as pd
    from typing_extensions import Self

Task = Literal["multiclass", "binary", "multilabel", "regression", "segmentation", "custom"]
TASKS: tuple[str, ...] = get_args(Task)
"""What a table's task may be; ``"custom"`` is the task of a user's function."""

CAM_METHODS = (
    "hirescam",
    "gradcam",
    "gradcam++",
    "xgradcam",
    "layercam",
    "eigencam",
    "eigengradcam",
    "scorecam",
    "ablationcam",
    "random",
)
GRADIENTS = ("conservative", "plain")
SPLITS = ("train", "validation")

FEWEST_SAMPLES = 4
"""Two classes with two samples each."""


@dataclass(frozen=True)
class _Options:
    """What both kinds of options have in common."""

    @classmethod
    def of(cls, arguments: Mapping[str, Any]) -> Self:
        """Take the options from all arguments of a function, which are its ``locals()`` before its first line."""
        return cls(**{field.name: arguments[field.name] for field in fields(cls) if field.name in arguments})


@dataclass(frozen=True, kw_only=True, eq=False)
class AnalysisOptions(_Options):
    """The options that ``analyze``, ``analyze_layers`` and the callback share; ``analyze`` says what each one means.

    Raises:
        ValueError: An option has an unknown name, a value out of range, or a value of a wrong type.
    """

    layer: str | None = None
    task: str | Callable[..., Any] = "auto"
    explain: str | int = "target"
    cam: Any = "hirescam"  # a name, or a method of the user's
    gradient: str = "conservative"
    max_samples: int = 1024
    probes: int = 8
    metadata: Mapping[str, pd.DataFrame] | str | os.PathLike[str] | None = None
    regions: Mapping[str, Any] | None = None
    class_names: Sequence[str] | None = None
    batch_fn: Callable[..., Any] | None = None
    forward_fn: Callable[..., Any] | None = None
    reshape: Callable[..., Any] | None = None
    swaps: bool = False
    nifti: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        _require(self, "layer", _is_text, "a string")
        _require_name(self, "task", ("auto", *TASKS[:-1]), "a function")
        _require_name(self, "cam", CAM_METHODS, "a function")
        _require_name(self, "gradient", GRADIENTS)
        if isinstance(self.explain, str):
            _require_name(self, "explain", ("target", "prediction"), "a class index")
        else:
            _require_integer(self, "explain", 0)
        for name, least in (("max_samples", FEWEST_SAMPLES), ("probes", 1), ("seed", 0)):
            _require_integer(self, name, least)
        for name in ("batch_fn", "forward_fn", "reshape"):
            _require(self, name, lambda value: value is None or callable(value), "a function")
        if self.reshape is not None and self.layer is None:
            raise ValueError("reshape belongs to the output of one layer; name it by layer=")
        for name in ("swaps", "nifti"):
            _require(self, name, _is_flag, "True or False")
        if self.nifti and find_spec("nibabel") is None:
            raise ValueError("nifti=True needs nibabel; pip install 'lightning-ifa[medical]'")
        if not isinstance(self.metadata, (str, os.PathLike)):
            _require_splits(self, "metadata")
        _require_splits(self, "regions")
        _require(self, "class_names", lambda value: value is None or _is_sequence(value), "a sequence of names")
        if self.class_names is not None:  # labels that are numbers become strings
            object.__setattr__(self, "class_names", tuple(map(str, self.class_names)))


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingOptions(_Options):
    """What the callback is asked for beyond the analysis itself; ``IntegratedFeatureAnalysis`` says what each means.

    Raises:
        ValueError: An option has an unknown name, a value out of range, or a value of a wrong type.
    """

    every_n_epochs: int = 1
    max_overhead: float | None = None
    train_dataloader: Any | None = None
    log_images: bool = True
    baseline_run_id: str | None = None
    on_error: Literal["warn", "raise"] = "warn"
    run_id: str | None = None
    tracking_uri: str | None = None
    install_view: bool = True
    log_models: Literal["best", "all"] | None = None

    def __post_init__(self) -> None:
        _require_integer(self, "every_n_epochs", 1)
        if self.log_models is not None:
            _require_name(self, "log_models", ("best", "all"), "None")
        _require(self, "max_overhead", _is_share, "a share of the training time, as 0.05")
        _require(self, "train_dataloader", lambda value: value is None or hasattr(value, "dataset"), "a DataLoader")
        _require_name(self, "on_error", ("warn", "raise"))
        for name in ("log_images", "install_view"):
            _require(self, name, _is_flag, "True or False")
        for name in ("baseline_run_id", "run_id", "tracking_uri"):
            _require(self, name, _is_text, "a string")


def require_known(
    given: Iterable[str], known: Iterable[str], source: str, error: Callable[[str], Exception] = ValueError
) -> None:
    """See that every option that somebody names exists.

    Args:
        given: Names of the options that are given.
        known: Names of the options that there are.
        source: Where they are given, for the message.
        error: Makes the exception from the message.
    """
    names = list(known)
    for name in given:
        if name not in names:
            raise error(f"{source}: there is no option {name!r}{did_you_mean(str(name), names)}")


def require_integer(name: str, value: Any, least: int) -> int:
    """See that a value is a whole number that is large enough, and give it as Python's own."""
    if not _is_number(value, Integral):
        raise ValueError(f"{name}={value!r}; expected a whole number")
    if value < least:
        raise ValueError(f"{name}={value}; expected at least {least}")
    return int(value)


def check_layers(layers: Sequence[str]) -> list[str]:
    """Give the names of several layers, each once, in their order.

    Raises:
        ValueError: There is none, or something else than names was given.
    """
    if not _is_sequence(layers) or not len(layers) or not all(isinstance(name, str) for name in layers):
        raise ValueError(f"layers={reprlib.repr(layers)}; expected the names of one or more layers")
    return list(dict.fromkeys(layers))


def _require(options: Any, name: str, is_right: Callable[[Any], bool], expected: str) -> None:
    value = getattr(options, name)
    if not is_right(value):
        raise ValueError(f"{name}={reprlib.repr(value)}; expected {expected}")


def _require_integer(options: Any, name: str, least: int) -> None:
    """See that an option is a whole number; those of NumPy become Python's own."""
    object.__setattr__(options, name, require_integer(name, getattr(options, name), least))


def _require_name(options: Any, name: str, choices: Sequence[str], otherwise: str = "") -> None:
    """See that an option is one of the choices, or, if it may be a function, that it is one."""
    value = getattr(options, name)
    if isinstance(value, str) and value in choices:
        return
    is_function = callable(value) or callable(getattr(value, "weights", None))  # a CAM method that runs the network
    if otherwise == "a function" and is_function:
        return
    hint = did_you_mean(value, choices) if isinstance(value, str) else ""
    if not hint.endswith("?"):
        hint = f"; choose {', '.join(choices)}" + (f" or {otherwise}" if otherwise else "")
    raise ValueError(f"{name}={reprlib.repr(value)} is unknown{hint}")


def _require_splits(options: Any, name: str) -> None:
    """See that what is given by split is given for splits that there are."""
    _require(options, name, lambda value: value is None or isinstance(value, Mapping), f"a mapping from {SPLITS}")
    for split in getattr(options, name) or ():
        if split not in SPLITS:
            raise ValueError(f"{name} names the split {split!r}{did_you_mean(str(split), SPLITS)}")


def _is_number(value: Any, kind: type) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def _is_share(value: Any) -> bool:
    return value is None or (_is_number(value, Real) and 0 < value < math.inf)


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


def _is_text(value: Any) -> bool:
    return value is None or isinstance(value, str)


def _is_sequence(value: Any) -> bool:
    return hasattr(value, "__len__") and hasattr(value, "__getitem__") and not isinstance(value, (str, Mapping))
