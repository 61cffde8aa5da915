"""The pages that a stranger follows to the letter: their Python runs as it stands, and so do their commands."""

from __future__ import annotations

import logging
import os
import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from lightning_ifa.cli import main

DOCS = Path(__file__).parents[2] / "docs"
BLOCK = re.compile(r"^```(python|sh)\n(.*?)^```", re.DOTALL | re.MULTILINE)

pytestmark = [pytest.mark.filterwarnings("default"), pytest.mark.usefixtures("store", "no_pictures", "_own_settings")]


@pytest.fixture
def _own_settings(monkeypatch):
    """What a page sets for its process is put back."""
    import mlflow

    before = mlflow.get_tracking_uri()
    monkeypatch.setattr(os, "environ", os.environ)
    monkeypatch.delenv("LIGHTNING_IFA_OFFLINE", raising=False)
    yield
    os.environ.pop("LIGHTNING_IFA_OFFLINE", None)
    mlflow.set_tracking_uri(before)
    logging.getLogger("pytorch_lightning").setLevel(logging.INFO)


def follow(page, **shorter):
    """Run a page's Python and its commands, in their order; ``shorter``: old text to one of fewer samples or epochs."""
    names = {"__name__": "__main__"}
    for language, code in BLOCK.findall((DOCS / page).read_text("utf-8")):
        if language == "python":
            for old, new in shorter.items():
                code = code.replace(old, new)
            exec(compile(code, page, "exec"), names)
            os.environ.pop("LIGHTNING_IFA_OFFLINE", None) if "trainer.fit" in code else None
            continue
        for line in code.splitlines():
            if line.startswith("lightning-ifa "):
                result = CliRunner().invoke(main, shlex.split(line, comments=True)[1:])
                assert result.exit_code == 0, result.output
    return names


def test_the_readme():
    assert follow("../README.md")["trainer"].callbacks


def test_get_started():
    assert (
        follow("get_started.md", **{"max_epochs=4": "max_epochs=1", "1000:3500": "1000:1500", ":1000]": ":300]"})[
            "analysis"
        ].report
        is not None
    )


@pytest.mark.slow
def test_get_started_alarms():
    assert follow("get_started.md")["analysis"].report.alarms == ["confounding"]


def test_first_training():
    names = follow("tutorials/first_training.md")
    assert "overfitting" in names["overfitted"].alarms
    assert "overfitting" not in names["sound"].alarms


def test_a_gate_in_ci():
    assert follow("tutorials/gate_in_ci.md")["verdict"].passed


def test_an_offline_cluster():
    fewer = {"max_epochs=2": "max_epochs=1", "1000:2000": "1000:1200", "max_samples=300": "max_samples=100"}
    (status,) = follow("tutorials/offline_cluster.md", **fewer)["runs"]["status"]
    assert status == "FINISHED"


def test_volumes():
    assert "confounding" in follow("tutorials/volumes.md")["report"].alarms


def test_a_transformer():
    fewer = {"max_epochs=3": "max_epochs=1", "1000:3000": "1000:1400", "max_samples=500": "max_samples=100"}
    names = follow("tutorials/transformer.md", **fewer)
    assert names["table"].cams.shape[1:] == (7, 7)
    assert names["found"].tables["validation"].layer == "blocks"


@pytest.mark.slow
@pytest.mark.skipif("HAM10000" not in os.environ, reason="HAM10000 names no folder with the user's own download")
def test_a_confounder_that_nobody_named():
    assert len(follow("tutorials/hidden_confounder.md")["report"].confounders)
