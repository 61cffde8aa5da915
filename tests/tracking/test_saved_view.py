"""The saved view is written in the known form only, and shows the probes that the runs have."""

from __future__ import annotations

import base64
import json
import zlib

import mlflow
import pytest
from PIL import Image

from lightning_ifa.errors import TrackingError
from lightning_ifa.tracking import saved_view as view


@pytest.fixture
def experiment(store):
    """Two runs: epochs 0 and 3 in both, epoch 7 in one."""
    client = mlflow.MlflowClient(store)
    name = client.create_experiment("x")
    for epochs in ((0, 3), (0, 3, 7)):
        run = client.create_run(name).info.run_id
        for epoch in epochs:
            for probe in ("b", "a"):
                client.log_image(run, Image.new("RGB", (4, 4)), key=f"ifa/xai/{probe}", step=epoch)
    return client, name


def saved(client, name):
    content = json.loads(client.get_experiment(name).tags[view.TAG])
    kind, _, packed = content["state"].partition(";")
    assert kind == "deflate"
    return json.loads(zlib.decompress(base64.b64decode(packed)))


def test_view_shows_the_probes_of_the_latest_shared_epoch(experiment):
    address = view.install_view(*experiment)
    assert "viewStateShareKey=lightning-ifa" in address
    state = saved(*experiment)
    (images,) = [chart for chart in state["compareRunCharts"] if chart["type"] == "IMAGE"]
    assert images["imageKeys"] == ["ifa/xai/a", "ifa/xai/b"]
    assert images["step"] == 3
    sections = {section["uuid"] for section in state["compareRunSections"]}
    assert {chart["metricSectionId"] for chart in state["compareRunCharts"]} == sections
    assert len(experiment[0].get_experiment(experiment[1]).tags[view.TAG]) < 20_000


def opens_on(client, name):
    (grid,) = [chart for chart in saved(client, name)["compareRunCharts"] if chart["type"] == "IMAGE"]
    return grid["imageKeys"], grid["step"]


def test_the_view_moves_on_to_the_latest_epoch_that_ended_runs_share(experiment):
    client, name = experiment
    runs = [run.info.run_id for run in client.search_runs([name])]
    longer, shorter = sorted(runs, key=lambda run_id: -len(client.list_artifacts(run_id, "images")))
    assert not view.refresh_view(client, longer)  # there is none yet
    assert view.install_view_once(client, longer, view.ViewWish(["ifa/xai/a", "ifa/xai/b"], 0))
    assert view.refresh_view(client, longer)
    assert opens_on(*experiment) == (["ifa/xai/a", "ifa/xai/b"], 7)  # the shorter one may have broken off
    client.set_terminated(longer)
    assert view.refresh_view(client, shorter)
    assert opens_on(*experiment)[1] == 3


def test_a_view_that_a_user_changed_stays(experiment):
    client, name = experiment
    view.install_view(client, name)
    content = json.loads(client.get_experiment(name).tags[view.TAG])
    state = saved(client, name) | {"searchFilter": "metrics.x > 1"}
    packed = base64.b64encode(zlib.compress(json.dumps(state).encode())).decode()
    run_id = client.search_runs([name])[0].info.run_id
    for changed in (json.dumps(content | {"state": f"deflate;{packed}"}), "no JSON", "{}"):
        client.set_experiment_tag(name, view.TAG, changed)
        assert not view.refresh_view(client, run_id)
        assert client.get_experiment(name).tags[view.TAG] == changed


def test_probes_stand_in_their_order():
    assert view._sort_probes(["x/10", "x/2", "x/1"]) == ["x/1", "x/2", "x/10"]


def test_an_experiment_without_pictures_gets_no_grid(store):
    client = mlflow.MlflowClient(store)
    name = client.create_experiment("x")
    view.install_view(client, name)
    assert "IMAGE" not in {chart["type"] for chart in saved(client, name)["compareRunCharts"]}


def test_a_version_without_views_is_left_alone_and_a_newer_one_gets_a_plain_view(experiment, monkeypatch):
    monkeypatch.setattr(view, "installed", "3.14.0")
    with pytest.raises(TrackingError, match="nothing was changed"):
        view.install_view(*experiment)
    assert view.TAG not in experiment[0].get_experiment(experiment[1]).tags
    monkeypatch.setattr(view, "installed", "3.18.0")
    view.install_view(*experiment)
    assert "compareRunCharts" not in saved(*experiment)
    assert "metrics.`ifa/health/overfitting`" in saved(*experiment)["selectedColumns"]


def test_health_charts_have_short_names_and_one_axis(experiment):
    view.install_view(*experiment)
    charts = [chart for chart in saved(*experiment)["compareRunCharts"] if chart["metricSectionId"] == "health"]
    assert all(len(chart["displayName"]) <= 12 for chart in charts)
    assert all((chart["range"]["yMin"], chart["range"]["yMax"]) == (0, 1) for chart in charts)


def test_server_that_is_away():
    with pytest.raises(TrackingError, match="does not tell its version"):
        view._server_version("http://127.0.0.1:9")
