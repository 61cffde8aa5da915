"""Repair of a linear head that leans on a suspect: ways to refit it, tried by cross-validation, measured on others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.special import log_softmax
from scipy.stats import binomtest

from lightning_ifa.statistics.arrays import Array, Floats, Ints, Mask
from lightning_ifa.statistics.confounder_candidates import alignment
from lightning_ifa.statistics.linear_head import LinearHead, fit_head, remove_directions
from lightning_ifa.statistics.metadata_groups import LEAST_SIZE
from lightning_ifa.statistics.reliance import reliance
from lightning_ifa.statistics.strata import centre_within
from lightning_ifa.statistics.subgroups import wilson

FOLDS = 3
LARGEST_COST = 0.01
"""Overall accuracy that a repair may cost: what a tag gave away for free is lost with it."""

LARGEST_GROUP_LOSS = 0.02
PRICE = 1.25
"""What an end of the reliance may cost in cross-entropy, as a factor."""

RELIANCE_GOAL = 0.02
LEVEL = 0.05

CARRIED = 0.8
"""Share of what the channels carry of the suspect that those ablated make up."""

MOST_ABLATED = 0.25  # share of the channels


class GroupedSamples(NamedTuple):
    """Samples as a linear head sees them, each in a group: its class times its level of the suspect.

    Attributes:
        features: What the head sees, ``(n, d)``.
        labels: Class, 0 to k - 1, ``(n,)``.
        levels: Level of the suspect, ``(n,)``.
        values: The suspect as numbers, ``(n, p)``: one column, or dummy columns.
        trust: Weight of each sample, 1 less the probability that its label is wrong, ``(n,)``.
        units: Which samples belong together, as of one patient, ``(n,)``.
    """

    features: Array
    labels: Ints
    levels: Ints
    values: Floats
    trust: Floats
    units: Ints

    @property
    def groups(self) -> Ints:
        """Number of each sample's group, ``(n,)``: class times the number of levels, plus level."""
        return self.labels * (int(self.levels.max()) + 1) + self.levels

    def take(self, rows: Array) -> GroupedSamples:
        """Select rows by number or mask."""
        parts: Any = (part[rows] for part in self)
        return GroupedSamples(*parts)

    def join(self, other: GroupedSamples) -> GroupedSamples:
        """Append other samples."""
        parts: Any = (np.concatenate(pair) for pair in zip(self, other, strict=True))
        return GroupedSamples(*parts)


class Recipe(NamedTuple):
    """One way of repair.

    Attributes:
        removes: What the head is made blind to: ``""``, ``"direction"`` (in which the suspect moves the features within
            classes) or ``"channels"`` (that carry it).
        balance: Weight of a group's samples: its size to minus this power. 1 weights groups equally, 0 leaves them.
        ridge: Pull to the head as it was; None refits nothing.
    """

    removes: str
    balance: float
    ridge: float | None

    @property
    def name(self) -> str:
        """Says it in words."""
        removed = {"": "", "direction": "suspect's direction removed", "channels": "carrying channels ablated"}
        refit = {
            0.0: "refitted",
            0.25: "groups weighted by the fourth root of their size",
            0.5: "groups weighted by the root of their size",
            1.0: "groups weighted equally",
        }
        parts = [removed[self.removes], "" if self.ridge is None else f"{refit[self.balance]}, ridge {self.ridge:g}"]
        return ", ".join(filter(None, parts))


RIDGES = (0.1, 0.03, 0.01)
PUBLISHED = tuple(Recipe("", 1.0, ridge) for ridge in RIDGES)
"""Last-layer retraining on equal groups alone (deep feature reweighting)."""

RECIPES = (
    *PUBLISHED,
    *(Recipe("", balance, 0.01) for balance in (0.5, 0.25, 0.0)),
    Recipe("direction", 0.0, None),
    *(Recipe("direction", balance, ridge) for balance in (1.0, 0.5) for ridge in RIDGES),
    Recipe("direction", 0.0, 0.01),
    Recipe("channels", 0.0, None),
    Recipe("channels", 1.0, 0.01),
)


