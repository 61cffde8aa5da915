"""Jobs on disk, while other threads come and go."""

from __future__ import annotations

import os

from lightning_ifa.tracking.job import list_pending


def test_folders_that_vanish_while_they_are_looked_through_stop_nobody(tmp_path, monkeypatch):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "job.json").write_text("{}")
    scandir = os.scandir

    def vanishing(path):
        if str(path) == str(tmp_path / "a"):
            (tmp_path / "a" / "job.json").unlink()
            (tmp_path / "a").rmdir()
        return scandir(path)

    monkeypatch.setattr(os, "scandir", vanishing)
    assert [folder.name for folder in list_pending(tmp_path)] == ["b"]
