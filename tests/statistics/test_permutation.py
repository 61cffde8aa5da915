"""Samples in groups: the null holds where samples of a scan share class, site and what the network makes of them."""

import numpy as np
import pandas as pd
import pytest

from lightning_ifa.indicators.confounding import confounding
from lightning_ifa.statistics.confounder_candidates import TrainingRows, find_candidates
from lightning_ifa.statistics.metadata_columns import read_groups
from lightning_ifa.statistics.permutation import grouped_variance
from lightning_ifa.statistics.reliance import Further, regression_reliance, reliance
from lightning_ifa.statistics.swap_reliance import swap_reliance


def scans(count, *, each=4, association=0.0, use=0.0, spanning=False, varying=False, seed=0):
    """Two classes; each scan shifts the logits in its own way, and shows one site unless that varies within it.

    Args:
        association: How far the site goes with the class.
        use: What the network makes of it.
        spanning: A scan holds samples of both classes.
    """
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 2 * each, count)
    group = np.repeat(np.arange(count), sizes)
    n = len(group)
    chance = rng.random(n) if varying else rng.random(count)[group]
    if spanning:
        site = (rng.random(count) < 0.5)[group]
        labels = (site == (rng.random(n) < (1 + association) / 2)).astype(np.int64)
    else:
        labels = (np.arange(count) % 2)[group]
        site = (labels == 1) == (chance < (1 + association) / 2)
    logits = 3 * np.eye(2)[labels] + rng.normal(size=(n, 2)) + rng.normal(size=(count, 2))[group]
    logits[:, 1] += use * site
    return logits, labels, site.astype(float)[:, None], group


CASES = {
    "used, no association": {"use": 2.0},
    "associated, not used": {"association": 0.8},
    "used, scans of both classes": {"use": 2.0, "spanning": True},
    "associated, scans of both classes": {"association": 0.6, "spanning": True},
    "associated, varies within scans": {"association": 0.8, "varying": True},
}


@pytest.mark.parametrize(("count", "training"), [(20, 0), (40, 0), (80, 0), (20, 80)])
@pytest.mark.parametrize("case", CASES)
def test_the_null_holds_with_few_scans(case, count, training):
    z = []
    for seed in range(100):
        logits, labels, site, group = scans(count, seed=seed, **CASES[case])
        further = None
        if training:
            more = scans(training, seed=1000 + seed, **CASES[case])
            further = Further(*more[:3], more[3] + 1000)
        z.append(reliance(logits, labels, site, further, group).z)
    assert abs(np.mean(z)) < 0.3
    assert 0.7 < np.std(z) < 1.2
    assert np.mean(np.array(z) > 3) <= 0.01
    assert max(z) < 4


def test_counted_as_independent_the_same_samples_alarm_falsely():
    """What the groups are for."""
    z = [reliance(*scans(80, use=2.0, seed=seed)[:3]).z for seed in range(150)]
    assert np.std(z) > 1.8
    assert np.mean(np.array(z) > 3) > 0.05


@pytest.mark.parametrize("spanning", [False, True])
def test_a_used_and_associated_site_is_still_found(spanning):
    strong = {"association": 0.7, "use": 2.0, "spanning": spanning}
    found = [reliance(*s[:3], groups=s[3]) for s in (scans(160, seed=seed, **strong) for seed in range(30))]
    assert np.mean([f.z > 3 for f in found]) > 0.8
    assert found[0].share == reliance(*scans(160, seed=0, **strong)[:3]).share  # only how sure


def test_copies_of_every_sample_say_nothing_new():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 30)
    site = (labels == (rng.random(60) < 0.8)).astype(float)[:, None]
    logits = 3 * np.eye(2)[labels] + rng.normal(size=(60, 2)) + site * [0, 1]
    often = np.repeat(np.arange(60), 5)
    a, b = ((v - np.where(labels, v[labels == 1].mean(), v[labels == 0].mean())) for v in (site[:, 0], logits[:, 1]))
    alone = grouped_variance(a[:, None, None], b[:, None, None], labels, np.arange(60))
    copied = grouped_variance(a[often, None, None], b[often, None, None], labels[often], often)
    np.testing.assert_allclose(copied, 25 * alone)
    # no surer; the second null allows for how few they are besides
    assert (
        reliance(logits[often], labels[often], site[often], groups=often).z <= reliance(logits, labels, site).z + 1e-9
    )


@pytest.mark.parametrize("each", [1, 4])
def test_sources_of_one_scan_are_exchanged_together(each):
    z = []
    for seed in range(150):
        rng = np.random.default_rng(seed)
        group = np.repeat(np.arange(40), each)
        labels = (np.arange(40) % 2)[group]
        part = (rng.random(40) < 0.5)[group, None] * np.array([0, 2.0])
        rest = 3 * np.eye(2)[labels] + rng.normal(size=(len(group), 2))
        sources = rng.permutation(len(group))
        whole = part + rest
        found = swap_reliance(whole, part[sources] + rest, whole[sources], labels, labels[sources], group[sources])
        z.append(found.z)
    assert abs(np.mean(z)) < 0.3
    assert 0.85 < np.std(z) < 1.2
    assert max(z) < 4


def test_regression_exchanges_scans():
    z = {"groups": [], "none": []}
    for seed in range(150):
        rng = np.random.default_rng(seed)
        group = np.repeat(np.arange(40), 4)
        y = rng.normal(size=40)[group]
        site = 0.7 * y + rng.normal(size=40)[group]
        prediction = y + rng.normal(size=40)[group] + 0.3 * rng.normal(size=160)
        bins = np.digitize(y, [-0.7, 0.0, 0.7])
        for name, groups in (("groups", group), ("none", None)):
            z[name].append(regression_reliance(prediction, y, bins, site[:, None], groups)[1])
    assert np.std(z["none"]) > 1.5
    assert 0.8 < np.std(z["groups"]) < 1.2
    assert max(z["groups"]) < 4


def test_groups_of_both_splits_are_numbered_together_and_missing_ones_stand_alone():
    one, other = read_groups(pd.Series(["a", None, "b", "a", None]), pd.Series(["b", "c"]))
    assert one[0] == one[3]
    assert len({*one, *other}) == 5
    assert one[2] == other[0]
    assert read_groups(pd.Series(["a", "b", None, None])) is None


def test_training_samples_without_groups_do_not_count_as_independent():
    logits, labels, site, group = scans(60, association=0.8, use=2.0)
    frame = {"metadata": pd.DataFrame({"site": site[:, 0]})}
    more = scans(300, association=0.8, use=2.0, seed=1)
    z = {}
    for name, groups in (("none", None), ("groups", more[3] + 1000)):
        training = TrainingRows(*more[:2], pd.DataFrame({"site": more[2][:, 0]}), groups)
        z[name] = find_candidates(logits, labels, frame, training=training, groups=group)[0].z
    assert z["none"] == find_candidates(logits, labels, frame, groups=group)[0].z < z["groups"]
    assert confounding(find_candidates(logits, labels, frame, training=training, groups=group)).alarm
