"""Analysis without a line of code: what Lightning's entry point ``callbacks_factory`` calls at every ``Trainer()``.

::

    LIGHTNING_IFA=1 python train.py
    LIGHTNING_IFA_CONFIG=ifa.yaml python train.py    # a mapping of the callback's options

Without these variables nothing is added, and nothing heavy is imported.
"""

from __future__ import annotations

import inspect
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_ifa.errors import FileError
from lightning_ifa.nearest import did_you_mean

if TYPE_CHECKING:
    from lightning_ifa.callback import IntegratedFeatureAnalysis

SWITCH, CONFIG = "LIGHTNING_IFA", "LIGHTNING_IFA_CONFIG"


def callbacks() -> list[IntegratedFeatureAnalysis]:
    """Make the callback if the environment asks for it; it stands back where the trainer has one already.

    Raises:
        FileError: The configuration cannot be read, or names an option that does not exist.
    """
    config = os.environ.get(CONFIG, "")
    if not config and os.environ.get(SWITCH, "0").lower() in ("", "0", "false", "no", "off"):
        return []
    from lightning_ifa.callback import IntegratedFeatureAnalysis

    analysis = IntegratedFeatureAnalysis(**(_options(Path(config)) if config else {}))
    analysis.stands_back = True
    return [analysis]


def _options(path: Path) -> dict[str, Any]:
    import yaml

    from lightning_ifa.callback import IntegratedFeatureAnalysis

    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise FileError(f"{CONFIG}={path} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise FileError(
            f"{CONFIG}={path} holds a {type(found).__name__}; expected options of the callback, name: value"
        )
    known = inspect.signature(IntegratedFeatureAnalysis).parameters
    for name in found:
        if name not in known:
            raise FileError(f"{CONFIG}={path}: there is no option {name!r}{did_you_mean(str(name), known)}")
    return found
