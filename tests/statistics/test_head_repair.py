"""Repair of a linear head: blind to the suspect's direction, chosen by rule, dealt out by whole patients."""

from __future__ import annotations

import numpy as np
import pytest

from lightning_ifa.statistics.head_repair import (
    GroupedSamples,
    Measured,
    Recipe,
    choose,
    compare_groups,
    deal,
    measure,
    repair_head,
)
from lightning_ifa.statistics.linear_head import LinearHead, fit_head

LEANING = LinearHead(np.array([[-1.0, 0, -2], [1.0, 0, 2]]), np.zeros(2))


def draw(n=400, agree=0.85, seed=0):
    """Feature 0 says the class with noise, feature 2 the suspect."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    levels = np.where(rng.random(n) < agree, labels, 1 - labels)
    features = np.column_stack([2 * labels - 1 + 0.5 * rng.normal(size=n), rng.normal(size=n), 2.0 * levels - 1])
    values = levels[:, None].astype(float)
    return GroupedSamples(features, labels, levels, values, np.ones(n), np.arange(n))


@pytest.mark.parametrize(
    "recipe", [Recipe("direction", 0.0, None), Recipe("direction", 1.0, 0.03), Recipe("channels", 1.0, 0.01)]
)
def test_a_head_that_leans_on_the_suspect_is_mended(recipe):
    samples, other = draw(), draw(seed=1)
    before = measure(other, LEANING(other.features))
    after = measure(other, repair_head(recipe, samples, LEANING)(other.features), LEANING(other.features))
    assert before.conflicting < 0.3
    assert after.conflicting > 0.85
    assert abs(after.reliance) < 0.1 < before.reliance
    assert after.cost == pytest.approx(before.accuracy - after.accuracy)


def test_a_strong_ridge_keeps_the_head_and_held_directions_stay():
    samples = draw()
    kept = fit_head(samples.features, samples.labels, np.ones(400), LEANING, 1e6, intercept=False)
    np.testing.assert_allclose(kept.weight, LEANING.weight, atol=1e-3)
    held = np.array([[0.0, 0.6, 0.8]])
    moved = fit_head(samples.features, samples.labels, np.ones(400), LEANING, 0.01, held=held)
    np.testing.assert_allclose(moved.weight @ held.T, LEANING.weight @ held.T, atol=1e-4)
    assert abs(moved.weight - LEANING.weight).max() > 0.1


def test_the_choice_ends_the_reliance_first_and_harms_no_group_for_less():
    before = Measured(0.9, 0.5, 0.95, 1.0, 0.2)
    ends, leans = Recipe("direction", 1.0, 0.1), Recipe("", 1.0, 0.1)
    found = Measured(0.9, 0.8, 0.92, 0.6, 0.01)
    better = found._replace(reliance=0.1, loss=0.4)
    assert choose({leans: better, ends: found}, before) == ends
    assert choose({leans: better}, before) == leans
    assert choose({leans: better._replace(group_loss=0.1)}, before) is None
    assert choose({ends: found._replace(group_loss=0.1)}, before) == ends
    assert choose({ends: found._replace(cost=0.05, cost_error=0.01)}, before) is None
    assert choose({ends: found._replace(cost=0.05, cost_error=0.01)}, before, cost=0.1) == ends
    assert choose({leans: before}, before) is None


def test_patients_stay_together_and_strata_are_dealt_evenly():
    units = np.repeat(np.arange(60), 3)
    strata = np.repeat(np.arange(60) % 2, 3)
    part = deal(strata, units, 3, seed=0)
    assert all(len(set(part[units == unit])) == 1 for unit in range(60))
    assert np.unique(part[strata == 0], return_counts=True)[1].tolist() == [30, 30, 30]


def test_groups_are_listed_before_and_after_with_a_paired_test():
    samples = draw()
    mended = repair_head(Recipe("direction", 1.0, 0.03), samples, LEANING)
    found = compare_groups(samples, LEANING(samples.features), mended(samples.features), ["no", "yes"], ["a", "b"])
    assert found["samples"].tolist() == ["all", "conflicting", "a, no", "a, yes", "b, no", "b, yes"]
    row = found.set_index("samples").loc["conflicting"]
    assert row["before_low"] < row["before"] < row["before_high"]
    assert row["change"] > 0.5
    assert row["p"] < 1e-6
