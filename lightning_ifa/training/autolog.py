"""Analysis without a line of code: what Lightning's entry point ``callbacks_factory`` calls at every ``Trainer()``.

::

    LIGHTNING_IFA=1 python train.py
    LIGHTNING_IFA_CONFIG=ifa.yaml python train.py    # a mapping of the callback's options
    LIGHTNING_IFA_OFFLINE=1 python train.py          # no MLFlowLogger asks a server; `lightning-ifa sync ifa` does

or, with one line, ``lightning_ifa.autolog()``. Otherwise nothing is added, and nothing heavy is imported.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_ifa.errors import ConfigError, FileError, IFAError
from lightning_ifa.options import require_known
from lightning_ifa.tracking.switches import is_on
from lightning_ifa.training.offline_loggers import make_loggers_offline

if TYPE_CHECKING:
    from lightning_ifa.training.callback import IntegratedFeatureAnalysis

SWITCH, CONFIG = "LIGHTNING_IFA", "LIGHTNING_IFA_CONFIG"

_autolog: Mapping[str, Any] | bool | None = None
"""What ``autolog`` asked for: options, or False for nothing; None leaves it to the environment."""


def autolog(*, disable: bool = False, **options: Any) -> None:
    """Analyse every training whose ``Trainer`` is made from now on, in either Lightning package.

    Stands beside ``mlflow.pytorch.autolog()`` and logs to the run that it, a logger or you have opened; it never opens
    one, and leaves the work to an ``IntegratedFeatureAnalysis`` that is among the trainer's callbacks.

    Args:
        disable: Analyse nothing from now on, whatever the environment says.
        **options: The options of ``IntegratedFeatureAnalysis``.

    Raises:
        ConfigError: There is no such option.
        ValueError: An option has an unknown name, a value out of range, or a value of a wrong type.

    Example:
        >>> autolog(max_samples=512)  # every Trainer from now on analyses, with at most 512 samples of a split
        >>> autolog(max_sample=512)
        Traceback (most recent call last):
            ...
        lightning_ifa.errors.ConfigError: autolog: there is no option 'max_sample'; did you mean 'max_samples'?
        >>> autolog(disable=True)
    """
    global _autolog  # as MLflow's own autolog, this is a setting of the process
    if disable:
        _autolog = False
        return
    _make(options, "autolog", ConfigError)  # a mistake is told here rather than in a later Trainer()
    _autolog = options


def callbacks() -> list[IntegratedFeatureAnalysis]:
    """Make the callback if somebody asks for it; it leaves the work to one that the trainer has already.

    Raises:
        FileError: The configuration cannot be read, or names an option that does not exist.
    """
    make_loggers_offline()
    if _autolog is False:
        return []
    if isinstance(_autolog, Mapping):
        return [_make(_autolog, "autolog", ConfigError)]
    config = os.environ.get(CONFIG, "")
    if config:
        return [_make(_read(Path(config)), f"{CONFIG}={config}", FileError)]
    return [_make({}, SWITCH, FileError)] if is_on(SWITCH) else []


def _make(options: Mapping[str, Any], source: str, error: type[IFAError]) -> IntegratedFeatureAnalysis:
    from lightning_ifa.training.callback import IntegratedFeatureAnalysis

    require_known(options, inspect.signature(IntegratedFeatureAnalysis).parameters, source, error)
    analysis = IntegratedFeatureAnalysis(**options)
    analysis.session.is_fallback = True
    return analysis


def _read(path: Path) -> dict[str, Any]:
    import yaml

    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise FileError(f"{CONFIG}={path} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise FileError(
            f"{CONFIG}={path} holds a {type(found).__name__}; expected options of the callback, name: value"
        )
    return found
