"""From a model and its loaders to a FeatureReport; knows neither Lightning nor MLflow."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import reduce
from typing import Any, Literal, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import DataLoader

from lightning_ifa.cam.methods import Method
from lightning_ifa.data.batches import BatchFunction
from lightning_ifa.data.column_types import settle_types
from lightning_ifa.data.feature_table import FeatureTable
from lightning_ifa.data.metadata import metadata_rows, own_metadata, read_metadata
from lightning_ifa.data.regions import Regions, RegionSource, find_regions
from lightning_ifa.data.sampling import choose_probes, reference_indices
from lightning_ifa.data.single_samples import split_batches
from lightning_ifa.errors import IFAError
from lightning_ifa.features.channel_maps import ChannelMapBuilder
from lightning_ifa.features.extractor import FeatureExtractor
from lightning_ifa.features.probes import Probes, take_images, take_probes
from lightning_ifa.indicators import registry
from lightning_ifa.indicators.context import AnalysisContext, importance_mask, name_classes
from lightning_ifa.interventions.region_swaps import swap_outside, swap_parts
from lightning_ifa.interventions.swaps import Swaps
from lightning_ifa.model.batch_forward import ForwardFunction
from lightning_ifa.model.output_form import widen_task
from lightning_ifa.model.outputs import ScoreFunction
from lightning_ifa.model.target_layer import Reshape
from lightning_ifa.model.weights_digest import digest_module
from lightning_ifa.options import AnalysisOptions, check_layers
from lightning_ifa.report.examples import driving_rows, example_rows, shown_channels
from lightning_ifa.report.feature_report import FeatureReport
from lightning_ifa.statistics.importance import importance
from lightning_ifa.statistics.intensity_scale import IntensityScale, common_scale
from lightning_ifa.statistics.localization import Localization, localize
from lightning_ifa.statistics.metadata_columns import read_column
from lightning_ifa.statistics.strata import bin_edges, strata

SWAPPABLE = ("multiclass", "binary", "multilabel", "regression")

T = TypeVar("T")

Source = tuple[FeatureExtractor, DataLoader[Any]]
"""How a split's table was made, and from which loader."""


