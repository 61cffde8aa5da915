"""Analyse a registered model anew, so that the gate need not believe what a training logged about itself.

Nothing of it runs in the gate's own process; see ``isolated``. What the loaders and the model are made of is here, too.
"""

from __future__ import annotations

import importlib
import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from lightning_ifa.errors import DataError, FileError, TrackingError

if TYPE_CHECKING:
    from lightning_ifa.report.feature_report import FeatureReport


class Loaders(NamedTuple):
    """What ``load_data`` gives.

    Attributes:
        validation: Validation loader.
        train: Training loader, or None.
        module: The LightningDataModule that they are of, whose transfer hooks make batches ready, or None.
    """

    validation: Any
    train: Any
    module: Any = None


LONGEST_ANALYSIS = 3600.0


def reanalyze(
    data: str, tracking_uri: str | None = None, *, model: str | None = None, longest: float = LONGEST_ANALYSIS
) -> Callable[[str], tuple[Mapping[str, float], str, Mapping[str, str]]]:
    """Make the function that the gate calls to analyse a model anew.

    Args:
        data: ``MODULE:NAME`` as for ``load_data``.
        tracking_uri: MLflow store; by default MLflow's own.
        model: ``MODULE:NAME`` of an architecture of one's own: the weights alone are then taken, and nothing that the
            registered model brings is run. None runs the code that the model brings.
        longest: Seconds that one analysis may take.

    Returns:
        A function from a model URI to the metrics, the digest of the validation data, and the conditions: layer,
        method, version and digest of the weights. It raises ``UndecidableError`` for whatever is no measurement.
    """
    from lightning_ifa.offline import isolated

    def measure(uri: str) -> tuple[Mapping[str, float], str, Mapping[str, str]]:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            found = isolated.run_isolated(_download(uri, folder, tracking_uri), data, model, longest)
        about = {"layer": found.layer, "method": found.method, "version": found.version, "weights": found.weights}
        return found.metrics, found.digest, about

    return measure


def load_data(data: str) -> Loaders:
    """Import ``MODULE:NAME`` and take the loaders from it.

    Args:
        data: NAME is a LightningDataModule or its class, or a function without arguments that gives the validation
            loader, or the pair of validation and training loader. The current folder is searched as well.

    Raises:
        DataError: There is no such module or name, or it gives no loader.
    """
    found = load_object(data, "--data")
    found = found() if callable(found) else found
    if hasattr(found, "val_dataloader"):
        found.prepare_data()
        found.setup("fit")
        return Loaders(found.val_dataloader(), found.train_dataloader(), found)
    pair = found if isinstance(found, tuple) else (found, None)
    if len(pair) != 2 or not hasattr(pair[0], "dataset"):
        raise DataError(
            f"--data {data} gives {type(found).__name__}; expected a DataLoader, or validation and training"
        )
    return Loaders(*pair)


def analyze_loaded(model: Any, loaders: Loaders, **options: Any) -> FeatureReport:
    """Analyse a torch module with loaders whose batches their data module's transfer hooks make ready, if it has any.

    Args:
        model: The module.
        loaders: What ``load_data`` gave.
        options: Options of the analysis.

    Raises:
        IFAError: The analysis is not possible.
    """
    from lightning_ifa.analysis import analyze_prepared
    from lightning_ifa.offline.batch_counter import count_batches
    from lightning_ifa.options import AnalysisOptions

    with count_batches(preparation_of(model, loaders.module)) as prepare:
        return analyze_prepared(model, loaders.validation, loaders.train, AnalysisOptions(**options), prepare)


def preparation_of(model: Any, owner: Any) -> Callable[[Any], Any] | None:
    """Give what makes batches ready for a module: the transfer hooks of the loaders' owner or its own, if any.

    Args:
        model: The module.
        owner: The data module, or what else the loaders are from; None if nothing has hooks.
    """
    import torch

    from lightning_ifa.features.transfer_hooks import own_preparation

    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    return own_preparation(model, device, owner)


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


WEIGHT_FILES = (".safetensors", ".pth", ".pt", ".ckpt", ".bin", ".pt2")
"""Ends of the names of files with weights."""


def load_weights_only(folder: str | os.PathLike[str], model: str) -> Any:
    """Put the weights of a downloaded model into an architecture of one's own, and run nothing that it brings.

    Args:
        folder: Folder of the model's files.
        model: ``MODULE:NAME`` of the architecture: a function, or class, that makes the module without arguments.

    Returns:
        The module, in evaluation mode, on the CPU.

    Raises:
        DataError: The architecture cannot be had.
        FileError: The folder holds no file with weights, or several, or weights that do not fit or are not finite.
    """
    import torch

    from lightning_ifa.tracking.weights import read_state

    files = sorted(path for path in Path(folder).rglob("*") if path.suffix in WEIGHT_FILES and path.is_file())
    if len(files) != 1 or files[0].is_symlink():
        names = ", ".join(path.name for path in files) or "none"
        raise FileError(f"expected one file with weights ({', '.join(WEIGHT_FILES)}), found {names}")
    module = load_object(model, "--model")()
    if not isinstance(module, torch.nn.Module):
        raise DataError(f"--model {model} gives {type(module).__name__}; expected a torch module")
    try:
        module.load_state_dict(read_state(files[0]))
    except RuntimeError as error:
        raise FileError(f"the weights do not fit {model}: {error}") from error
    wild = [name for name, value in module.state_dict().items() if not torch.isfinite(value).all()]
    if wild:
        raise FileError(f"the weights are not finite in {wild[0]} and {len(wild) - 1} others")
    return module.eval()


def _download(uri: str, folder: str, tracking_uri: str | None) -> str:
    from mlflow.artifacts import download_artifacts

    from lightning_ifa.tracking.store import default_store

    with default_store(tracking_uri):
        try:
            return str(download_artifacts(artifact_uri=uri, dst_path=folder))
        except Exception as error:  # whatever an artifact store throws
            raise TrackingError(f"the files of {uri} cannot be had: {type(error).__name__}: {error}") from error
