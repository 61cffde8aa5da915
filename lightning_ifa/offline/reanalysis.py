"""Analyse a registered model anew, so that the gate need not believe what a training logged about itself."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from typing import Any

from lightning_ifa.errors import DataError, TrackingError

Loaders = tuple[Any, Any]


def reanalyze(data: str, tracking_uri: str | None = None) -> Callable[[str], tuple[dict[str, float], str]]:
    """Make the function that the gate calls to analyse a model.

    Args:
        data: ``MODULE:NAME`` as for ``load_data``; imported once, before any model is loaded.
        tracking_uri: MLflow store; by default MLflow's own.

    Returns:
        A function from a model URI to the metrics and the digest of the validation data.

    Raises:
        DataError: The loaders cannot be had.
    """
    validation, train = load_data(data)

    def measure(uri: str) -> tuple[dict[str, float], str]:
        from lightning_ifa.analysis import analyze

        report = analyze(load_registered(uri, tracking_uri), validation, train)
        return report.metrics, report.digest

    return measure


def load_data(data: str) -> Loaders:
    """Import ``MODULE:NAME`` and take the loaders from it.

    Args:
        data: NAME is a LightningDataModule or its class, or a function without arguments that gives the validation
            loader, or the pair of validation and training loader. The current folder is searched as well.

    Returns:
        Validation loader, and training loader or None.

    Raises:
        DataError: There is no such module or name, or it gives no loader.
    """
    found = load_object(data, "--data")
    found = found() if callable(found) else found
    if hasattr(found, "val_dataloader"):
        found.prepare_data()
        found.setup("fit")
        found = (found.val_dataloader(), found.train_dataloader())
    pair = found if isinstance(found, tuple) else (found, None)
    if len(pair) != 2 or not hasattr(pair[0], "dataset"):
        raise DataError(
            f"--data {data} gives {type(found).__name__}; expected a DataLoader, or validation and training"
        )
    return pair


def load_object(spec: str, option: str) -> Any:
    """Import ``MODULE:NAME``; the current folder is searched first.

    Args:
        spec: The object to import, as ``MODULE:NAME``.
        option: The option that is named in the error.

    Raises:
        DataError: There is no such module or name.
    """
    module, _, name = spec.partition(":")
    sys.path.insert(0, os.getcwd())
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise DataError(f"{option} {spec}: {error}; expected MODULE:NAME") from error
    finally:
        sys.path.pop(0)


def load_registered(uri: str, tracking_uri: str | None = None) -> Any:
    """Load the torch module behind a model URI; this runs the code that the model brings.

    Raises:
        TrackingError: It is no PyTorch model that can be loaded here.
    """
    import mlflow.pytorch

    from lightning_ifa.tracking.store import default_store

    with default_store(tracking_uri):
        try:
            return mlflow.pytorch.load_model(uri, map_location="cpu")
        except Exception as error:  # whatever unpickling foreign code throws
            raise TrackingError(
                f"{uri} cannot be loaded as a PyTorch model: {type(error).__name__}: {error}"
            ) from error
