"""Which analyses have their probes logged one by one."""

from __future__ import annotations

import pytest
from models import PoolNet, loader, trained

from lightning_ifa.analysis import analyze
from lightning_ifa.tracking import publisher
from lightning_ifa.tracking.checkpoint import Moment
from lightning_ifa.tracking.run import Run


class NotedSink:
    """Takes jobs and does nothing with them."""

    def __init__(self, *_):
        self.singles = []

    def put(self, name, render):
        for what in render.args:
            if isinstance(what, dict):
                self.singles.append(what["single_images"])


@pytest.fixture(scope="module")
def report():
    return analyze(trained(PoolNet()), loader(60, seed=5), probes=2)


def epochs_of_singles(report, epochs, folder):
    found = publisher.Publisher(Run("run", "sqlite:///never_opened.db"), folder)
    for epoch in epochs:
        found.put(report, Moment(epoch, 8 * epoch))
    return [epoch for epoch, single in zip(epochs, found._spool.singles, strict=True) if single]


def test_runs_of_different_length_have_epochs_in_common(report, monkeypatch, tmp_path):
    monkeypatch.setattr(publisher, "Spool", NotedSink)
    assert epochs_of_singles(report, [3, 7, 11], tmp_path) == [3, 11]
    assert epochs_of_singles(report, range(3, 40, 4), tmp_path) == [3, 11, 23, 31]
    assert epochs_of_singles(report, [25, 26, 30, 12], tmp_path) == [25, 30]  # resumed; then an older one validated


class DrawingSink:
    """Renders each job at once."""

    def __init__(self, spool, *_):
        self.spool = spool

    def put(self, name, render):
        folder = self.spool / name
        folder.mkdir(parents=True)
        render(folder)

    def close(self, *_):
        pass


class LocalSink(DrawingSink):
    """Renders into folders that may be there already, as the real one."""

    def put(self, name, render):
        (self.spool / name).mkdir(parents=True, exist_ok=True)
        render(self.spool / name)


FILES = ("ifa_probes.png", "ifa_report.html", "ifa_overview.png")


@pytest.mark.parametrize("wait", [0.0, 600.0])
def test_the_last_analysis_is_drawn_and_others_as_they_come_cheap(report, monkeypatch, tmp_path, wait):
    clock = iter(range(0, 10**6, 1))  # a second passes whenever the time is asked
    late = [0.0]
    monkeypatch.setattr(publisher, "Spool", DrawingSink)
    monkeypatch.setattr(publisher.time, "monotonic", lambda: next(clock) + late[0])
    found = publisher.Publisher(Run("run", "sqlite:///never_opened.db"), tmp_path, began=0.0)
    for epoch in range(10, 13):
        late[0] += wait
        found.put(report, Moment(epoch, epoch))
    drawn = {path.parents[1].name for path in tmp_path.rglob("ifa_overview.png")}
    assert [any(name.endswith(f"{epoch:08d}") for name in drawn) for epoch in range(10, 13)] == 3 * [wait > 0]
    sheets = [path.name.split("+")[2] for path in tmp_path.rglob("ifa~probes*.png")]
    assert sorted(sheets) == ["0", "10", "11", "12"]  # the first one where MLflow's slider stands, too
    found.close(1.0)
    assert (tmp_path / "run" / "pictures").is_dir() == (wait == 0)
    assert len({path.parents[1].name for path in tmp_path.rglob("ifa_report.html")}) == (3 if wait else 1)


def test_without_a_run_they_are_drawn_in_the_folders_of_their_analyses(report, monkeypatch, tmp_path):
    clock = iter(range(104, 10**6, 3))  # the first comes cheap and takes three seconds, too long for a second one
    monkeypatch.setattr(publisher, "Spool", LocalSink)
    monkeypatch.setattr(publisher.time, "monotonic", lambda: next(clock))
    found = publisher.Publisher(None, tmp_path, began=0.0)
    for epoch in range(10, 14):
        found.put(report, Moment(epoch, epoch))
    found.close(1.0)
    steps = {name: [int(path.parent.name[-8:]) for path in sorted(tmp_path.rglob(name))] for name in FILES}
    assert steps == {"ifa_probes.png": [10, 11, 12, 13], "ifa_report.html": [10, 13], "ifa_overview.png": [10, 13]}
