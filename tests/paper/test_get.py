"""The list of downloads names every row and set, and checks what is there by each row's own reader."""

from __future__ import annotations

import pandas as pd

from benchmarks.real.data import SOURCES
from examples.paper.get import PUBLISHED, check_row, check_set, listing
from examples.paper.results.real import REAL
from examples.paper.results.rows import FOLDERS, ROWS


def test_every_row_and_every_set_has_an_address_and_a_licence(tmp_path):
    assert set(PUBLISHED) == {FOLDERS.get(row, row) for row in ROWS}
    text = listing(tmp_path, tmp_path)
    assert text.count("not there") == len(PUBLISHED) + len({row.source for row in REAL.values()})
    assert all(source.address in text and source.licence in text for source in PUBLISHED.values())
    assert all(SOURCES[row.source] in text for row in REAL.values())


def test_what_is_there_is_checked(stand_in, tmp_path):
    assert check_row("ultrasound", stand_in("ultrasound")).endswith("validation samples")
    (tmp_path / "luna").mkdir()
    assert check_row("luna", tmp_path / "luna").startswith("not usable: there is no ")
    folder = tmp_path / "busi"
    folder.mkdir()
    pd.DataFrame({"split": ["train"]}).to_csv(folder / "index.csv")
    (folder / "data.npz").write_bytes(b"no zip")
    assert check_set(folder).startswith("not usable: ")
