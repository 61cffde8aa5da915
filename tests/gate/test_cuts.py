"""Whatever request is refused, cut or answered to nobody: the exit code is true, the next run completes the work."""

import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from registries import Store, sound_metrics
from servers import Proxy, Server

from lightning_ifa.cli import main
from lightning_ifa.gate.registry import NOT_PROMOTED, standing_verdict
from lightning_ifa.tracking.store import default_store

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "examples" / "gate_in_ci"))

import webhook  # noqa: E402

REQUESTS = ("gate", "promote", "to")
WRITES = (
    "set_model_version_tag", "update_model_version", "log_dict", "copy_model_version", "set_registered_model_alias",
)  # fmt: skip


def order(uri, name, request, protected):
    wanted = {"gate": [], "promote": ["--promote", "champion"], "to": ["--promote", "champion", "--to", protected]}
    policy = str(ROOT / "configs" / "gate.yaml")
    command = ["gate", f"models:/{name}/1", "--policy", policy, "--tracking-uri", uri, *wanted[request]]
    return CliRunner().invoke(main, command).exit_code


def assert_complete(store, name, request, protected):
    """Verdict and alias are as after a run that nothing disturbed."""
    where = protected if request == "to" else name
    assert store.holder(where) == (None if request == "gate" else "1")
    for model in {name, where}:
        assert standing_verdict(store.client, model, "1") == "pass"
        assert len(store.client.search_model_versions(f"name='{model}'")) == 1
        description = store.client.get_model_version(model, "1").description
        assert description.startswith("IFA gate: PASS\n")
        assert description.count("IFA gate: ") == 1


def check(store, uri, request, disturb, calm):
    name, protected = store.name(), store.name()
    store.register(name, sound_metrics())
    disturb()
    code = order(uri, name, request, protected)
    calm()
    assert code in (0, 2)  # a sound model is never refused
    if code == 0:
        assert_complete(store, name, request, protected)
    elif request != "gate" and store.holder(protected if request == "to" else name) is None:
        assert standing_verdict(store.client, name, "1") in (None, NOT_PROMOTED)
    assert order(uri, name, request, protected) == 0
    assert_complete(store, name, request, protected)


@pytest.mark.parametrize("carried_out", [False, True])
@pytest.mark.parametrize(("request_", "method"), [("promote", WRITES[0]), ("promote", WRITES[4]), ("to", WRITES[3])])
def test_a_write_that_fails_is_made_up_for(store, monkeypatch, request_, method, carried_out):
    original = getattr(MlflowClient, method)

    def failing(self, *arguments, **options):
        monkeypatch.setattr(MlflowClient, method, original)
        if carried_out:
            original(self, *arguments, **options)
        raise MlflowException("cut")

    check(store, store.uri, request_, lambda: monkeypatch.setattr(MlflowClient, method, failing), lambda: None)


def test_the_webhook_promotes_what_was_cut_off(store, name, monkeypatch):
    store.register(name, sound_metrics())

    def refused(*_):
        raise MlflowException("cut")

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "set_registered_model_alias", refused)
        assert order(store.uri, name, "promote", "") == 2
    assert standing_verdict(store.client, name, "1") == NOT_PROMOTED
    with default_store(store.uri):
        settings = webhook.Settings("s", frozenset({name}), str(ROOT / "configs" / "gate.yaml"))
        assert webhook.gate_what_waits(name, settings)
    assert_complete(store, name, "promote", "")


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    store = Store(folder)
    (folder / "server.db").symlink_to("mlflow.db")
    server = Server(folder).start()
    proxy = Proxy(server.port)
    yield store, proxy
    proxy.close()
    server.kill()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["500", "cut", "cut after"])
@pytest.mark.parametrize("request_", REQUESTS)
def test_every_request_to_a_real_server(served, monkeypatch, request_, kind):
    store, proxy = served
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    check(store, proxy.uri, request_, proxy.reset, lambda: None)
    proxy.reset()
    name, protected = store.name(), store.name()
    store.register(name, sound_metrics())
    assert order(proxy.uri, name, request_, protected) == 0
    requests = len(proxy.seen)
    print(f"{request_}, {kind}: {requests} requests")
    for chosen in range(1, requests + 1):

        def disturb(chosen=chosen):
            proxy.reset()
            if kind == "500":
                proxy.fails = lambda number: number == chosen
            else:
                proxy.dies, proxy.half_way = lambda number: number == chosen, kind == "cut after"

        check(store, proxy.uri, request_, disturb, proxy.reset)


@pytest.mark.slow
@pytest.mark.parametrize("carried_out", [False, True])
def test_the_webhook_completes_every_cut_of_a_real_server(served, monkeypatch, carried_out):
    """A delivery reaches the runner, any one request of its gate is cut: the runner looks again by itself."""
    store, proxy = served
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setattr(webhook, "FIRST_RETRY", 0.1)
    requests = 1
    with default_store(proxy.uri):
        chosen = 0
        while chosen <= requests:  # the first turn is undisturbed, and counts them
            name = store.name()
            store.register(name, sound_metrics())
            proxy.reset()
            proxy.dies, proxy.half_way = lambda number, chosen=chosen: number == chosen, carried_out
            runner = webhook.Runner(webhook.Settings("s", frozenset({name}), str(ROOT / "configs" / "gate.yaml")))
            runner.put(name)
            deadline = time.monotonic() + 60
            while standing_verdict(store.client, name, "1") != "pass" and time.monotonic() < deadline:
                time.sleep(0.1)
            runner.join()
            assert_complete(store, name, "promote", "")
            requests = requests if chosen else len(proxy.seen)
            chosen += 1
    print(f"webhook, {'cut after' if carried_out else 'cut'}: {requests} requests")
