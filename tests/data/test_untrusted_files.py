"""Files that others may have written: refused by name, before they take memory."""

from __future__ import annotations

import io
import os
import zipfile

import numpy as np
import pandas as pd
import pytest

from lightning_ifa.data.untrusted_files import read_arrays, read_json, read_table, require_folder, require_regular
from lightning_ifa.errors import FileError


def npz_with(path, header: bytes, body: bytes = b"", method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("a.npy", header + body)
    return path


def npy_header(shape, dtype="<f4"):
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": dtype, "fortran_order": False, "shape": shape})
    return buffer.getvalue()


def test_a_header_that_asks_for_more_than_the_file_can_hold(tmp_path):
    path = npz_with(tmp_path / "a.npz", npy_header((2**30, 64)))
    with pytest.raises(FileError, match="would unpack to 274,877,906,944"):
        read_arrays(path)


def test_an_archive_that_unpacks_to_a_thousand_times_its_size(tmp_path):
    path = npz_with(tmp_path / "a.npz", npy_header((2**26,)), bytes(2**28))
    assert path.stat().st_size < 2**20
    with pytest.raises(FileError, match="would unpack to"):
        read_arrays(path)


def test_arrays_that_are_mostly_zeros_are_read(tmp_path):
    zeros = np.zeros((1000, 1000), dtype=np.float32)
    np.savez_compressed(tmp_path / "a.npz", a=zeros)
    assert read_arrays(tmp_path / "a.npz")["a"].shape == zeros.shape


def test_a_table_of_more_rows_than_its_size_explains(tmp_path):
    pd.DataFrame({"a": np.zeros(10_000_000, dtype=np.int8)}).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(FileError, match="would unpack to"):
        read_table(tmp_path / "a.parquet", tmp_path / "a.parquet")


@pytest.mark.parametrize("text", ["[" * 100_000, "1" * 5001, '{"a": ', "\ufeff{}", "\x00"])
def test_json_that_is_none(tmp_path, text):
    (tmp_path / "a.json").write_text(text, encoding="utf-8")
    with pytest.raises(FileError, match=r"a\.json is not a readable JSON file"):
        read_json(tmp_path / "a.json")


def test_pipes_links_and_folders_are_not_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/etc/hostname")
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "link", "folder"):
        with pytest.raises(FileError, match="not a regular file"):
            require_regular(tmp_path / name)
    (tmp_path / "long").write_text("long")
    with pytest.raises(FileError, match="at most 3"):
        require_regular(tmp_path / "long", 3)


def test_a_folder_that_cannot_be_written_to_is_named_beforehand(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match="nothing can be written to"):
        require_folder(tmp_path / "file" / "folder")
    with pytest.raises(FileError, match="nothing can be written to"):
        require_folder(tmp_path / "missing", create=False)
    require_folder(tmp_path / "new" / "folder")
    assert not (tmp_path / "new").exists()