def analyze(
    model: nn.Module,
    val_loader: DataLoader[Any],
    train_loader: DataLoader[Any] | None = None,
    *,
    layer: str | None = None,
    task: str | ScoreFunction = "auto",
    explain: str | int = "target",
    cam: str | Method = "hirescam",
    gradient: Literal["conservative", "plain"] = "conservative",
    max_samples: int = 1024,
    probes: int = 8,
    metadata: Mapping[str, pd.DataFrame] | None = None,
    regions: Mapping[str, RegionSource] | None = None,
    class_names: Sequence[str] | None = None,
    batch_fn: BatchFunction | None = None,
    forward_fn: ForwardFunction | None = None,
    reshape: Reshape | None = None,
    swaps: bool = False,
    nifti: bool = False,
    seed: int = 0,
) -> FeatureReport:
    """Look inside a trained network: overfitting, confounding, outliers, redundancy, comparable maps.

    Args:
        model: The network, called as ``model(x)`` unless ``forward_fn`` calls it; weights, modes, hooks and random
            states stay as they are. The transfer hooks of a LightningModule make its batches ready.
        val_loader: Loader over a map-style validation set; only its data set and settings are used.
        train_loader: The same for the training set, best without augmentation; None leaves overfitting out.
        layer: Target layer as in ``model.named_modules()``; by default the last activation that the score
            depends on. Of a module that runs more than once, ``"name#0"`` is the first call.
        task: ``"multiclass"``, ``"binary"`` (one logit), ``"multilabel"``, ``"regression"``, ``"segmentation"``,
            a function ``(output, target) -> (n,)`` that gives the explained score, or ``"auto"``.
        explain: ``"target"`` (the label where there is one, else the prediction), ``"prediction"``, or a class.
        cam: ``"hirescam"``, ``"gradcam"``, ``"gradcam++"``, ``"xgradcam"``, ``"layercam"``, ``"eigencam"``,
            ``"eigengradcam"``, ``"random"`` (a control), ``"scorecam"`` and ``"ablationcam"`` (a forward pass a
            channel), or a function ``(A, G) -> weights``.
        gradient: ``"conservative"`` (where a norm by the sample's own statistics, as a LayerNorm, or attention lies
            behind the layer, deviations, attention weights and the ratio f(x) / x of activation functions are held
            fixed, so that contributions sum to the logit; elsewhere the plain gradient) or ``"plain"``.
        max_samples: The largest number of samples analysed of a split, at least 4; a fixed random subset.
        probes: The number of samples that are pictured, at least 1.
        metadata: ``"train"`` and / or ``"validation"`` to a DataFrame whose row i describes data-set index i. A split
            left out takes it from its data set's attribute ``metadata``, if that is such a DataFrame. A column
            ``group`` is not tested: it says which samples belong together, as of one patient.
        regions: ``"validation"`` to a sequence of masks, or to a function from the data-set index to a mask: boolean,
            of the input's spatial shape, True where the evidence should lie, all False where there is nothing to
            see, None where nothing is known. Left out, the data set's method ``region(index)`` is asked, if it has
            one. Costs two forward passes of 256 samples.
        class_names: The name of each class.
        batch_fn: A function that takes ``(x, y)`` from a batch that is neither ``(x, y, ...)`` nor a mapping with usual
            names.
        forward_fn: A function ``(model, batch) -> output`` that calls a network that is not called as ``model(x)``: one
            of several inputs, ``model(**batch)``, one without ``forward``, or one of whose outputs one has to be named.
            In ``batch`` the input is what the analysis makes of it.
        reshape: A function that takes maps ``(n, c, *space)`` from the named layer's output, by picking and moving
            entries, where its form is not recognised: neither maps, nor tokens of a transformer, nor channels last.
        swaps: Also look for confounders by exchanging borders, corners, background level, contrast and fine
            detail between images: twelve more forward passes of 256 samples. Only for images that have a background;
            see docs/indicators.md.
        nifti: Note where the pictured volumes lie, so that ``report.to_nifti`` writes their maps over them; see
            docs/medical_imaging.md.
        seed: Seed of every random draw.

    Returns:
        The report; ``report.metrics`` are the numbers, ``report.alarms`` the families whose fault was found.

    Raises:
        IFAError: Layer, batch, output, data or metadata do not allow the analysis; the message says what would.
        ValueError: An option has an unknown name, a value out of range, or a value of a wrong type.

    Example:
        >>> report = analyze(model, val_loader, train_loader)
        >>> report.tables["validation"].task, len(report.samples)
        ('multiclass', 120)
        >>> report.to_html("report.html")
    """
    return analyze_prepared(model, val_loader, train_loader, AnalysisOptions.of(locals()))


def analyze_prepared(
    model: nn.Module,
    val_loader: DataLoader[Any],
    train_loader: DataLoader[Any] | None,
    options: AnalysisOptions,
    prepare: Callable[[Any], Any] | None = None,
) -> FeatureReport:
    """Analyse a network as ``analyze`` does, with batches that are made ready in another way than by the model's hooks.

    Args:
        model: The network.
        val_loader: Loader over the validation set.
        train_loader: Loader over the training set, or None.
        options: The options of the analysis.
        prepare: Makes a batch ready for the model; None leaves it to the model's own transfer hooks.
    """
    found = find_regions(options.regions, "validation", val_loader.dataset)
    return _analyze(model, val_loader, train_loader, [options.layer], options, found, prepare)[0]


