"""Run the gate for every model version that MLflow announces.

    export MLFLOW_TRACKING_URI=https://mlflow.example.org MLFLOW_TRACKING_USERNAME=... MLFLOW_TRACKING_PASSWORD=...
    export GATE_WEBHOOK_SECRET=...                      # the one given to client.create_webhook(..., secret=...)
    export GATE_MODELS=leafnet-candidates GATE_TO=leafnet GATE_POLICY=configs/gate.yaml
    gunicorn --workers 1 --pythonpath examples/gate_in_ci --bind 127.0.0.1:8080 "webhook:create_app()"

Deliveries come late, twice, in any order, or never: one is only a reason to look. The runner then reads the registry
and gates whatever has no verdict of its own yet, or passed and was not promoted; it looks when it starts, too, and
looks again, later and later, at what could not be decided.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import logging
import os
import queue
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flask import Flask, Response, request
from mlflow import MlflowClient

from lightning_ifa.errors import UndecidableError
from lightning_ifa.gate.policy import load_policy
from lightning_ifa.gate.registry import list_versions, standing_verdict
from lightning_ifa.gate.run import gate

log = logging.getLogger(__name__)

LONGEST_AGE = 300.0  # seconds; an older delivery may be a recorded one
LARGEST_BODY = 1_000_000
FIRST_RETRY, LAST_RETRY = 30.0, 3600.0  # seconds until what could not be decided is looked at again
SETTLED = ("pass", "fail")


@dataclass(frozen=True)
class Settings:
    """What to do for whom.

    Attributes:
        secret: Shared with MLflow's webhook.
        models: Registered models whose versions are judged; all others are ignored.
        policy: YAML file.
        alias: Given to a version that passes.
        to: Protected registered model to copy it to, or None.
    """

    secret: str
    models: frozenset[str]
    policy: str
    alias: str = "champion"
    to: str | None = None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Settings:
        """Read ``GATE_WEBHOOK_SECRET``, ``GATE_MODELS``, ``GATE_POLICY``, ``GATE_ALIAS`` and ``GATE_TO``."""
        return cls(
            environment["GATE_WEBHOOK_SECRET"],
            frozenset(environment["GATE_MODELS"].split(",")),
            environment["GATE_POLICY"],
            environment.get("GATE_ALIAS", "champion"),
            environment.get("GATE_TO") or None,
        )


def is_authentic(secret: str, headers: Mapping[str, str], body: bytes, now: float) -> bool:
    """Whether MLflow sent this body with our secret, not long ago."""
    delivery, sent = headers.get("X-MLflow-Delivery-Id", ""), headers.get("X-MLflow-Timestamp", "")
    signed = f"{delivery}.{sent}.".encode() + body
    expected = b"v1," + base64.b64encode(hmac.new(secret.encode(), signed, hashlib.sha256).digest())
    genuine = hmac.compare_digest(expected, headers.get("X-MLflow-Signature", "").encode())
    return genuine and sent.isdecimal() and len(sent) < 12 and abs(now - int(sent)) <= LONGEST_AGE


def announced(content: Any) -> str:
    """The registered model of a version that is announced; empty for everything else."""
    if not isinstance(content, dict) or content.get("entity") != "model_version":
        return ""
    data = content.get("data")
    return str(data.get("name", "")) if isinstance(data, dict) else ""


def gate_what_waits(name: str, settings: Settings) -> bool:
    """Judge every version of a model without a verdict of its own, or with a promotion that was cut off, oldest first.

    Returns:
        Whether nothing is left that must be looked at again.
    """
    client = MlflowClient()
    settled = True
    for version in sorted(int(v.version) for v in list_versions(client, name)):
        if standing_verdict(client, name, str(version)) in SETTLED:
            continue
        try:
            uri = f"models:/{name}/{version}"
            verdict = gate(uri, settings.policy, promote=settings.alias, to=settings.to)
            log.info("%s: %s", uri, verdict.word)
        except UndecidableError as error:
            settled = False
            log.warning("%s: could not decide, to be tried again: %s", uri, error)
    return settled


class Runner:
    """One thread, so that gates run one after the other; a model that waits already is not queued twice."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._waiting: queue.Queue[str] = queue.Queue()
        self._known: set[str] = set()
        self._failed: dict[str, int] = {}
        threading.Thread(target=self._work, name="gate", daemon=True).start()

    def put(self, name: str) -> None:
        """Have a model looked at soon."""
        if name not in self._known:
            self._known.add(name)
            self._waiting.put(name)

    def join(self) -> None:
        """Wait until nothing waits."""
        self._waiting.join()

    def _work(self) -> None:
        while True:
            name = self._waiting.get()
            self._known.discard(name)  # first: what is announced from now on is looked at again
            settled = False
            try:
                settled = gate_what_waits(name, self._settings)
            except Exception:  # a registry that is away must not end the runner
                log.exception("%s could not be looked at", name)
            finally:
                self._look_again(name, settled)
                self._waiting.task_done()

    def _look_again(self, name: str, settled: bool) -> None:
        """Put what is not settled back in a while, which doubles each time."""
        self._failed[name] = 0 if settled else self._failed.get(name, 0) + 1
        if not settled:
            timer = threading.Timer(min(LAST_RETRY, FIRST_RETRY * 2.0 ** (self._failed[name] - 1)), self.put, [name])
            timer.daemon = True
            timer.start()


def create_app(settings: Settings | None = None) -> Flask:
    """Make the web application: one route, ``POST /``."""
    settings = settings or Settings.from_environment()
    load_policy(settings.policy)  # a faulty policy should stop the start, not the first gate
    app = Flask(__name__)
    app.config["MAX_CONTENT_LENGTH"] = LARGEST_BODY
    runner = app.extensions["runner"] = Runner(settings)
    for name in sorted(settings.models):  # what was announced while nobody listened
        runner.put(name)

    @app.post("/")
    def receive() -> Response:
        if not is_authentic(settings.secret, request.headers, request.get_data(), time.time()):
            return Response("not signed by MLflow\n", 401)
        name = announced(request.get_json(silent=True))
        if name in settings.models:
            runner.put(name)
        return Response(status=202)

    return app
