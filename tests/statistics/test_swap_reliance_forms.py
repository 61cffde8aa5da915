import numpy as np
import pytest

from lightning_ifa.statistics.confounder_candidates import swap_candidates
from lightning_ifa.statistics.swap_reliance import multilabel_swap, regression_swap


def regression(share, n=256, seed=0, damage=0.0):
    """A prediction of which `share` comes from the swapped part; damage to the part shifts and blurs it."""
    rng = np.random.default_rng(seed)
    targets, sources = rng.normal(size=n), rng.permutation(n)
    part = share * targets + 0.2 * rng.normal(size=n)
    rest = (1 - share) * targets + 0.2 * rng.normal(size=n)
    harm = damage * (1 + rng.normal(size=n) - 0.5 * targets)
    prediction = part + rest
    after = part[sources] + rest + harm
    return prediction, after, prediction[sources], targets, targets[sources]


def multilabel(share, n=256, k=5, seed=0, damage=0.0):
    rng = np.random.default_rng(seed)
    labels, sources = (rng.random((n, k)) < 0.3).astype(np.int64), rng.permutation(n)
    part = share * 4 * labels + 0.3 * rng.normal(size=(n, k))
    rest = (1 - share) * 4 * labels + rng.normal(size=(n, k))
    harm = damage * (rng.normal(size=(n, 1)) - labels)
    logits = part + rest - 2
    return logits, part[sources] + rest - 2 + harm, logits[sources], labels, labels[sources]


FORMS = [(regression_swap, regression), (multilabel_swap, multilabel)]


@pytest.mark.parametrize(("form", "make"), FORMS)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_the_share_that_travels_is_the_share_that_was_planted(form, make, share):
    found = form(*make(share, damage=0.3))
    assert found.share == pytest.approx(share, abs=0.06)
    assert found.z > 3


@pytest.mark.parametrize(("form", "make"), FORMS)
def test_a_whole_image_carries_everything(form, make):
    before, _, source, labels, source_labels = make(0.5)
    assert form(before, source, source, labels, source_labels).share == pytest.approx(1.0)


@pytest.mark.parametrize(("form", "make"), FORMS)
@pytest.mark.parametrize("damage", [0.0, 2.0])
def test_damage_is_no_evidence_and_the_null_is_normal(form, make, damage):
    z = np.array([form(*make(0.0, seed=s, damage=damage)).z for s in range(300)])
    assert abs(z.mean()) < 0.2
    assert 0.85 < z.std() < 1.15
    assert (z > 3).mean() <= 0.01


def test_the_labels_form_chooses_the_test():
    before, after, source, targets, source_targets = regression(0.5)
    columns = before[:, None], {"corner": after[:, None]}, source[:, None]
    candidate = swap_candidates(*columns, targets.astype(np.float32), source_targets.astype(np.float32))[0]
    assert candidate.sentence() == "50% of the prediction's slope on the target moves with corner"
    before, after, source, labels, source_labels = multilabel(0.5)
    candidate = swap_candidates(before, {"corner": after}, source, labels, source_labels)[0]
    assert 0 <= candidate.worst_class < 5
    assert "evidence between classes moves with corner" in candidate.sentence()


def test_labels_that_never_differ_say_nothing():
    before, after, source, labels, _ = multilabel(0.5)
    found = multilabel_swap(before, after, source, labels, np.zeros_like(labels))
    assert (found.share, found.z) == (0.0, 0.0)