def analyze_layers(
    model: nn.Module,
    val_loader: DataLoader[Any],
    train_loader: DataLoader[Any] | None = None,
    *,
    layers: Sequence[str],
    task: str | ScoreFunction = "auto",
    explain: str | int = "target",
    cam: str | Method = "hirescam",
    gradient: Literal["conservative", "plain"] = "conservative",
    max_samples: int = 1024,
    probes: int = 8,
    metadata: Mapping[str, pd.DataFrame] | None = None,
    class_names: Sequence[str] | None = None,
    batch_fn: BatchFunction | None = None,
    forward_fn: ForwardFunction | None = None,
    seed: int = 0,
) -> dict[str, FeatureReport]:
    """Analyse several layers: where in the network does a finding arise?

    The same samples serve every layer, and a batch costs one forward pass and one backward pass, to the first of the
    layers. Each report equals that of ``analyze(layer=...)``, but for what ``analyze`` finds by changing the inputs
    (swaps, regions), which does not belong to a layer.

    Args:
        model: The network; this and every argument but ``layers`` means the same as in ``analyze``.
        val_loader: Loader over a map-style validation set.
        train_loader: Loader over the training set, or None.
        layers: Names as for ``analyze(layer=...)``; they may be nested in one another.
        task: The task, or ``"auto"``.
        explain: The class that is explained.
        cam: The CAM method.
        gradient: Whether norms and attention weights behind a layer are held fixed.
        max_samples: The largest number of samples analysed of a split.
        probes: The number of samples that are pictured.
        metadata: Split name to what is known of its samples.
        class_names: The name of each class.
        batch_fn: A function that takes ``(x, y)`` from a batch of unusual form.
        forward_fn: A function ``(model, batch) -> output`` that calls the network.
        seed: Seed of every random draw.

    Returns:
        Layer name to its report, in the order of ``layers``.

    Raises:
        IFAError: Layer, batch, output, data or metadata do not allow the analysis; the message says what would.
        ValueError: An option has an unknown name, a value out of range, or a value of a wrong type.

    Example:
        >>> reports = analyze_layers(model, val_loader, layers=["features.0", "features.1"])
        >>> list(reports)
        ['features.0', 'features.1']
    """
    names = check_layers(layers)
    options = AnalysisOptions.of(locals())
    return dict(zip(names, _analyze(model, val_loader, train_loader, names, options, None), strict=True))


def extractor_of(model: nn.Module, options: AnalysisOptions, **ways: Any) -> FeatureExtractor:
    """Make the extractor of an analysis; ``ways`` are a trainer's own of preparing batches and running the model."""
    return FeatureExtractor(
        model,
        options.layer,
        options.task,
        options.explain,
        options.cam,
        options.batch_fn,
        options.seed,
        reshape=options.reshape,
        forward_fn=options.forward_fn,
        gradient=options.gradient,
        **ways,
    )


def _analyze(
    model: nn.Module,
    val_loader: DataLoader[Any],
    train_loader: DataLoader[Any] | None,
    layers: Sequence[str | None],
    options: AnalysisOptions,
    regions: Regions | None,
    prepare: Callable[[Any], Any] | None = None,
) -> list[FeatureReport]:
    """Analyse some layers in one pass over each split, and give their reports."""
    extraction = extractor_of(model, options, prepare=prepare)
    known = read_metadata(options.metadata)
    present = {"train": train_loader, "validation": val_loader}
    loaders = {
        split: split_batches(loader, options.batch_fn) for split, loader in present.items() if loader is not None
    }
    indices = {
        split: reference_indices(loader, options.max_samples, options.seed, split) for split, loader in loaders.items()
    }
    ways = {split: replace(extraction, search=split == "validation") for split in loaders}
    found = {split: ways[split].tables(loader, indices[split], layers) for split, loader in loaders.items()}
    task = reduce(widen_task, (parts[0].task for parts in found.values()))
    for split, loader in loaders.items():
        if found[split][0].task != task:  # told from the targets of both splits
            found[split] = replace(ways[split], task=task).tables(loader, indices[split], layers)
    tables = {
        split: [with_metadata(table, loaders[split], known.get(split), split) for table in parts]
        for split, parts in found.items()
    }
    augmented = "train" in loaders and extraction.is_augmented(loaders["train"], indices["train"])
    return [
        examine(
            {split: found[number] for split, found in tables.items()},
            {split: (replace(extraction, layer=layer), loader) for split, loader in loaders.items()},
            options,
            regions=regions,
            augmented=augmented,
        )
        for number, layer in enumerate(layers)
    ]


