"""The pictures of README and docs, taken from a finished demo; called by ``scripts/pictures``.

scripts/pictures                    # trains the demo first
scripts/pictures --folder runs      # takes the pictures of an earlier one
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import requests
from chromium import browser
from mlflow import MlflowClient
from PIL import Image

from lightning_ifa.tracking.saved_view import install_view

DOCS = Path(__file__).resolve().parents[1] / "docs"
EXPERIMENT, PORT = "ifa-mnist", 5011
MOST_BYTES = 300_000

ALARMS = {"alarm_overfitting.png": ("overfitted-0", "ifa_features.png"),
          "alarm_confounding.png": ("confounded-0", "ifa_gallery.png")}  # fmt: skip
"""Picture to the run and the artifact that it is."""


def main() -> None:
    """Train if asked to, serve, look, save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--folder", type=Path, help="of a finished demo")
    folder = parser.parse_args().folder
    if folder is None:
        folder = Path(tempfile.mkdtemp(prefix="ifa-pictures-"))
        subprocess.run([sys.executable, "examples/mnist_three_runs.py", "--folder", str(folder)], check=True)
    save(Image.open(folder / "three_runs.png"), DOCS / "three_runs.png")
    store = f"sqlite:///{folder.resolve() / 'mlflow.db'}"
    client = MlflowClient(store)
    save_alarms(client)
    address = install_view(client, client.get_experiment_by_name(EXPERIMENT).experiment_id)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        shot = Path(profile) / "view.png"
        photograph(store, address, shot)
        save(Image.open(shot), DOCS / "mlflow_view.png")


def save_alarms(client: MlflowClient) -> None:
    """Save what an alarm looks like, from the runs that have one."""
    experiment = client.get_experiment_by_name(EXPERIMENT).experiment_id
    for name, (run_name, artifact) in ALARMS.items():
        run, *_ = client.search_runs([experiment], f"tags.mlflow.runName = '{run_name}'")
        with tempfile.TemporaryDirectory() as folder:
            save(Image.open(client.download_artifacts(run.info.run_id, artifact, folder)), DOCS / name)


def photograph(store: str, address: str, path: Path) -> None:
    """Serve a store and save what MLflow shows at an address."""
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "server",
        "--backend-store-uri",
        store,
        "--port",
        str(PORT),
        "--workers",
        "1",
    ]
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    server = subprocess.Popen(command, env=os.environ | quiet, start_new_session=True)
    try:
        while not answers():
            time.sleep(0.5)
        with browser(path.parent) as page:
            page.run_first(
                "try { localStorage.setItem('mlflow.workflowType_v1', '\"machine_learning\"');"
                " localStorage.setItem('mlflow.assistant.panelOpen_v1', 'false');"
                " localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true') } catch {}"
            )
            page.resize(1400, 1700)
            page.open(f"http://127.0.0.1:{PORT}/{address}")
            page.wait_for("[...document.images].filter((i) => i.src.includes('ifa~xai~') && i.naturalWidth).length > 5",
                          "probe images")  # fmt: skip
            page.wait_for("document.querySelectorAll('.scatterlayer .trace').length >= 15", "five charts of three runs")
            page.screenshot(path, 1400, 1700)
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def answers() -> bool:
    """Whether the server is there."""
    try:
        return requests.get(f"http://127.0.0.1:{PORT}/health", timeout=5).ok
    except requests.RequestException:
        return False


def save(image: Image.Image, path: Path) -> None:
    """Save a picture, with fewer colours only where it is above its limit of bytes."""
    image.convert("RGB").save(path, optimize=True)
    if path.stat().st_size <= MOST_BYTES:
        return
    for colours in (256, 128, 64, 32):
        image.convert("RGB").quantize(colours).save(path, optimize=True)
        if path.stat().st_size <= MOST_BYTES:
            return


if __name__ == "__main__":
    main()
