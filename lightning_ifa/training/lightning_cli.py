"""``lightning-ifa fit`` and ``validate``: LightningCLI for any model and data that a configuration names.

Classes are imported as Python would from the working directory, which goes first on the path. The callback is added
where the configuration has none.
"""

from __future__ import annotations

import inspect
import os
import pkgutil
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

from lightning_ifa.errors import ConfigError, did_you_mean
from lightning_ifa.training.lightning_packages import installed_packages, package_of

COMMANDS = ("fit", "validate")


def train(command: str, arguments: Sequence[str], before: Callable[[Any], None] | None = None) -> Any:
    """Run LightningCLI.

    Args:
        command: One of ``COMMANDS``.
        arguments: What stands on the command line of a LightningCLI after the command.
        before: A function that is called with the LightningCLI when everything is made and nothing has run.

    Returns:
        The LightningCLI that ran, with its ``trainer``, ``model`` and ``datamodule``.

    Raises:
        ConfigError: Arguments or configuration are wrong, or what they name cannot be made. Errors of the training
            itself are passed on as they are.
    """
    search_working_directory()
    require_jsonargparse()
    settings: dict[str, Any] = {"prog": "lightning-ifa", "exit_on_error": False}
    settings |= {name: {"exit_on_error": False} for name in COMMANDS}
    cli = _cli_class(_package(arguments), before)
    return cli(args=[command, *arguments], parser_kwargs=settings, save_config_callback=None)


def search_working_directory() -> None:
    """Let the classes of a configuration be imported from the working directory, as ``python -m`` does."""
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())


def require_jsonargparse() -> None:
    """Say how to install what LightningCLI needs.

    Raises:
        ConfigError: It is not there.
    """
    if find_spec("jsonargparse") is None:
        raise ConfigError('configurations need jsonargparse; install it with: pip install "lightning-ifa[cli]"')


def _cli_class(package: str, before: Callable[[Any], None] | None) -> Any:
    """LightningCLI of a Lightning package, with errors of our own and the callback by default."""
    from jsonargparse import ArgumentError

    from lightning_ifa.training.callback import IntegratedFeatureAnalysis

    base: Any = import_module(f"{package}.cli").LightningCLI

    class AnalysingCLI(base):  # type: ignore[misc]  # of whichever package the model is
        @staticmethod
        def subcommands() -> dict[str, set[str]]:
            known: dict[str, set[str]] = base.subcommands()
            return {name: known[name] for name in COMMANDS}

        def parse_arguments(self, parser: Any, args: Any) -> None:
            try:
                self.config = parser.parse_args(args)
            except ArgumentError as error:
                raise ConfigError(explain_parser_error(str(error), _keys(self._parser(args[0])))) from error

        def instantiate_classes(self) -> None:
            try:
                super().instantiate_classes()
            except Exception as error:  # whatever the constructors of the user's classes throw
                first = _first_cause(error)
                place = traceback.extract_tb(first.__traceback__)[-1]
                raise ConfigError(
                    f"what the configuration describes cannot be made: {type(first).__name__}: {first} "
                    f"({Path(place.filename).name}, line {place.lineno}, in {place.name})"
                ) from error

        def after_instantiate_classes(self) -> None:
            if before is not None:
                before(self)

        def instantiate_trainer(self, **kwargs: Any) -> Any:
            trainer = super().instantiate_trainer(**kwargs)
            if not any(isinstance(callback, IntegratedFeatureAnalysis) for callback in trainer.callbacks):
                trainer.callbacks.insert(0, IntegratedFeatureAnalysis())  # checkpoints must stay last
            return trainer

    return AnalysingCLI


def _first_cause(error: BaseException) -> BaseException:
    """The user's own exception: the parser reports a constructor's failure as a value of a wrong type."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _package(arguments: Sequence[str]) -> str:
    """The Lightning package that the model is of; the first installed one if that cannot be told yet."""
    first, *more = installed_packages()
    if not more:
        return first
    for path in _class_paths(arguments):
        with suppress(Exception):  # what cannot be imported, the parser will report
            module, _, name = path.rpartition(".")
            return package_of(getattr(import_module(module), name))
    return first


def _class_paths(arguments: Sequence[str]) -> Iterable[str]:
    """Class paths of the model on the command line and in the configurations, those that win first."""
    import yaml

    pairs = [pair for argument in arguments for pair in argument.split("=", 1)]
    given = [(name, value) for name, value in pairwise(pairs) if name.startswith("-")]
    yield from (value for name, value in given if name in ("--model", "--model.class_path"))
    for name, value in reversed(given):
        if name in ("-c", "--config"):
            with suppress(OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError):
                yield yaml.safe_load(Path(value).read_text(encoding="utf-8"))["model"]["class_path"]


def _keys(parser: Any) -> list[str]:
    return [action.dest for action in parser._actions if action.dest not in ("help", "config", "print_config")]


def explain_parser_error(message: str, keys: Sequence[str]) -> str:
    """Shorten an error of jsonargparse to what was wrong, with the nearest right name.

    Args:
        message: The parser's message.
        keys: All keys of the parser, with dots.

    Returns:
        The sentence, or the parser's own message if it is about something else than an unknown name.
    """
    where = re.match(r'Parser key "([^"]+)":', message)
    place = f"{where[1]}: " if where else ""
    if found := re.search(r"class_path '([^']+)':\s+Option '([^']+)' is not accepted", message):
        return f"{place}{found[1]} has no option {found[2]!r}{did_you_mean(found[2], _parameters(found[1]))}"
    if found := re.search(r"module '([^']+)' has no attribute '([^']+)'", message):
        return f"{place}there is no {found[1]}.{found[2]}{did_you_mean(found[2], _contents(found[1]))}"
    if found := re.search(r"No module named '([^']+)'", message):
        return f"{place}there is no module {found[1]!r} in the working directory or installed"
    if found := re.search(r"does not accept option '([^']+)'|unrecognized arguments: -*([^\s=]+)", message, re.I):
        name = found[1] or found[2]
        head = name.partition(".")[0]
        groups = {key.partition(".")[0] for key in keys}
        if head not in groups:
            return f"there is no option {head!r}{did_you_mean(head, groups)}"
        return f"there is no option {name!r}{did_you_mean(name, [key for key in keys if key.startswith(head)])}"
    if "Errors:\n" in message:
        return place + _alternatives(message)
    return message


def _alternatives(message: str) -> str:
    """Why a value fits none of the types allowed, without those that it was never meant to be."""
    listed = re.split(r"\n\s*Given value", message.partition("Errors:\n")[2])[0]
    reasons = re.split(r"(?:^|\n)\s*- ", listed)
    idle = ("Expected a <class 'NoneType'>", "Not a valid subclass of", "a class path (str)", "a dict with")
    told = [" ".join(reason.split()) for reason in reasons if reason.strip()]
    kept = [reason for reason in told if not reason.startswith(idle)]
    return "; ".join(dict.fromkeys(kept)) or message


def _parameters(class_path: str) -> list[str]:
    module, _, name = class_path.rpartition(".")
    with suppress(Exception):  # the parser has found the class already; a hint must not fail
        return list(inspect.signature(getattr(import_module(module), name)).parameters)
    return []


def _contents(module: str) -> list[str]:
    found = import_module(module)
    inside = [name for name in dir(found) if not name.startswith("_")]
    return inside + [info.name for info in pkgutil.iter_modules(getattr(found, "__path__", []))]
