"""The whole gate against a real store: verdicts written, aliases moved, and nothing where nothing may be."""

import json
import math
import multiprocessing
import os
import time

import pytest
import torch
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from registries import DIGEST, FAMILIES, WEIGHTS, policy, sound_metrics

from lightning_ifa.errors import IFAWarning, UndecidableError
from lightning_ifa.gate import registry
from lightning_ifa.gate import run as run_module
from lightning_ifa.gate.registry import standing_verdict
from lightning_ifa.gate.run import gate

SCORE = "ifa/overfitting/score"
LIMIT = {"metric": SCORE, "at_most": 0.3}
NOT_WORSE = {"metric": SCORE, "better": "lower", "vs_champion": {"abs": 0.02}}
POLICY = policy(LIMIT)
RELATIVE = policy(LIMIT, NOT_WORSE, champion={"missing": "accept"}, families=list(FAMILIES))


def model(name, version):
    return f"models:/{name}/{version}"


def judge(store, name, version, rules=POLICY, **options):
    return gate(model(name, version), rules, tracking_uri=store.uri, **options)


def test_a_pass_is_written_and_promoted(store, name):
    version = store.register(name, sound_metrics())
    verdict = judge(store, name, version, RELATIVE, promote="champion")
    assert verdict.passed
    assert store.holder(name) == version
    found = store.client.get_model_version(name, version)
    assert found.tags == {"ifa.gate": "pass", "ifa.gate.policy": RELATIVE.label, "ifa.gate.subject": verdict.subject}
    assert found.description.splitlines()[0] == "IFA gate: PASS"
    assert f"| {SCORE} | pass | 0.004 | at most 0.3 |" in found.description
    assert standing_verdict(store.client, name, version) == "pass"


def test_a_fail_is_written_and_moves_nothing(store, name):
    store.client.set_registered_model_alias(name, "champion", store.register(name, sound_metrics()))
    version = store.register(name, sound_metrics() | {SCORE: 0.31})
    verdict = judge(store, name, version, promote="champion")
    assert [check.name for check in verdict.failures] == [SCORE]
    assert store.holder(name) == "1"
    assert standing_verdict(store.client, name, version) == "fail"


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, None])
def test_what_is_no_number_fails_through_the_store(store, name, bad):
    metrics = sound_metrics() | {SCORE: bad}
    version = store.register(name, {key: value for key, value in metrics.items() if value is not None})
    assert not judge(store, name, version, promote="champion").passed
    assert store.holder(name) is None


def test_wrong_data_fails(store, name):
    version = store.register(name, sound_metrics())
    assert judge(store, name, version, policy(LIMIT, dataset_digest=DIGEST)).passed
    assert not judge(store, name, version, policy(LIMIT, dataset_digest="ffffffffffff")).passed


def test_worse_than_the_champion_fails_and_as_good_is_promoted(store, name):
    for score in (0.1, 0.15, 0.11):
        store.register(name, sound_metrics() | {SCORE: score})
    assert judge(store, name, "1", RELATIVE, promote="champion").passed
    worse = judge(store, name, "2", RELATIVE, promote="champion")
    assert "worse by 0.05, allowed 0.02" in worse.failures[0].reason
    assert store.holder(name) == "1"
    as_good = judge(store, name, "3", RELATIVE, promote="champion")
    assert as_good.champion.startswith(model(name, "1"))
    assert store.holder(name) == "3"


def test_again_changes_nothing(store, name):
    for score in (0.1, 0.11, 0.9):
        store.register(name, sound_metrics() | {SCORE: score})
    for version in "123":
        judge(store, name, version, RELATIVE, promote="champion")
    before = store.state(name)
    assert store.holder(name) == "2"
    updated = [v.last_updated_timestamp for v in store.client.search_model_versions(f"name='{name}'")]
    for version in "32":
        judge(store, name, version, RELATIVE, promote="champion")
    assert store.state(name) == before
    assert [v.last_updated_timestamp for v in store.client.search_model_versions(f"name='{name}'")] == updated


