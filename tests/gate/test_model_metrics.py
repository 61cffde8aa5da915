"""The right numbers, from every way in which a model reaches the registry; none where there is doubt."""

import itertools
import math
import time

import pytest
from registries import DIGEST, sound_metrics

from lightning_ifa.errors import UndecidableError
from lightning_ifa.gate.model_metrics import find_model_metrics, find_obstacle, find_version
from lightning_ifa.tracking.store import default_store

SCORE = "ifa/overfitting/score"
KEYS = (SCORE, "ifa/health/overfitting")


def found(store, name, version, digest=None):
    return find_model_metrics(store.client, store.client.get_model_version(name, version), KEYS, digest)


def test_numbers_attached_with_their_data_set(store, name):
    version = store.register(name, sound_metrics())
    numbers = found(store, name, version)
    assert numbers.metrics == pytest.approx(sound_metrics())
    assert (numbers.dataset_digest, numbers.step, numbers.problem) == (DIGEST, 7, "")
    assert numbers.subject == f"models:/{name}/1 ({numbers.model})"


def test_a_nicer_value_on_other_data_does_not_count(store, name):
    logged = store.logged_model(tags={"ifa.dataset_digest": DIGEST})
    store.attach(logged, {SCORE: 0.9})
    store.attach(logged, {SCORE: 0.0001}, step=9, digest="ffffffffffff")
    version = store.version(name, logged)
    assert found(store, name, version).metrics[SCORE] == 0.9
    assert found(store, name, version, "ffffffffffff").metrics[SCORE] == 0.0001


def test_several_data_sets_and_no_word_which(store, name):
    logged = store.logged_model()
    for digest in ("aaaaaaaaaaaa", "bbbbbbbbbbbb"):
        store.attach(logged, {SCORE: 0.1}, digest=digest)
    numbers = found(store, name, store.version(name, logged))
    assert not numbers.metrics
    assert "2 data sets" in numbers.problem


def test_nan_that_the_store_gives_back_as_zero(store, name):
    version = store.register(name, {SCORE: math.nan, "ifa/health/overfitting": 0.0, "ifa/overfitting/z": math.inf})
    numbers = found(store, name, version)
    assert math.isnan(numbers.metrics[SCORE])
    assert numbers.metrics["ifa/health/overfitting"] == 0.0


def test_nan_attached_without_data_set(store, name):
    logged = store.logged_model(tags={"ifa.step": "7"})
    store.attach(logged, {SCORE: math.nan}, digest=None)
    assert math.isnan(found(store, name, store.version(name, logged)).metrics[SCORE])


def test_last_epoch_is_not_the_checkpoint(store, name):
    run = store.run()
    for step, score in ((7, 0.1), (15, 0.9), (23, 0.001)):
        store.log(run, {SCORE: score}, step)
    numbers = found(store, name, store.version(name, store.logged_model(run, {"ifa.step": "15"})))
    assert numbers.metrics == {SCORE: 0.9}
    assert numbers.origin == f"history of run {run}"
    assert numbers.dataset_digest is None


def test_the_step_given_to_mlflows_own_log_model(store, name):
    run = store.run()
    store.log(run, {SCORE: 0.1}, 7)
    store.log(run, {SCORE: 0.9}, 15)
    assert found(store, name, store.version(name, store.logged_model(run, step=7))).metrics == {SCORE: 0.1}


def test_metrics_that_mlflow_copied_to_the_model_at_the_step(store, name):
    logged = store.logged_model()
    store.attach(logged, {SCORE: 0.1}, step=7, digest=None)
    numbers = found(store, name, store.version(name, logged))
    assert (numbers.metrics, numbers.origin, numbers.step) == ({SCORE: 0.1}, "logged model", 7)


def test_step_zero_is_what_mlflow_records_when_none_was_given(store, name):
    run = store.run()
    store.log(run, {SCORE: 0.1}, 0)
    numbers = found(store, name, store.version(name, store.logged_model(run, step=0)))
    assert not numbers.metrics
    assert "not recorded which training step" in numbers.problem
    tagged = store.logged_model(run, {"ifa.step": "0"})
    assert found(store, name, store.version(name, tagged)).metrics == {SCORE: 0.1}


