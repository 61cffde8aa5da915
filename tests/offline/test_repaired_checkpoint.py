"""``lightning-ifa repair``: new weights beside the old, compared, gated, logged as a child of the run."""

from __future__ import annotations

import confounded as made
import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from mlflow import MlflowClient

from lightning_ifa.cli import main

POLICY = """
name: repaired
version: "1"
families: [confounding]
checks:
  - metric: ifa/confounding/score
    at_most: 0.5
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("repair")
    torch.save(made.state(), folder / "weights.pt")
    return folder


def run(folder, *more):
    ways = ["--checkpoint", str(folder / "weights.pt"), "--model", "confounded:network", "--data", "confounded:both"]
    return CliRunner().invoke(main, ["repair", *ways, "--suspect", "tag", "--cost", "0.1", *more])


def test_a_repair_is_written_compared_and_logged_as_a_child(folder):
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    client = MlflowClient(uri)
    parent = client.create_run(client.create_experiment("e", str(folder / "artifacts"))).info.run_id
    before, policy = (folder / "weights.pt").read_bytes(), folder / "gate.yaml"
    policy.write_text(POLICY)
    ways = ["--policy", str(policy), "--run-id", parent, "--tracking-uri", uri]
    found = run(folder, "--output", str(folder / "out"), *ways)
    assert found.exit_code == 0, found.output
    assert found.output.startswith("The features still give")
    assert "repaired compared to original" in found.output
    assert "ifa/confounding/score" in found.output  # the gate's check
    assert (folder / "weights.pt").read_bytes() == before
    state = torch.load(folder / "out" / "repaired.pt", weights_only=True)
    assert {name for name in state if not torch.equal(state[name], made.state()[name])} == {"4.weight", "4.bias"}
    assert "conflicting" in set(pd.read_csv(folder / "out" / "ifa_repair.csv")["samples"])
    (child,) = client.search_runs(["0", "1"], f"tags.mlflow.parentRunId = '{parent}'")
    assert child.data.tags["ifa.repair.suspect"] == "tag"
    assert "ifa/confounding/score" in child.data.metrics
    files = {file.path for file in client.list_artifacts(child.info.run_id)}
    assert {"repaired.pt", "ifa_repair.csv", "ifa_report.html", "ifa_compare.html"} <= files
    again = run(folder, "--output", str(folder / "out"))
    assert again.exit_code == 2
    assert "nothing is overwritten" in again.output
