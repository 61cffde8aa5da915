"""What a gate's decision takes beyond MLflow's client.

    PYTHONPATH=. python benchmarks/gate.py

Processes that import the client and ask it for the version and its logged model, which nothing that asks a registry can
do without, alternate with processes that decide; the registry is a SQLite file, which the client opens itself, and a
real ``mlflow server`` on loopback.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "helpers"))

import numpy as np
from registries import Store, sound_metrics
from servers import Server

ROOT = Path(__file__).resolve().parents[1]

CLIENT = """
import json, time
began = time.perf_counter()
from mlflow import MlflowClient
client = MlflowClient()
client.get_logged_model(client.get_model_version("leafnet", "1").source.removeprefix("models:/"))
print(json.dumps([time.perf_counter() - began, time.process_time()]))
"""

DECISION = """
import json, time
began = time.perf_counter()
from mlflow import MlflowClient
from lightning_ifa.cli import main
try:
    main(["gate", "models:/leafnet/1", "--policy", "configs/gate.yaml", "--dry-run"])
except SystemExit as end:
    assert end.code == 0
import sys
assert "torch" not in sys.modules
print(json.dumps([time.perf_counter() - began, time.process_time()]))
"""


def timed(code: str, uri: str) -> list[float]:
    """Seconds and CPU seconds of a process of its own."""
    environment = os.environ | {"MLFLOW_TRACKING_URI": uri, "MLFLOW_DISABLE_TELEMETRY": "true"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=True)  # noqa: S603
    return json.loads(done.stdout.splitlines()[-1])


def report(name: str, uri: str, rounds: int) -> None:
    """Print what the decision takes beyond the client, median and range of the rounds."""
    taken = np.array([[timed(code, uri) for code in (CLIENT, DECISION)] for _ in range(rounds)])
    beyond = taken[:, 1] - taken[:, 0]
    (seconds, cpu), low, high = np.median(beyond, axis=0), beyond.min(axis=0), beyond.max(axis=0)
    print(
        f"{name}: a decision takes {seconds:.2f} s ({low[0]:.2f} to {high[0]:.2f}) and {cpu:.2f} CPU s "
        f"({low[1]:.2f} to {high[1]:.2f}) beyond MLflow's client, which takes {np.median(taken[:, 0, 0]):.2f} s",
        flush=True,
    )


def main() -> None:
    """Register a sound model in a store and have it judged there, and through a server on the same store."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        store = Store(Path(folder))
        store.client.create_registered_model("leafnet")
        store.register("leafnet", sound_metrics())
        report("SQLite", store.uri, options.rounds)
        os.rename(Path(folder) / "mlflow.db", Path(folder) / "server.db")
        server = Server(Path(folder)).start()
        try:
            report("server", server.uri, options.rounds)
        finally:
            server.kill()


if __name__ == "__main__":
    main()