def test_autolog_attaches_every_step_and_so_none_is_known(store, name):
    logged = store.logged_model()
    for step in (1, 2, 3):
        store.attach(logged, {SCORE: 0.1}, step=step, digest=None)
    assert not found(store, name, store.version(name, logged)).metrics


def test_two_values_at_one_step_are_doubt_but_float32_is_none(store, name):
    run = store.run()
    store.log(run, {SCORE: 0.1, "ifa/health/overfitting": 0.9}, 7)
    store.client.log_metric(run, SCORE, 0.10000000149011612, step=7)
    store.client.log_metric(run, "ifa/health/overfitting", 0.4, step=7)
    numbers = found(store, name, store.version(name, store.logged_model(run, {"ifa.step": "7"})))
    assert set(numbers.metrics) == {SCORE}
    assert "several values at step 7: ifa/health/overfitting" in numbers.problem


def test_the_runs_tag_speaks_of_its_latest_analysis_only(store, name):
    run = store.run()
    store.log(run, {SCORE: 0.1}, 7)
    store.log(run, {SCORE: 0.1}, 15)
    store.client.set_tag(run, "ifa.step", "15")
    store.client.set_tag(run, "ifa.dataset_digest", DIGEST)
    digests = [
        found(store, name, store.version(name, store.logged_model(run, {"ifa.step": step}))).dataset_digest
        for step in ("7", "15")
    ]
    assert digests == [None, DIGEST]


def test_nothing_at_the_step(store, name):
    numbers = found(store, name, store.version(name, store.logged_model(tags={"ifa.step": "99"})))
    assert not numbers.metrics
    assert "nothing was logged at its step 99" in numbers.problem


def test_a_copy_of_a_copy_has_the_numbers_but_another_subject(store, name):
    version = store.register(name, {SCORE: 0.1})
    first, second = store.name(), store.name()
    with default_store(store.uri):
        store.client.copy_model_version(f"models:/{name}/{version}", first)
        store.client.copy_model_version(f"models:/{first}/1", second)
    original, copy = found(store, name, version), found(store, second, "1")
    assert copy.metrics == original.metrics
    assert copy.model == original.model
    assert copy.subject != original.subject


def test_a_version_without_logged_model(store, name):
    run = store.run()
    store.log(run, {SCORE: 0.1}, 7)
    source = store.client.get_run(run).info.artifact_uri + "/model"
    version = store.client.create_model_version(name, source, run)
    numbers = found(store, name, version.version)
    assert not numbers.metrics
    assert "no logged model" in numbers.problem


@pytest.mark.parametrize("uri", ["leafnet/3", "models:/leafnet", "models:/leafnet@champion", "models:/leafnet/latest"])
def test_only_a_version_can_be_judged(store, uri):
    with pytest.raises(UndecidableError, match="models:/NAME/VERSION"):
        find_version(store.client, uri)


def test_the_latest_evaluation_counts_whole(store, name, monkeypatch):
    logged = store.logged_model(tags={"ifa.dataset_digest": DIGEST})
    now = itertools.count(1_700_000_000)
    monkeypatch.setattr(time, "time", lambda: next(now))
    store.attach(logged, {SCORE: 0.1, "ifa/health/overfitting": 0.9}, step=9)
    store.attach(logged, {SCORE: 0.8}, step=3)
    numbers = found(store, name, store.version(name, logged))
    assert numbers.metrics == {SCORE: 0.8}
    assert "latest evaluation" in numbers.problem


def test_what_is_deleted_failed_or_archived_is_no_candidate(store, name):
    versions = [store.register(name, sound_metrics()) for _ in range(4)]
    get = store.client.get_model_version
    store.client.delete_run(get(name, versions[1]).run_id)
    store.client.finalize_logged_model(found(store, name, versions[2]).model, "FAILED")
    archived = get(name, versions[3])
    archived._current_stage = "Archived"
    told = [find_obstacle(store.client, version) for version in (*(get(name, v) for v in versions[:3]), archived)]
    assert told[0] == ""
    assert [word in reason for word, reason in zip(("deleted", "failed", "archived"), told[1:], strict=True)] == [
        True
    ] * 3
