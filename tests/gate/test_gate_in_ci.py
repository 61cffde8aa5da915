"""The examples around the gate: the workflow's own command runs, the webhook runner trusts nobody."""

import base64
import hashlib
import hmac
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import mlflow
import pytest
import torch
import yaml

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "examples" / "gate_in_ci"))

import webhook  # noqa: E402
from registries import Store, sound_metrics  # noqa: E402
from seal import seal  # noqa: E402

from lightning_ifa.errors import IFAError  # noqa: E402
from lightning_ifa.gate.registry import standing_verdict  # noqa: E402
from lightning_ifa.offline.reanalysis import load_weights_only  # noqa: E402
from lightning_ifa.tracking.store import default_store  # noqa: E402

SECRET = "a shared secret"


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    found = Store(tmp_path_factory.mktemp("ci"))
    with default_store(found.uri):
        yield found


@pytest.fixture
def name(registry):
    return registry.name()


# The workflow.


@pytest.fixture(scope="module")
def workflow():
    return yaml.safe_load((ROOT / "examples" / "gate_in_ci" / "gate.yml").read_text())


def test_gates_of_one_model_run_in_turn_and_none_is_dropped(workflow):
    assert workflow["concurrency"] == {"group": "gate-${{ inputs.model }}", "cancel-in-progress": False, "queue": "max"}


def test_no_input_or_secret_is_pasted_into_a_script(workflow):
    scripts = [step["run"] for job in workflow["jobs"].values() for step in job["steps"] if "run" in step]
    assert scripts
    assert not any("${{" in script for script in scripts)


@pytest.mark.parametrize(("health", "code"), [(0.9, 0), (0.4, 1)])
def test_the_workflows_command_runs(workflow, registry, name, tmp_path, health, code):
    version = registry.register(name, sound_metrics() | {"ifa/health/outliers": health})
    (script,) = [step["run"] for step in workflow["jobs"]["gate"]["steps"] if step.get("name") == "Gate"]
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    command = tmp_path / "lightning-ifa"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m lightning_ifa.cli "$@"\n')
    command.chmod(0o755)
    environment = os.environ | {
        "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "MLFLOW_TRACKING_URI": registry.uri,
        "MODEL": name,
        "VERSION": version,
    }
    done = subprocess.run(["bash", "-e", "-c", script], cwd=tmp_path, env=environment, capture_output=True, timeout=120)
    assert done.returncode == code, done.stderr
    assert registry.holder(name) == (version if code == 0 else None)
    assert {path.name for path in tmp_path.glob("gate-*")} == {"gate-junit.xml", "gate-verdict.json"}


# The webhook runner.


@pytest.fixture
def app(name):
    settings = webhook.Settings(SECRET, frozenset({name}), str(ROOT / "configs" / "gate.yaml"))
    return webhook.create_app(settings)


def delivered(app, body, secret=SECRET, sent=None, signature=None):
    sent = str(int(time.time()) if sent is None else sent)
    signed = hmac.new(secret.encode(), f"delivery-1.{sent}.".encode() + body, hashlib.sha256).digest()
    headers = {
        "X-MLflow-Delivery-Id": "delivery-1",
        "X-MLflow-Timestamp": sent,
        "X-MLflow-Signature": signature or "v1," + base64.b64encode(signed).decode(),
        "Content-Type": "application/json",
    }
    answer = app.test_client().post("/", data=body, headers=headers)
    app.extensions["runner"].join()
    return answer.status_code


def created(name, version="1"):
    data = {"name": name, "version": version}
    return json.dumps({"entity": "model_version", "action": "created", "data": data}).encode()


def test_a_delivery_lets_every_version_without_verdict_be_judged_once(app, registry, name, monkeypatch):
    registry.register(name, sound_metrics())
    registry.register(name, sound_metrics() | {"ifa/health/outliers": 0.4})
    assert delivered(app, created(name, "2")) == 202
    assert [standing_verdict(registry.client, name, version) for version in "12"] == ["pass", "fail"]
    assert registry.holder(name) == "1"
    monkeypatch.setattr(webhook, "gate", lambda *_, **__: pytest.fail("judged twice"))
    before = registry.state(name)
    for _ in range(3):
        assert delivered(app, created(name, "1")) == 202
    assert registry.state(name) == before


@pytest.mark.parametrize(
    "wrong",
    [
        {"secret": "another secret"},
        {"sent": 1_000_000_000},
        {"sent": 9_000_000_000},
        {"sent": "now"},
        {"signature": "v1,"},
        {"signature": "none"},
        {"signature": "v1,\xfc"},
    ],
)
def test_what_mlflow_did_not_sign_just_now_is_refused(app, registry, name, wrong):
    registry.register(name, sound_metrics())
    assert delivered(app, created(name), **wrong) == 401
    assert standing_verdict(registry.client, name, "1") is None


