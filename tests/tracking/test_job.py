"""Jobs on disk, while other threads come and go."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from lightning_ifa.tracking.job import pending


def test_folders_that_vanish_while_they_are_looked_through_stop_nobody(tmp_path, monkeypatch):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "job.json").write_text("{}")
    scandir = os.scandir

    def vanishing(path):
        if Path(path).name == "a":
            shutil.rmtree(path, ignore_errors=True)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", vanishing)
    assert [folder.name for folder in pending(tmp_path)] == ["b"]
