"""A saved view of an experiment: health and scores of its runs, and the same probes side by side.

MLflow keeps saved views as experiment tags since 3.15. Their format is internal, so a version on which it was not tried
gets a plain view: columns in their order, and no chart that it might draw in another way.
"""

from __future__ import annotations

import base64
import json
import logging
import re
import time
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import requests
from mlflow import MlflowClient
from mlflow import __version__ as installed
from mlflow.entities import Experiment
from mlflow.exceptions import MlflowException
from packaging.version import Version

from lightning_ifa.errors import TrackingError
from lightning_ifa.indicators import registry
from lightning_ifa.tracking.failures import ANSWERS_WITHIN, ask, describe_failure
from lightning_ifa.tracking.names import is_server

log = logging.getLogger(__name__)
FIRST_WITH_VIEWS, FIRST_UNKNOWN = Version("3.15"), Version("3.18")
VIEW_ID = "lightning-ifa"
TAG = f"mlflow.sharedViewState.{VIEW_ID}"
IMAGE_NAME = re.compile(r"(?P<key>ifa~xai~[^+]+)\+step\+(?P<epoch>\d+)\+")
MOST_PROBES, MOST_RUNS = 8, 10


def install_view(client: MlflowClient, experiment_id: str) -> str:
    """Save the view in an experiment, in place of an earlier one, and give its address, as ``address_of`` does.

    Raises:
        TrackingError: The server's MLflow keeps saved views in a form that is not known.
    """
    _save(client, experiment_id, *_find_probes(client, experiment_id))
    return address_of(experiment_id)


def address_of(experiment_id: str) -> str:
    """Give the view's address, to be put behind the server's; MLflow's pages for training, not those for traces."""
    where = f"#/experiments/{experiment_id}/runs?viewStateShareKey={VIEW_ID}"
    return f"{where}&compareRunsMode=CHART&workflowType=machine_learning"


@dataclass(frozen=True)
class ViewWish:
    """The view that an experiment is to have, unless it has one.

    Attributes:
        probes: Image keys of the run's probes.
        epoch: Epoch that the image grid opens on.
    """

    probes: list[str]
    epoch: int


def fulfil(client: MlflowClient, run_id: str, wish: ViewWish) -> None:
    """Save a view in a run's experiment, once; one that the server does not want stops nothing.

    Raises:
        TrackingError: The server went away; whoever asks again may have the view.
        MlflowException: Likewise.
    """
    with _unless_unwanted():
        install_view_once(client, run_id, wish)


def show_end(client: MlflowClient, run_id: str) -> None:
    """Let the view, if there is one, open on the latest pictures of a run that has ended.

    Raises:
        MlflowException: The server went away.
    """
    with _unless_unwanted():
        refresh_view(client, run_id)


@contextmanager
def _unless_unwanted() -> Iterator[None]:
    try:
        yield
    except (TrackingError, MlflowException) as error:
        cause = error.__cause__ if isinstance(error, TrackingError) else error
        status = getattr(getattr(cause, "response", None), "status_code", None)
        if isinstance(error, MlflowException):
            status = error.get_http_status_code()  # type: ignore[no-untyped-call]
        if (isinstance(cause, requests.RequestException) and status is None) or (status or 0) >= 500:
            raise
        log.info("no saved view: %s", describe_failure(error))


def install_view_once(client: MlflowClient, run_id: str, wish: ViewWish) -> bool:
    """Save the view in a run's experiment unless it has one already, be it one that a user changed.

    Returns:
        Whether the view was saved.

    Raises:
        TrackingError: The server's MLflow keeps saved views in a form that is not known.
        MlflowException: The server refused, or was not reached.
    """
    experiment = _experiment_of(client, run_id)
    if TAG in experiment.tags:
        return False
    _save(client, experiment.experiment_id, _sort_probes(wish.probes), wish.epoch)
    return True