def test_a_changed_body_is_refused(name):
    sent = str(int(time.time()))
    signed = hmac.new(SECRET.encode(), f"d.{sent}.".encode() + created(name), hashlib.sha256).digest()
    headers = {"X-MLflow-Delivery-Id": "d", "X-MLflow-Timestamp": sent}
    headers["X-MLflow-Signature"] = "v1," + base64.b64encode(signed).decode()
    assert webhook.is_authentic(SECRET, headers, created(name), time.time())
    assert not webhook.is_authentic(SECRET, headers, created(name) + b" ", time.time())
    assert not webhook.is_authentic(SECRET, {}, created(name), time.time())


@pytest.mark.parametrize("body", [b"", b"[]", b'"x"', b'{"entity": "model_version", "data": null}', b"{}"])
def test_signed_nonsense_does_nothing(app, body):
    assert delivered(app, body) == 202


def test_other_models_are_none_of_its_business(app, registry, name):
    other = registry.name()
    registry.register(other, sound_metrics())
    assert delivered(app, created(other)) == 202
    assert standing_verdict(registry.client, other, "1") is None


def test_a_version_that_could_not_be_decided_is_tried_again(app, registry, name, monkeypatch):
    registry.register(name, sound_metrics())

    def undecided(*_, **__):
        raise webhook.UndecidableError("away")

    with monkeypatch.context() as patch:
        patch.setattr(webhook, "gate", undecided)
        assert delivered(app, created(name)) == 202
    assert standing_verdict(registry.client, name, "1") is None
    assert delivered(app, created(name)) == 202
    assert standing_verdict(registry.client, name, "1") == "pass"


def test_settings_come_from_the_environment():
    environment = {"GATE_WEBHOOK_SECRET": "s", "GATE_MODELS": "a,b", "GATE_POLICY": "p.yaml", "GATE_TO": ""}
    assert webhook.Settings.from_environment(environment) == webhook.Settings("s", frozenset("ab"), "p.yaml")


# Sealing.


def test_a_sealed_version_has_files_of_its_own(registry, name, tmp_path):
    (tmp_path / "weights.txt").write_text("honest")
    logged = registry.logged_model()
    registry.client.log_model_artifacts(logged.model_id, str(tmp_path))
    registry.client.finalize_logged_model(logged.model_id, "READY")
    version = registry.version(name, logged)
    sealed_experiment = registry.client.create_experiment(f"sealed-{name}", (tmp_path / "sealed").as_uri())
    assert sealed_experiment
    protected = registry.name()
    assert seal(f"models:/{name}/{version}", protected, f"sealed-{name}") == f"models:/{protected}/1"
    (tmp_path / "weights.txt").write_text("swapped")
    registry.client.log_model_artifacts(logged.model_id, str(tmp_path))
    kept = mlflow.artifacts.download_artifacts(f"models:/{protected}/1", dst_path=str(tmp_path / "kept"))
    assert (Path(kept) / "weights.txt").read_text() == "honest"


@pytest.fixture
def candidate(registry, name, tmp_path):
    """A registered version whose file holds these weights, and code that must not run."""

    def register(state):
        files = tmp_path / "files"
        (files / "data").mkdir(parents=True, exist_ok=True)
        torch.save(state, files / "data" / "model.pth")
        logged = registry.client.create_logged_model(registry.experiment, "model", registry.run())
        registry.client.log_model_artifacts(logged.model_id, str(files))
        return f"models:/{name}/{registry.version(name, logged)}"

    (tmp_path / "sealed_nets.py").write_text("import torch\n\ndef net():\n    return torch.nn.Linear(2, 1)\n")
    registry.client.create_experiment(f"own-{name}", (tmp_path / "own").as_uri())
    return register


class Code:
    """Pickled code of the candidate."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


def test_sealing_weights_alone_takes_numbers_and_nothing_else(candidate, registry, name, tmp_path):
    uri, protected = candidate({"weight": torch.full((1, 2), 3.0), "bias": torch.ones(1)}), registry.name()
    sealed = seal(uri, protected, f"own-{name}", "sealed_nets:net")
    assert sealed == f"models:/{protected}/1"
    files = mlflow.artifacts.download_artifacts(sealed, dst_path=str(tmp_path / "kept"))
    loaded = load_weights_only(files, "sealed_nets:net")
    assert loaded.weight.tolist() == [[3.0, 3.0]]
    assert isinstance(mlflow.pytorch.load_model(sealed), torch.nn.Linear)


@pytest.mark.parametrize("kind", ["code", "another form", "not finite"])
def test_what_cannot_be_sealed_leaves_no_version(candidate, registry, name, tmp_path, kind):
    mark = tmp_path / "ran"
    state = {"code": Code(mark), "another form": {"weight": torch.ones(5)},
             "not finite": {"weight": torch.full((1, 2), float("nan")), "bias": torch.ones(1)}}[kind]  # fmt: skip
    protected = registry.name()
    with pytest.raises(IFAError):
        seal(candidate(state), protected, f"own-{name}", "sealed_nets:net")
    assert not mark.exists()
    assert registry.client.search_model_versions(f"name='{protected}'") == []
    experiment = registry.client.get_experiment_by_name(f"own-{name}").experiment_id
    assert [run.info.status for run in registry.client.search_runs([experiment])] == []
