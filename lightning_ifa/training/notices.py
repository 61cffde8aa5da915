"""What the user is told during a training: everything once, and an error ends the training only if that is wanted."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module

from lightning_ifa.errors import IFAError, IFAWarning, InterruptedAnalysisError
from lightning_ifa.training.lightning_packages import installed_packages

log = logging.getLogger(__name__)


class Notices:
    """Warnings, remarks and errors of one callback.

    Args:
        raises: Whether errors are passed on; otherwise they become warnings.

    Attributes:
        failure: What the latest error said, or nothing.
    """

    def __init__(self, raises: bool) -> None:
        self.raises = raises
        self._given: set[str] = set()
        self.failure = ""

    @contextmanager
    def guard(self) -> Iterator[None]:
        """Let no error of a block out, unless that is wanted."""
        try:
            yield
        except InterruptedAnalysisError:
            log.info("feature analysis left out: the process was told to end")
        except Exception as error:
            if self.raises:
                raise
            self.failure = _reason(error)
            log.debug("feature analysis failed", exc_info=error)
            self.warn(f"feature analysis left out, training goes on: {_reason(error)}", once_for=type(error).__name__)

    @contextmanager
    def guard_end(self) -> Iterator[None]:
        """Let nothing out of a block in which a training ends: its outcome, error and status are the user's.

        Not even a warning, where warnings are errors: it would take the place of the user's own error.
        """
        try:
            yield
        except Exception as error:
            log.warning("the feature analysis could not be closed: %s", _reason(error), exc_info=error)

    def forget(self) -> None:
        """Begin anew: what was said of one training need not hold for the next."""
        self._given.clear()
        self.failure = ""

    def warn(self, text: str, once_for: str = "") -> None:
        """Warn once of this text, or once of all that is ``once_for`` the same reason."""
        if self._is_new(once_for or text):
            warnings.warn(text, IFAWarning, stacklevel=3)

    def say(self, text: str) -> None:
        """Say something once that calls for no action in a script that treats warnings as errors."""
        if self._is_new(text):
            log.warning(text)

    def inform(self, text: str, below_bar: bool = False) -> None:
        """Tell what went well, where Lightning tells what goes well; on a line of its own below a progress bar."""
        tell = import_module(f"{installed_packages()[0]}.utilities.rank_zero").rank_zero_info
        tell(f"\n{text}" if below_bar else text)

    def _is_new(self, key: str) -> bool:
        is_new = key not in self._given
        self._given.add(key)
        return is_new


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, IFAError) else f"{type(error).__name__}: {error}"