def test_a_new_verdict_replaces_the_old_one_and_keeps_the_users_words(store, name):
    version = store.register(name, sound_metrics() | {SCORE: 0.2})
    store.client.update_model_version(name, version, "Trained by *Ada*.")
    judge(store, name, version)
    judge(store, name, version, policy({"metric": SCORE, "at_most": 0.1}))
    description = store.client.get_model_version(name, version).description
    assert description.startswith("IFA gate: FAIL, 1 of 2 checks\n")
    assert description.endswith("Trained by *Ada*.\n")
    assert description.count("IFA gate: ") == 1


@pytest.mark.parametrize("score", [0.1, 0.9])
def test_dry_run_writes_nothing(store, name, score):
    version = store.register(name, sound_metrics() | {SCORE: score})
    store.name()
    before = store.state(name)
    verdict = judge(store, name, version, promote="champion", dry_run=True)
    assert verdict.passed is (score < 0.3)
    assert store.state(name) == before


def test_the_artifact_is_json_with_every_check(store, name):
    version = store.register(name, sound_metrics() | {SCORE: math.nan})
    judge(store, name, version, RELATIVE)
    run_id = store.client.get_model_version(name, version).run_id
    path = store.client.download_artifacts(run_id, f"ifa/gate/{name}-v{version}.json")
    with open(path) as file:
        content = json.load(file, parse_constant=lambda text: pytest.fail(f"{text} is no JSON"))
    assert content["verdict"] == "fail"
    assert {check["name"]: check["value"] for check in content["checks"]}[SCORE] == "nan"


def test_an_artifact_that_cannot_be_written_does_not_matter(store, name, monkeypatch):
    def refused(*_):
        raise MlflowException("403")

    version = store.register(name, sound_metrics())
    monkeypatch.setattr(MlflowClient, "log_dict", refused)
    with pytest.warns(IFAWarning, match="was not stored"):
        assert judge(store, name, version, promote="champion").passed
    assert store.holder(name) == version


@pytest.mark.parametrize(
    ("word", "order"),
    [
        ("pass", ["ifa.gate.policy", "ifa.gate.subject", "ifa.gate"]),
        ("fail", ["ifa.gate", "ifa.gate.policy", "ifa.gate.subject", "ifa.gate"]),
    ],
)
def test_nobody_ever_reads_a_pass_that_is_not_meant(store, name, monkeypatch, word, order):
    version = store.register(name, sound_metrics() | {SCORE: 0.1 if word == "pass" else 0.9})
    written, original = [], MlflowClient.set_model_version_tag

    def recorded(self, name, version, key, value):
        written.append(key)
        original(self, name, version, key, value)

    monkeypatch.setattr(MlflowClient, "set_model_version_tag", recorded)
    assert judge(store, name, version).word == word
    assert written == order


# Promotion into a protected registered model.


def test_a_passing_version_is_copied_once_and_the_copy_judged_by_its_own_name(store, name):
    protected = store.name()
    version = store.register(name, sound_metrics())
    for _ in range(2):
        assert judge(store, name, version, RELATIVE, promote="champion", to=protected).passed
    assert store.holder(protected) == "1"
    assert store.holder(name) is None
    assert len(store.client.search_model_versions(f"name='{protected}'")) == 1
    copy = store.client.get_model_version(protected, "1")
    assert copy.tags["ifa.gate.subject"].startswith(model(protected, "1") + " ")
    assert copy.description.count("IFA gate: ") == 1
    assert standing_verdict(store.client, protected, "1") == "pass"


def test_a_failing_version_is_not_copied(store, name):
    protected = store.name()
    version = store.register(name, sound_metrics() | {SCORE: 0.9})
    assert not judge(store, name, version, promote="champion", to=protected).passed
    assert not store.client.search_model_versions(f"name='{protected}'")


def test_the_protected_models_holder_is_the_champion(store, name):
    protected = store.name()
    for score in (0.1, 0.2):
        store.register(name, sound_metrics() | {SCORE: score})
    judge(store, name, "1", RELATIVE, promote="champion", to=protected)
    verdict = judge(store, name, "2", RELATIVE, promote="champion", to=protected)
    assert verdict.champion.startswith(model(protected, "1"))
    assert not verdict.passed


def test_a_copied_verdict_is_not_believed(store, name):
    version = store.register(name, sound_metrics())
    judge(store, name, version)
    other = store.name()
    with run_module.default_store(store.uri):
        store.client.copy_model_version(model(name, version), other)
    copy = store.client.get_model_version(other, "1")
    assert copy.tags["ifa.gate"] == "pass"
    assert standing_verdict(store.client, other, "1") is None