class Measured(NamedTuple):
    """How well scores do.

    Attributes:
        accuracy: Over all samples.
        conflicting: Accuracy where the suspect points away from the class; NaN if nowhere.
        aligned: Accuracy where it points to it.
        loss: Mean cross-entropy if the suspect pointed to and away from the class equally often, nats.
        reliance: Share of the evidence between classes that depends on the suspect.
        cost: Overall accuracy lost against the scores before.
        cost_error: Standard error of ``cost``, paired.
        group_loss: Accuracy that some group of 20 samples or more lost for sure: the largest of their losses, each less
            two standard errors.
    """

    accuracy: float
    conflicting: float
    aligned: float
    loss: float
    reliance: float
    cost: float = 0.0
    cost_error: float = 0.0
    group_loss: float = 0.0


def group_weights(groups: Ints, power: float = 1.0) -> Floats:
    """Weight samples by the size of their group to a negative power, mean 1, ``(n,)``.

    >>> group_weights(np.array([0, 0, 0, 1])).round(2).tolist()
    [0.67, 0.67, 0.67, 2.0]
    """
    _, position, counts = np.unique(groups, return_inverse=True, return_counts=True)
    weights = counts[position] ** -float(power)
    return np.asarray(weights / weights.mean())


def deal(strata: Ints, units: Ints, parts: int, seed: int) -> Ints:
    """Deal samples out to parts of one size, each stratum evenly, and none of a unit's samples apart, ``(n,)``."""
    _, first, position = np.unique(units, return_index=True, return_inverse=True)
    chance = np.random.default_rng(seed).random(len(first))
    rank = np.empty(len(first), dtype=np.int64)
    rank[np.lexsort((chance, strata[first]))] = np.arange(len(first))
    return np.asarray(rank[position] % parts)


def conflicting(samples: GroupedSamples) -> Mask:
    """Which samples the suspect speaks against the class of, ``(n,)``."""
    return np.asarray(alignment(samples.values, samples.labels) < 0)


def suspect_directions(samples: GroupedSamples) -> Floats:
    """Give the directions in which the suspect moves the features within classes, orthonormal, ``(p, d)``."""
    _, sizes, directions = np.linalg.svd(_slopes(samples), full_matrices=False)
    return np.asarray(directions[sizes > 1e-6 * max(float(sizes.max(initial=0.0)), 1e-12)])


def carrying_channels(samples: GroupedSamples, head: LinearHead) -> Ints:
    """Number the channels that carry the suspect to the scores, strongest first.

    A channel carries its slope on the suspect within classes, times the spread of its weights over classes.
    """
    carried = np.linalg.norm(_slopes(samples), axis=0) * (head.weight - head.weight.mean(0)).std(0)
    order = np.argsort(-carried, kind="stable")
    enough = int(np.searchsorted(np.cumsum(carried[order]), CARRIED * carried.sum())) + 1
    return order[: max(1, min(enough, int(MOST_ABLATED * len(order))))]


def _slopes(samples: GroupedSamples) -> Floats:
    """Give each feature's slopes on the suspect within classes, ``(p, d)``."""
    inside = centre_within(samples.values, samples.labels)
    return np.asarray(np.linalg.pinv(inside.T @ inside) @ (inside.T @ samples.features))


def repair_head(recipe: Recipe, samples: GroupedSamples, head: LinearHead, intercept: bool = True) -> LinearHead:
    """Repair a head by one recipe, from these samples."""
    held = np.zeros((0, samples.features.shape[1]))
    if recipe.removes == "direction":
        held = suspect_directions(samples)
    elif recipe.removes == "channels":
        held = np.eye(samples.features.shape[1])[carrying_channels(samples, head)]
    start = remove_directions(head, held, samples.features.mean(0) if intercept else None)
    if recipe.ridge is None:
        return start
    weights = samples.trust * group_weights(samples.groups, recipe.balance)
    return fit_head(samples.features, samples.labels, weights, start, recipe.ridge, intercept=intercept, held=held)


def measure(samples: GroupedSamples, scores: Array, before: Array | None = None) -> Measured:
    """Measure scores ``(n, k)``, and what they lost against the scores before."""
    right, against = scores.argmax(1) == samples.labels, conflicting(samples)
    entropy = -log_softmax(scores, axis=1)[np.arange(len(right)), samples.labels]
    sides = [rows for rows in (against, ~against) if rows.any()]
    lost = np.zeros(len(right)) if before is None else (before.argmax(1) == samples.labels).astype(float) - right
    groups = pd.Series(lost).groupby(samples.groups).agg(["mean", "std", "size"])
    groups = groups[groups["size"] >= LEAST_SIZE]
    surely = groups["mean"] - 2 * groups["std"] / np.sqrt(groups["size"])
    return Measured(
        accuracy=float(right.mean()),
        conflicting=float(right[against].mean()) if against.any() else float("nan"),
        aligned=float(right[~against].mean()) if not against.all() else float("nan"),
        loss=float(np.mean([entropy[rows].mean() for rows in sides])),
        reliance=reliance(scores, samples.labels, samples.values).share,
        cost=float(lost.mean()),
        cost_error=float(lost.std() / np.sqrt(len(lost))),
        group_loss=float(surely.max()) if len(surely) else 0.0,
    )