def examine(
    tables: Mapping[str, FeatureTable],
    sources: Mapping[str, Source],
    options: AnalysisOptions,
    *,
    regions: Regions | None = None,
    pixels: bool = True,
    scale: IntensityScale | None = None,
    augmented: bool = False,
    augmented_train: FeatureTable | None = None,
) -> FeatureReport:
    """Take from network and data what the tables do not hold, and make the report: the one way for all who ask.

    Args:
        tables: ``"validation"``, and ``"train"`` if there is one.
        sources: Split to how its table was made, and from which loader.
        options: The options of the analysis.
        regions: Where the evidence should lie in the validation samples, or None.
        pixels: Whether the report may hold inputs; if not, only their maps.
        scale: The intensity scale to use, as that of another run.
        augmented: Whether the training table was made from randomly augmented inputs.
        augmented_train: Some of the training samples again, as augmentation changes them.

    Raises:
        DataError: The data do not allow it; the message says what would.
    """
    validation, (extraction, loader) = tables["validation"], sources["validation"]
    left_out: list[str] = []
    localization, region_swaps = _or_none(
        "the evidence outside the regions", left_out, lambda: _localize(extraction, loader, validation, regions)
    ) or (None, None)
    swaps = None
    if options.swaps:
        swaps = _or_none("swaps", left_out, lambda: _run_swaps(extraction, loader, validation))
    context = AnalysisContext(
        tables,
        name_classes(validation, options.class_names),
        options.seed,
        swaps=swaps,
        localization=localization,
        region_swaps=region_swaps,
        augmented=augmented,
        augmented_train=augmented_train,
    )
    rows = probe_rows(validation, options.probes)
    pictured = validation.take(rows)
    report = analyze_tables(context, Probes(pictured, pictured, None), scale)  # images follow, with those of examples
    drawn = _or_none("pictures", left_out, lambda: _with_pictures(report, sources, rows, pixels, options.nifti))
    report = drawn or report
    left_out += _unplaced_volumes(report.probes) if options.nifti else []
    return replace(report, warnings=(*report.warnings, *left_out), weights=digest_module(extraction.model))


def _or_none(name: str, left_out: list[str], work: Callable[[], T]) -> T | None:
    """Do without something that fails, and say so; what the package itself refuses is the user's to mend."""
    try:
        return work()
    except IFAError:
        raise
    except Exception as error:  # whatever the user's code or the device throws: the other numbers do not need it
        left_out.append(f"{name}: left out, {type(error).__name__}: {error}")
        return None


def analyze_tables(context: AnalysisContext, probes: Probes, scale: IntensityScale | None = None) -> FeatureReport:
    """Assess every family of indicators; nothing here needs the network.

    Args:
        context: The FeatureTables, and what interventions found.
        probes: The pictured samples.
        scale: The intensity scale to use, as of another run; fitted to the validation maps by default.

    Raises:
        DataError: The validation split shows fewer than two classes with two samples each.
    """
    context.require_two_classes()
    findings, warnings = registry.assess_all(context)
    table = context.validation
    return FeatureReport(
        findings=findings,
        importance=importance(table.contributions, table.explained, importance_mask(table)),
        tables=dict(context.tables),
        scale=scale or common_scale(table.cams),
        probes=probes,
        class_names=context.class_names,
        warnings=(*_notes(context.tables), *warnings),
        trend=context.trend,
    )