def test_a_forged_tag_without_subject_is_not_believed(store, name):
    version = store.register(name, sound_metrics() | {SCORE: 0.9})
    store.client.set_model_version_tag(name, version, "ifa.gate", "pass")
    assert standing_verdict(store.client, name, version) is None


# Undecidable: exit code 2, and nothing is written.


def test_unknown_versions_and_models_cannot_be_judged(store, name):
    for uri in (model(name, "1"), "models:/nobody/1", f"models:/{name}"):
        with pytest.raises(UndecidableError):
            gate(uri, POLICY, promote="champion", tracking_uri=store.uri)


def test_an_unreachable_server_cannot_be_asked_and_its_password_stays_secret(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    with pytest.raises(UndecidableError) as error:
        gate("models:/leafnet/1", POLICY, tracking_uri="http://me:secret@127.0.0.1:9")
    assert "secret" not in str(error.value)


def test_an_alias_that_moved_meanwhile(store, name, monkeypatch):
    first = store.register(name, sound_metrics())
    version = store.register(name, sound_metrics())
    store.client.set_registered_model_alias(name, "champion", first)
    before, decide = store.state(name)[1], run_module.decide

    def slow(*arguments):
        store.client.set_registered_model_alias(name, "champion", store.register(name, sound_metrics()))
        return decide(*arguments)

    monkeypatch.setattr(run_module, "decide", slow)
    with pytest.raises(UndecidableError, match="moved meanwhile"):
        judge(store, name, version, promote="champion")
    assert store.holder(name) == "3"
    after = store.state(name)[1]
    assert {number: after[number] for number in before} == before


def test_an_alias_that_moved_while_the_verdict_was_written(store, name, monkeypatch):
    version = store.register(name, sound_metrics())
    other = store.register(name, sound_metrics())
    write = run_module.write_verdict

    def slow(*arguments, **options):
        write(*arguments, **options)
        store.client.set_registered_model_alias(name, "champion", other)

    monkeypatch.setattr(run_module, "write_verdict", slow)
    with pytest.raises(UndecidableError, match="moved meanwhile"):
        judge(store, name, version, promote="champion")
    assert store.holder(name) == other


def test_copying_needs_an_alias(store, name):
    with pytest.raises(UndecidableError, match="promote"):
        judge(store, name, store.register(name, sound_metrics()), to="protected")


def test_the_default_store_is_given_back(store, name, monkeypatch):
    import mlflow

    version = store.register(name, sound_metrics())
    before, environment = mlflow.get_tracking_uri(), os.environ.get("MLFLOW_TRACKING_URI")
    judge(store, name, version)
    assert mlflow.get_tracking_uri() == before
    assert os.environ.get("MLFLOW_TRACKING_URI") == environment


# A new analysis instead of logged numbers.


def test_a_new_analysis_counts_instead_of_what_was_logged(store, name):
    version = store.register(name, sound_metrics())
    asked = []

    def reanalyze(uri):
        asked.append(uri)
        return {SCORE: 0.9}, DIGEST

    verdict = judge(store, name, version, reanalyze=reanalyze)
    assert not verdict.passed
    assert verdict.origin == "a new analysis by the gate"
    assert asked == [model(name, version)]


@pytest.mark.parametrize(("rules", "analysed"), [(RELATIVE, ["2", "1"]), (POLICY, ["2"])])
def test_the_champion_is_analysed_anew_where_it_is_compared_with(store, name, rules, analysed):
    asked = []

    def reanalyze(uri):
        asked.append(uri.rpartition("/")[2])
        return sound_metrics(), "ffffffffffff"

    for _ in range(2):
        store.register(name, {})
    store.client.set_registered_model_alias(name, "champion", "1")
    assert judge(store, name, "2", rules, promote="champion", reanalyze=reanalyze).passed
    assert asked == analysed


@pytest.mark.parametrize(("measured", "tampered", "passes"), [
    (WEIGHTS, False, True), ("", False, True), ("0" * 32, False, False), (WEIGHTS, True, False),
])  # fmt: skip
def test_a_new_analysis_counts_for_the_weights_that_were_recorded(store, name, measured, tampered, passes):
    logged = store.logged_model()
    if tampered:
        folder = logged.artifact_location.removeprefix("file://")
        torch.save({"weight": torch.zeros(2)}, f"{folder}/data/model.pth")
    about = {"layer": "a", "method": "hirescam", "version": "0.1.0", "weights": measured}
    verdict = judge(store, name, store.version(name, logged), reanalyze=lambda _: (sound_metrics(), DIGEST, about))
    assert verdict.passed == passes
    assert passes or "other weights" in verdict.failures[0].reason


def test_a_new_analysis_that_fails_is_no_decision(store, name):
    def reanalyze(uri):
        raise RuntimeError("unpickling failed")

    with pytest.raises(UndecidableError, match="unpickling failed"):
        judge(store, name, store.register(name, sound_metrics()), reanalyze=reanalyze)


# Two gates at once.


def work(uri, start, tasks, results):
    """A process that judges what it is told, whenever the others do."""
    while (task := tasks.get()) is not None:
        name, version, rules = task
        start.wait()
        try:
            verdict = gate(model(name, version), rules, promote="champion", tracking_uri=uri)
            results.put((version, (verdict.word, verdict.champion)))
        except UndecidableError as error:
            results.put((version, (f"undecided: {error}", None)))


@pytest.fixture(scope="module")
def raced(store):
    """Let two processes judge versions 2 and 3 at the same moment; gives what each of them said."""
    context = multiprocessing.get_context("spawn")
    start, results, tasks = context.Barrier(2), context.Queue(), [context.Queue(), context.Queue()]
    workers = [context.Process(target=work, args=(store.uri, start, queue, results)) for queue in tasks]
    for worker in workers:
        worker.start()

    def judged(name, rules):
        for version, queue in zip("23", tasks, strict=True):
            queue.put((name, version, rules))
        return dict(results.get(timeout=120) for _ in workers)

    yield judged
    for queue in tasks:
        queue.put(None)
    for worker in workers:
        worker.join(30)


def unequal(store):
    """A champion and two candidates that beat it, one of them clearly worse than the other."""
    name = store.name()
    for score in (0.25, 0.05, 0.15):
        store.register(name, sound_metrics() | {SCORE: score})
    store.client.set_registered_model_alias(name, "champion", "1")
    return name


def assert_as_if_in_turn(store, name, told):
    """Every promotion replaced the very version it was compared with, and the better one holds the alias."""
    assert all(word in ("pass", "fail") for word, _ in told.values()), told
    assert store.holder(name) == "2"
    replaced = [champion.split()[0] for word, champion in told.values() if word == "pass"]
    assert len(replaced) == len(set(replaced)), "two were promoted over the same champion"
    if told["3"][0] == "pass":
        assert told["2"][1].startswith(model(name, "3"))


MUST_BE_BETTER = policy({"metric": SCORE, "better": "lower", "vs_champion": {"abs": -0.01}})


@pytest.mark.parametrize("trials", [3, pytest.param(50, marks=pytest.mark.slow)])
def test_races_of_a_better_and_a_worse_one(store, raced, trials):
    for _ in range(trials):
        name = unequal(store)
        assert_as_if_in_turn(store, name, raced(name, RELATIVE))


@pytest.mark.parametrize("trials", [3, pytest.param(50, marks=pytest.mark.slow)])
def test_races_of_equals_that_must_be_better_promote_exactly_one(store, raced, trials):
    for _ in range(trials):
        name = store.name()
        for score in (0.25, 0.1, 0.1):
            store.register(name, sound_metrics() | {SCORE: score})
        store.client.set_registered_model_alias(name, "champion", "1")
        told = raced(name, MUST_BE_BETTER)
        assert sorted(word for word, _ in told.values()) == ["fail", "pass"]
        assert told[store.holder(name)][0] == "pass"


def test_a_gate_that_waits_too_long_decides_nothing(name):
    begun = time.monotonic()
    taken = registry.hold_alias_lock(name), pytest.raises(UndecidableError, match="another gate")
    with taken[0], taken[1], registry.hold_alias_lock(name, longest=0.2):
        pytest.fail("two gates at once")
    assert 0.2 <= time.monotonic() - begun < 5
    with registry.hold_alias_lock(name, longest=0.2):
        pass