def try_recipes(
    recipes: Sequence[Recipe],
    head: LinearHead,
    fitted: GroupedSamples,
    chosen: GroupedSamples,
    seed: int = 0,
    intercept: bool = True,
) -> dict[Recipe, Measured]:
    """Measure recipes by cross-validation: fit to all fitted samples and two thirds of the others, measure the rest.

    Args:
        recipes: What to try.
        head: The head as trained.
        fitted: Samples that are always fitted to, as those of the training split.
        chosen: Samples that the head has not seen.
        seed: Seed of the division.
        intercept: Whether the head has a bias.

    Returns:
        Recipe to what it reached on ``chosen``.
    """
    fold = deal(chosen.groups, chosen.units, FOLDS, seed)
    before, found = head(chosen.features), {}
    for recipe in recipes:
        scores = np.empty_like(before)
        for number in range(FOLDS):
            samples = fitted.join(chosen.take(fold != number))
            scores[fold == number] = repair_head(recipe, samples, head, intercept)(chosen.features[fold == number])
        found[recipe] = measure(chosen, scores, before)
    return found


def choose(tried: Mapping[Recipe, Measured], before: Measured, cost: float = LARGEST_COST) -> Recipe | None:
    """Choose a recipe by what was measured of it; None if none is better than the head as trained.

    Of those that do not cost more overall accuracy than allowed, as far as can be told, those which end the reliance
    come first. What surely costs a large group more than two points is left out, unless nothing else ends the reliance:
    what the suspect gave a group for free is lost with it. The smallest loss decides.

    Args:
        tried: From ``try_recipes``.
        before: The head as trained, measured on the same samples.
        cost: Overall accuracy that may be lost.
    """
    cheap = [r for r, m in tried.items() if m.cost - m.cost_error <= cost and m.loss < PRICE * before.loss]
    ended = [r for r in cheap if abs(tried[r].reliance) <= RELIANCE_GOAL < abs(before.reliance)]
    better = ended or [r for r in cheap if tried[r].loss < before.loss]
    better = [r for r in better if tried[r].group_loss <= LARGEST_GROUP_LOSS] or ended
    return min(better, key=lambda recipe: tried[recipe].loss, default=None)


def compare_groups(
    samples: GroupedSamples, before: Array, after: Array, names: Sequence[str], classes: Sequence[str]
) -> pd.DataFrame:
    """List accuracies before and after, of all samples, the conflicting ones and each group.

    Args:
        samples: Samples that neither fit nor choice has seen.
        before: Their scores as trained, ``(n, k)``.
        after: Their scores repaired, ``(n, k)``.
        names: Name of each level.
        classes: Name of each class.

    Returns:
        Columns ``samples``, ``size``, ``before`` with its 95 % interval ``before_low``, ``before_high`` (Wilson),
        ``after``, ``after_low``, ``after_high``, ``change``, and ``p`` (exact McNemar test, two-sided).
    """
    right = [scores.argmax(1) == samples.labels for scores in (before, after)]
    against, levels = conflicting(samples), int(samples.levels.max()) + 1
    rows = {"all": np.ones(len(against), dtype=bool), "conflicting": against}
    for group in np.unique(samples.groups):
        label, level = divmod(int(group), levels)
        rows[f"{classes[label]}, {names[level]}"] = samples.groups == group
    found = []
    for name, inside in rows.items():
        n = int(inside.sum())
        if not n:
            continue
        hits = [int(one[inside].sum()) for one in right]
        gained, lost = int((right[1] & ~right[0])[inside].sum()), int((right[0] & ~right[1])[inside].sum())
        found.append({
            "samples": name, "size": n,
            "before": hits[0] / n, **dict(zip(("before_low", "before_high"), wilson(hits[0], n), strict=True)),
            "after": hits[1] / n, **dict(zip(("after_low", "after_high"), wilson(hits[1], n), strict=True)),
            "change": (hits[1] - hits[0]) / n,
            "p": float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0,
        })  # fmt: skip
    return pd.DataFrame(found)
