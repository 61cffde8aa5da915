import numpy as np
import pytest

from lightning_ifa.statistics.hidden_variables import Signal, cut_in_two, find_hidden, place_signals
from lightning_ifa.statistics.own_map import own_map

CLASSES, CELLS = 4, 9


def planted(seed, tag, used=1.0, n=600):
    """Evidence of cells in which content is a continuum; cell 2 holds a tag that goes with two classes."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, n)
    carries = (labels >= 2) == (rng.random(n) < 0.9)
    evidence = rng.normal(size=(n, CLASSES, CELLS)) * 0.3
    evidence += np.eye(CLASSES)[labels][:, :, None] * rng.uniform(0, 2, (n, 1, CELLS))
    if tag:
        evidence[:, :, 2] = 0.05 * evidence[:, :, 2] + used * np.outer(carries, [-1, -1, 1, 1])
    return evidence, evidence.sum(2), labels, carries


def search(evidence, logits, labels, looks=None):
    signals = [Signal("place", place_signals(evidence, labels))]
    return find_hidden(logits, labels, signals + ([Signal("look", looks)] if looks is not None else []))


@pytest.mark.parametrize("seed", range(3))
def test_a_tag_at_a_place_is_recovered(seed):
    evidence, logits, labels, carries = planted(seed, tag=True)
    (found,) = search(evidence, logits, labels)
    assert (found.kind, found.number) == ("place", 2)
    assert max((found.upper == carries).mean(), (found.upper != carries).mean()) > 0.99


@pytest.mark.parametrize("seed", range(5))
def test_content_is_a_continuum(seed):
    assert search(*planted(seed, tag=False)[:3]) == []


def test_modes_that_the_network_does_not_use_are_left_out():
    evidence, _, labels, _ = planted(0, tag=True)
    without = evidence.copy()
    without[:, :, 2] = 0
    assert search(evidence, without.sum(2), labels) == []


def test_modes_that_are_the_class_are_not_shared():
    """Two classes part every signal in two; within them there are no modes."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 500)
    looks = labels[:, None] * 8.0 + rng.normal(size=(500, 3))
    logits = np.column_stack([-looks[:, 0], looks[:, 0]])
    assert cut_in_two(looks)[0].min() > 0.9
    assert find_hidden(logits, labels, [Signal("look", looks)]) == []


def one_class(seed, others, gap, n=1500):
    """A look that is nearly one of six classes; of the other classes a share has it, more or less."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 6, n)
    has = rng.random(n) < np.where(labels == 5, 0.94, others)
    level = np.where(has & (labels != 5), rng.uniform(gap, 1, n), has)
    looks = level[:, None] * 8.0 + rng.normal(size=(n, 3)) * 0.8
    logits = rng.normal(size=(n, 6)) + 3 * np.eye(6)[labels] + np.outer(level, [0, 0, 0, 0, 0, 4])
    return logits, labels, [Signal("look", looks)]


def test_a_side_that_is_little_but_one_class_is_its_content():
    """As the loop of a six, which some twos have as well, more or less; a tag of one class is there or is not."""
    assert find_hidden(*one_class(0, 0.05, 0.1)) == []
    assert len(find_hidden(*one_class(0, 0.05, 1.0))) == 1


def test_a_look_that_many_channels_share_is_refined():
    rng = np.random.default_rng(1)
    evidence, logits, labels, carries = planted(1, tag=False)
    logits = logits + np.outer(carries, [-2, -2, 2, 2])
    looks = carries[:, None] * rng.uniform(2.5, 3.5, 20) + rng.normal(size=(len(labels), 20))
    (found,) = search(evidence, logits, labels, looks)
    assert found.kind == "look"
    assert found.modes > cut_in_two(looks)[0].max()
    assert max((found.upper == carries).mean(), (found.upper != carries).mean()) > 0.98


def test_constant_and_few_samples_are_no_signal():
    labels = np.arange(40) % 2
    assert find_hidden(np.eye(2)[labels], labels, [Signal("look", np.ones((40, 3)))]) == []
    assert find_hidden(np.eye(2)[labels[:8]], labels[:8], [Signal("look", np.eye(8))]) == []


def test_a_candidates_own_map_shows_its_place():
    evidence, logits, labels, carries = planted(0, tag=True)
    for values in (carries.astype(float), np.where(carries, 0.2, 0.7)):  # whichever side is called larger
        found = own_map(evidence.reshape(-1, CLASSES, 3, 3), logits, labels, values)
        assert (found.carries == carries).all()
        assert found.has_place
        assert found.peak == (0, 2)
        assert (found.peaks[carries] == 2).mean() > 0.95
        assert (found.peaks[~carries] == 2).mean() < 0.05


@pytest.mark.parametrize("level", [1.0, 0.0])
def test_pictures_tell_which_side_carries_the_mark(level):
    evidence, logits, labels, carries = planted(0, tag=True)
    pictures = np.random.default_rng(0).uniform(0.3, 0.5, (len(labels), 24, 24))
    pictures[carries, 1:6, 17:22] = level  # brighter or darker, in the cell at the upper right
    for values in (carries.astype(float), (~carries).astype(float)):
        found = own_map(evidence.reshape(-1, CLASSES, 3, 3), logits, labels, values, pictures)
        assert (found.carries == carries).all()


def test_a_look_of_the_whole_image_has_no_place():
    evidence, _, labels, carries = planted(0, tag=False)
    evidence = evidence + np.outer(carries, [-1, -1, 1, 1])[:, :, None]
    assert not own_map(evidence, evidence.sum(2), labels, carries.astype(float)).has_place
