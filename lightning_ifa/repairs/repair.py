"""Repair a network whose evidence leans on a suspect: refit its last layer, choose on one half, report on the other."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
from torch import nn
from torch.utils.data import DataLoader

from lightning_ifa.data.batches import BatchFunction
from lightning_ifa.data.metadata import read_metadata
from lightning_ifa.data.single_samples import split_batches
from lightning_ifa.errors import DataError
from lightning_ifa.features.extractor import FeatureExtractor
from lightning_ifa.model.batch_forward import ForwardFunction
from lightning_ifa.repairs.head_features import write_head
from lightning_ifa.repairs.workbench import Workbench, prepare_workbench
from lightning_ifa.report.result import AnalysisResult
from lightning_ifa.statistics.head_repair import (
    LARGEST_COST,
    PUBLISHED,
    RECIPES,
    RELIANCE_GOAL,
    Measured,
    Recipe,
    choose,
    compare_groups,
    conflicting,
    measure,
    repair_head,
    try_recipes,
)


@dataclass(frozen=True)
class Outlook:
    """What the features can still give, told before a repair is tried.

    Attributes:
        suspect: Name of the suspect.
        conflicting: Accuracy where the suspect speaks against the class, as trained.
        reachable: The same after a refit on equal groups, cross-validated, by the best ridge.
        accuracy: Overall accuracy as trained.
        reachable_accuracy: Overall accuracy after that refit, cross-validated.
        size: Number of conflicting samples that it is told from.
    """

    suspect: str
    conflicting: float
    reachable: float
    accuracy: float
    reachable_accuracy: float
    size: int

    def __str__(self) -> str:
        return (
            f"The features still give {self.reachable:.3f} on the {self.size} samples that {self.suspect!r} speaks "
            f"against ({self.conflicting:.3f} as trained), and {self.reachable_accuracy:.3f} overall "
            f"({self.accuracy:.3f}): a last layer refitted on equal groups, cross-validated"
        )


@dataclass(frozen=True, eq=False)
class Repair:
    """The result of ``repair``.

    Attributes:
        model: A copy of the network with its last layer repaired; where nothing helps, an unchanged copy.
        helped: Whether the repair held on samples that neither fit nor choice has seen.
        suspect: Name of the suspect.
        method: What was done, in words; empty if nothing.
        layer: Name of the last linear layer.
        outlook: What the features could give, told beforehand.
        table: Accuracies before and after with 95 % intervals; see ``statistics.head_repair.compare_groups``.
        reliance: The suspect's reliance before and after.
        tried: One row a way of repair, cross-validated on the half by which one was chosen: ``method``, ``accuracy``,
            ``conflicting``, ``aligned``, ``loss``, ``reliance``, ``cost``, ``cost_error``, ``group_loss``.
    """

    model: nn.Module
    helped: bool
    suspect: str
    method: str
    layer: str
    outlook: Outlook
    table: pd.DataFrame
    reliance: tuple[float, float]
    tried: pd.DataFrame

    def __str__(self) -> str:
        lines = [f"{self.outlook}."]
        if not self.method:
            return "\n".join([*lines, "Nothing that was tried helps: the network stays as it is. Balance or mask the "
                              "suspect, and train again."])  # fmt: skip
        verdict = "It helps" if self.helped else "It does not hold on other samples, so the network stays as it is"
        lines += [
            f'Layer "{self.layer}": {self.method}. {verdict}.',
            f"reliance on {self.suspect!r} {self.reliance[0]:.3f} -> {self.reliance[1]:.3f}",
        ]
        for row in self.table.itertuples():
            lines.append(
                f"{row.samples}: {row.before:.3f} [{row.before_low:.3f}, {row.before_high:.3f}] -> {row.after:.3f} "
                f"[{row.after_low:.3f}, {row.after_high:.3f}], {row.size} samples"
            )
        return "\n".join(lines)


def repair(
    model: nn.Module,
    train_loader: DataLoader[object],
    report: AnalysisResult,
    val_loader: DataLoader[object],
    *,
    suspect: str | None = None,
    metadata: Mapping[str, pd.DataFrame] | None = None,
    cost: float = LARGEST_COST,
    max_samples: int = 4096,
    batch_fn: BatchFunction | None = None,
    forward_fn: ForwardFunction | None = None,
    seed: int = 0,
) -> Repair:
    """Repair a network that leans on a suspect, by its last linear layer alone.

    The network is run once on both splits. On what its last linear layer is given, three kinds of repair are tried:
    groups (class times suspect) weighted equally (deep feature reweighting, Kirichenko et al. 2023, arXiv 2204.02937);
    the direction in which the suspect moves the features within classes removed, and the layer refitted around it; the
    channels that carry the suspect ablated. Labels in doubt count less. Every repair is fitted to training samples and
    to one half of the validation samples, by cross-validation on which one is chosen; the other half gives the figures.

    Args:
        model: The network of the report; it is not changed.
        train_loader: Loader over the training set, best without augmentation.
        report: The report of ``analyze``.
        val_loader: Loader over the report's validation set.
        suspect: Name of a metadata column, or of a variable of ``report.hidden``; by default the strongest candidate.
        metadata: As for ``analyze``. Left out, the data sets' own or the report's is used.
        cost: Overall accuracy that the repair may cost. Where the suspect helps with nearly every sample, blindness to
            it costs more.
        max_samples: The largest number of training samples.
        batch_fn: Function that takes a batch apart, as given to ``analyze``.
        forward_fn: Function that calls a network which is not called as ``model(x)``, as given to ``analyze``.
        seed: Seed of every random draw.

    Returns:
        The repaired copy and the figures before and after.

    Raises:
        DataError: There is no suspect with a column, it is in no sample apart from the class, or the report is of other
            weights or samples.
        LayerError: The network does not end in a linear layer with weights of its own.
        OutputError: Its classes do not compete.

    Example:
        >>> known = {}
        >>> for split, loader in (("validation", val_loader), ("train", train_loader)):
        ...     site = [(int(y) > 0) != (i % 4 == 0) for i, (_, y) in enumerate(loader.dataset)]
        ...     known[split] = pd.DataFrame({"site": site})
        >>> report = analyze(model, val_loader, train_loader, metadata=known)
        >>> found = repair(model, train_loader, report, val_loader, suspect="site", metadata=known)
        >>> found.suspect, found.layer, found.model is model
        ('site', 'head', False)
    """
    table = report.tables["validation"]
    extraction = FeatureExtractor(
        model, table.layer, table.task, batch_fn=batch_fn, seed=seed, forward_fn=forward_fn, gradient=table.gradient
    )
    sources = {
        split: (extraction, split_batches(loader, batch_fn))
        for split, loader in (("train", train_loader), ("validation", val_loader))
    }
    bench = prepare_workbench(sources, report, suspect, read_metadata(metadata), max_samples, seed)
    return try_repairs(model, bench, cost=cost)


def foresee(bench: Workbench) -> Outlook:
    """Tell what the features can still give: cross-validated refits on equal groups, of which nothing is kept."""
    before = measure(bench.chosen, bench.head(bench.chosen.features))
    found = try_recipes(PUBLISHED, bench.head, bench.fitted, bench.chosen, bench.seed, bench.has_bias)
    best = min(found.values(), key=lambda measured: measured.loss)
    against = int(conflicting(bench.chosen).sum())
    return Outlook(bench.suspect, before.conflicting, best.conflicting, before.accuracy, best.accuracy, against)


def try_repairs(
    model: nn.Module, bench: Workbench, outlook: Outlook | None = None, cost: float = LARGEST_COST
) -> Repair:
    """Try every way of repair, choose one, and measure it on the half that was kept apart."""
    before = measure(bench.chosen, bench.head(bench.chosen.features))
    tried = try_recipes(RECIPES, bench.head, bench.fitted, bench.chosen, bench.seed, bench.has_bias)
    chosen = choose(tried, before, cost)
    samples = bench.fitted.join(bench.chosen)
    head = bench.head if chosen is None else repair_head(chosen, samples, bench.head, bench.has_bias)
    old, new = bench.head(bench.reported.features), head(bench.reported.features)
    first, second = measure(bench.reported, old), measure(bench.reported, new, old)
    helped = chosen is not None and _holds(first, second, cost)
    repaired = _copy(model)
    if helped:
        write_head(repaired, bench.layer, head)
    return Repair(
        model=repaired,
        helped=helped,
        suspect=bench.suspect,
        method="" if chosen is None else chosen.name,
        layer=bench.layer,
        outlook=outlook or foresee(bench),
        table=compare_groups(bench.reported, old, new, bench.levels, bench.class_names),
        reliance=(first.reliance, second.reliance),
        tried=_list_tried(tried, before),
    )


def _holds(before: Measured, after: Measured, cost: float) -> bool:
    """Whether a repair does on other samples what it was chosen for: no dear accuracy, and less reliance or loss."""
    ends = abs(after.reliance) <= max(RELIANCE_GOAL, abs(before.reliance) / 2) and abs(before.reliance) > RELIANCE_GOAL
    return after.cost - after.cost_error <= cost and (ends or after.loss < before.loss)


def _list_tried(tried: Mapping[Recipe, Measured], before: Measured) -> pd.DataFrame:
    rows: Sequence[tuple[str, Measured]] = [("as trained", before), *((r.name, m) for r, m in tried.items())]
    return pd.DataFrame([{"method": name} | measured._asdict() for name, measured in rows])


def _copy(model: nn.Module) -> nn.Module:
    try:
        return copy.deepcopy(model)
    except Exception as error:  # whatever the user's attributes throw
        raise DataError(
            f"the network cannot be copied ({type(error).__name__}: {error}), and the original is not changed; pass "
            "one that was loaded with the same weights and was never run in training"
        ) from error