def _notes(tables: Mapping[str, FeatureTable]) -> list[str]:
    """What has to be known of the tables, with the splits that it is true of."""
    notes = dict.fromkeys(note for table in tables.values() for note in table.notes)
    return [f"{' and '.join(s for s, table in tables.items() if note in table.notes)}: {note}" for note in notes]


def _with_pictures(
    report: FeatureReport, sources: Mapping[str, Source], probes: NDArray[np.int64], pixels: bool, grids: bool
) -> FeatureReport:
    """Add the probes, and the inputs of the samples that the report speaks of, in one pass over each split."""
    validation = report.tables["validation"]
    channels = ChannelMapBuilder(
        validation, {channel: driving_rows(report, channel) for channel in shown_channels(report)}
    )
    examples = example_rows(report, channels.rows) if pixels else {}
    pictured = examples.get("validation", probes[:0])
    taken, images = take_probes(*sources["validation"], validation, probes, pictured, pixels, grids, channels)
    gallery: dict[tuple[str, int], NDArray[np.float32]] = {}
    for split, rows in examples.items():
        if split in sources:
            found = images if split == "validation" else take_images(*sources[split], report.tables[split], rows)
            gallery |= {(split, row): image for row, image in found.items()}
    return replace(report, probes=taken, gallery=gallery, channel_maps=channels.maps())


def _unplaced_volumes(probes: Probes) -> list[str]:
    """Say where maps written as NIfTI will have no world coordinates."""
    if probes.grids is None:
        return [f"NIfTI: the maps have {probes.table.cams.ndim - 1} axes; only those of volumes are written"]
    count = sum(grid.affine is None and not grid.file for grid in probes.grids)
    if not count:
        return []
    return [
        f"NIfTI: no affine is known for {count} of {len(probes.grids)} pictured volumes, so theirs is the identity; "
        "give tensors with an affine (MONAI's MetaTensor), or a metadata column affine or file"
    ]


def with_metadata(table: FeatureTable, loader: DataLoader[Any], frame: pd.DataFrame | None, split: str) -> FeatureTable:
    """Put the user's knowledge of the samples, or else the data set's own, beside their features.

    Raises:
        MetadataError: It has another length than the data set, or values that cannot be compared: column and row, as
            the user counts them, are named.
    """
    if frame is None:
        own = own_metadata(loader.dataset)
        if own is None:
            return table
        frame = settle_types(own, split)
    length = len(loader.dataset)  # type: ignore[arg-type]  # reference_indices has checked it
    rows = metadata_rows(frame, table.indices, length, split)
    for name in rows:
        read_column(rows[name].set_axis(table.indices))
    return replace(table, metadata=rows)


def _run_swaps(extraction: FeatureExtractor, loader: DataLoader[Any], table: FeatureTable) -> Swaps | None:
    """Exchange parts between a table's images; None for tasks without labels to compare, and without labels."""
    if table.task not in SWAPPABLE or not (_groups(table) >= 0).any():
        return None
    return swap_parts(extraction, loader, table.indices, table.task)


def _localize(
    extraction: FeatureExtractor, loader: DataLoader[Any], table: FeatureTable, regions: Regions | None
) -> tuple[Localization | None, Swaps | None]:
    """See what lies outside the regions where the evidence should be, and swap it; nothing without regions.

    Raises:
        DataError: A region does not fit the input.
    """
    if regions is None:
        return None, None
    with extraction.session():  # the user's code reads the masks
        localization = localize(table.cams, regions.coverage(table.indices, table.cams.shape[1:]))
        swaps = None
        if table.task in SWAPPABLE:
            swaps = swap_outside(extraction, loader, table.indices, table.task, regions)
    return localization, swaps


def probe_rows(table: FeatureTable, count: int) -> NDArray[np.int64]:
    """Choose the rows to picture, class by class."""
    return choose_probes(_groups(table), count)


def _groups(table: FeatureTable) -> NDArray[np.int64]:
    return strata(table.targets, bin_edges(table.targets))
