"""Errors and warnings of this package.

::

    IFAError
    ├── LayerError      the target layer: misspelt, absent, without spatial output, run more than once
    ├── OutputError     the model's output: of an unknown form, unlike the task, not depending on the layer
    ├── BatchError      a batch from which no (input, target) can be read
    ├── DataError       the samples: none, one class only, not finite, not indexable
    │   └── MetadataError   the user's table about the samples
    ├── FileError       a file that is not what it should be
    ├── ConfigError     command-line options or a configuration that name what does not exist or cannot be made
    ├── StrategyError   the trainer's strategy: one that leaves no rank with whole parameters
    ├── InterruptedAnalysisError    the process was told to end while it analysed
    ├── TrackingError   the tracking run or its store
    │   ├── RunGoneError    a run that is unknown or deleted
    │   └── FilesLeftError  a store that took everything but the files
    ├── PolicyError     the gate's policy: not YAML, unknown key, limit that is no number
    └── UndecidableError    the gate could not decide: server unreachable, unknown version, alias moved meanwhile

``IFAWarning`` is the category of every warning: what the analysis had to leave out, and why.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class IFAError(Exception):
    """Base class of all errors raised by lightning_ifa.

    >>> from lightning_ifa.data.metadata import read_metadata
    >>> try:
    ...     read_metadata({"test": {"site": ["a", "b"]}})
    ... except IFAError as error:
    ...     print(error)
    metadata names the split 'test'; splits are called train and validation
    """


class LayerError(IFAError):
    """The target layer cannot be found or cannot be explained."""


class OutputError(IFAError):
    """The model's output has an unknown form or does not fit the task."""


class BatchError(IFAError):
    """No (input, target) pair can be read from a batch."""


class DataError(IFAError):
    """The samples do not allow the analysis."""


class MetadataError(DataError):
    """The user's table about the samples does not fit them."""


class FileError(IFAError):
    """A file is missing, damaged, or of another kind."""


class ConfigError(IFAError):
    """Command-line options or a configuration cannot be used."""


class StrategyError(IFAError):
    """The trainer's strategy does not allow the analysis during training."""


class InterruptedAnalysisError(IFAError):
    """The process was told to end; the training ends by itself, and no error is shown."""


class TrackingError(IFAError):
    """The tracking run cannot be found, read or written."""


class RunGoneError(TrackingError):
    """The tracking run is unknown or deleted."""


class FilesLeftError(TrackingError):
    """The files could not be stored; whatever else belongs to them was."""


class PolicyError(IFAError):
    """The gate's policy cannot be used; the message gives the line."""


class UndecidableError(IFAError):
    """The gate could not decide, or not carry out what it decided; the message says what was done."""


class IFAWarning(UserWarning):
    """Something was left out of the analysis, or could not be logged; training goes on.

    >>> import warnings
    >>> warnings.simplefilter("ignore", IFAWarning)  # to hear none of them
    """


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Give the end of an error message: the nearest known name, or all of them if none is near.

    >>> did_you_mean("layr", ["layer", "task"])
    "; did you mean 'layer'?"
    >>> did_you_mean("zzz", ["layer", "task"])
    '; there are layer, task'
    """
    names = sorted(known)
    near = get_close_matches(name, names, n=1)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; there are {', '.join(names)}" if names else ""