def refresh_view(client: MlflowClient, run_id: str) -> bool:
    """Let the view open on the latest epoch that the experiment's newest runs all have pictures of.

    To be called when a training ends; the last epoch's pictures are there then. A view that a user changed stays.

    Returns:
        Whether there was a view that no user changed.

    Raises:
        MlflowException: The server refused, or was not reached.
    """
    experiment = _experiment_of(client, run_id)
    shown = _unpack(experiment.tags.get(TAG, ""))
    if shown is None:
        return False
    found = _find_probes(client, experiment.experiment_id, run_id)
    if found != shown:
        _save(client, experiment.experiment_id, *found)
    return True


def show_latest(uri: str, run_id: str) -> None:
    """Let the view open on a run's latest pictures, if there is one; a view that cannot be saved stops nothing."""
    try:
        refresh_view(MlflowClient(uri), run_id)
    except Exception as error:  # pictures are listed, and each store of artifacts has errors of its own
        log.info("no saved view: %s", describe_failure(error))


def _experiment_of(client: MlflowClient, run_id: str) -> Experiment:
    return client.get_experiment(client.get_run(run_id).info.experiment_id)


def _knows_charts(client: MlflowClient) -> bool:
    """Whether the form of charts in the server's saved views is known.

    Raises:
        TrackingError: The server's MLflow has no saved views, or does not tell its version.
    """
    version = _server_version(client.tracking_uri)
    if version < FIRST_WITH_VIEWS:
        raise TrackingError(
            f"the server runs MLflow {version}, which has no saved views; they begin with {FIRST_WITH_VIEWS}, so "
            "nothing was changed"
        )
    return version < FIRST_UNKNOWN


def _save(client: MlflowClient, experiment_id: str, probes: list[str], epoch: int) -> None:
    now = int(time.time() * 1000)
    state = _state(probes, epoch) if _knows_charts(client) else _plain_state()
    packed = base64.b64encode(zlib.compress(json.dumps(state).encode())).decode()
    view = {"name": "Feature analysis", "createdAt": now, "updatedAt": now, "state": f"deflate;{packed}"}
    client.set_experiment_tag(experiment_id, TAG, json.dumps(view))


def _server_version(uri: str) -> Version:
    if not is_server(uri):
        return Version(installed)
    try:
        answer = ask(uri, "/version", ANSWERS_WITHIN)
        answer.raise_for_status()
        return Version(answer.text.strip())
    except (requests.RequestException, ValueError) as error:
        raise TrackingError(f"the tracking server does not tell its version: {type(error).__name__}") from error


def _find_probes(client: MlflowClient, experiment_id: str, ending: str = "") -> tuple[list[str], int]:
    """Find the probes' image keys, and the latest epoch that most of the newest ended runs have pictures of."""
    keys: set[str] = set()
    epochs: Counter[int] = Counter()
    for run_id in _newest_runs(client, experiment_id, ending):
        names = [file.path.rpartition("/")[2] for file in client.list_artifacts(run_id, "images")]
        found = [match for name in names if (match := IMAGE_NAME.match(name))]
        keys |= {match["key"].replace("~", "/") for match in found}
        epochs.update({int(match["epoch"]) for match in found})
    shared = [epoch for epoch, count in epochs.items() if count == max(epochs.values())]
    return _sort_probes(keys), max(shared, default=0)


def _newest_runs(client: MlflowClient, experiment_id: str, ending: str) -> list[str]:
    """Find runs that have ended, or are about to; one that broke off would keep all others at its last epoch."""
    found = client.search_runs([experiment_id], "attributes.status = 'FINISHED'", max_results=MOST_RUNS)
    ended = [run.info.run_id for run in found if run.info.run_id != ending]
    if ending or ended:
        return [*filter(None, [ending]), *ended][:MOST_RUNS]
    return [run.info.run_id for run in client.search_runs([experiment_id], max_results=MOST_RUNS)]


def _sort_probes(keys: Iterable[str]) -> list[str]:
    """Give the first probes, 2 before 10."""
    return sorted(keys, key=lambda key: [(len(part), part) for part in re.split(r"(\d+)", key)])[:MOST_PROBES]


def _unpack(tag: str) -> tuple[list[str], int] | None:
    """Read image keys and epoch from our saved view; None where there is none, or a user changed it."""
    try:
        kind, _, packed = json.loads(tag)["state"].partition(";")
        state = json.loads(zlib.decompress(base64.b64decode(packed))) if kind == "deflate" else {}
        grids = [(chart["imageKeys"], chart["step"]) for chart in state["compareRunCharts"] if chart["type"] == "IMAGE"]
    except (ValueError, TypeError, KeyError, zlib.error):
        return None
    shown = grids[0] if grids else ([], 0)
    return shown if state == _state(*shown) else None


def _plain_state() -> dict[str, Any]:
    """Filter, order and columns of the table of runs, which MLflow has kept in this form from the first."""
    health = [f"ifa/health/{family}" for family in registry.families()]
    scores = [f"ifa/{family}/score" for family in registry.families()]
    return {
        "searchFilter": "",
        "orderByKey": "attributes.start_time",
        "orderByAsc": False,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "runsHiddenMode": "FIRST_20_RUNS",
        "columnOrder": [],
        "columnWidths": {},
        "selectedColumns": [f"metrics.`{key}`" for key in health + scores],
    }


def _state(probes: list[str], epoch: int) -> dict[str, Any]:
    families = registry.families()
    charts = [_line_chart("health", family, f"ifa/health/{family}", HEALTH_RANGE) for family in families]
    charts += [_chart("IMAGE", "maps", "probes", imageKeys=probes, step=epoch)] if probes else []
    charts += [_line_chart("scores", family, f"ifa/{family}/score") for family in families]
    return _plain_state() | {
        "compareRunCharts": charts,
        "compareRunSections": [
            _section("health", "Health, alarm < 0.5", 2, 220),
            _section("maps", "The same probes", 1, 640),
            _section("scores", "Scores, 0 is good", 2, 220),
        ],
        "isAccordionReordered": True,
        "useGroupedValuesInCharts": True,
        "hideEmptyCharts": True,
        "groupBy": None,
        "autoRefreshEnabled": True,
        "globalLineChartConfig": {"xAxisKey": "step", "lineSmoothness": 0, "selectedXAxisMetricKey": ""},
    }


HEALTH_RANGE = {"yMin": 0, "yMax": 1}
"""The axis of every health chart: the same in all, with the alarm line in its middle."""


def _chart(kind: str, section: str, name: str, **options: Any) -> dict[str, Any]:
    return {
        "uuid": f"{section}-{name}",
        "type": kind,
        "metricSectionId": section,
        "displayName": name,
        "runsCountToCompare": 10,
        "deleted": False,
        "isGenerated": False,
    } | options


def _line_chart(section: str, name: str, key: str, limits: Mapping[str, float] | None = None) -> dict[str, Any]:
    """A chart of one metric; its name is short, since a narrow card shows the beginning only.

    MLflow's page of runs puts the metric's key in place of a chart's name, except where the chart has a configuration
    of system metrics; without nodes to choose from that changes nothing else.
    """
    shown = {"range": {"xMin": None, "xMax": None, **limits}} if limits else {}
    named = {"nodeLevelSystemMetricConfiguration": {"metric": name, "type": "node"}}
    return shown | named | _chart(
        "LINE", section, name, metricKey=key, selectedMetricKeys=[key], yAxisKey="metric", xAxisKey="step",
        scaleType="linear", xAxisScaleType="linear", lineSmoothness=0, selectedXAxisMetricKey="",
        ignoreOutliers=False, useGlobalLineChartConfig=True,
    )  # fmt: skip


def _section(uuid: str, name: str, columns: int, height: int) -> dict[str, Any]:
    return {
        "uuid": uuid,
        "name": name,
        "display": True,
        "isReordered": False,
        "deleted": False,
        "isGenerated": False,
        "columns": columns,
        "cardHeight": height,
    }
