"""Metadata files of another form: the form is named, with what mends it."""

import codecs
import io
import os
import random
import warnings
from contextlib import suppress

import pandas as pd
import pytest
from bounds import bounds

from lightning_ifa.data.metadata import read_metadata
from lightning_ifa.errors import MetadataError

FRAME = pd.DataFrame({"split": ["train", "train"], "index": [0, 1], "site": ["Gießen", "b"]})


def text(**options):
    return FRAME.to_csv(**{"index": False} | options)


def parquet(frame):
    stream = io.BytesIO()
    frame.to_parquet(stream)
    return stream.getvalue()


REFUSED = {
    "semicolons": (text(sep=";").encode(), "semicolons.*sep=';'"),
    "tabs": (text(sep="\t").encode(), "tabs.*sep='.t'"),
    "UTF-16": (text().encode("utf-16"), 'UTF-16.*encoding="utf-16"'),
    "UTF-16 without a mark": (text().encode("utf-16-le"), "UTF-16"),
    "latin-1": (text().encode("latin-1"), 'line 2 holds the byte 0xdf.*encoding="latin-1"'),
    "workbook": (b"PK\x03\x04 rest", "Excel workbook.*read_excel"),
    "header only": (b"split,index,site\n", "a header and no rows"),
    "empty": (b"", "is empty"),
    "row numbers": (text(index=True).encode(), "without a name.*index=False"),
    "one name twice": (b"split,index,a,a\ntrain,0,1,2\n", "two columns of the name 'a'"),
    "no index": (b"split,a\ntrain,0\n", "no column 'index'"),
    "split left out": (b"split,index\ntrain,0\n,1\n", "no split in row 2"),
    "index of text": (b"split,index\ntrain,0\ntrain,x\n", "row 2: the index 'x'"),
    "index of half": (b"split,index\ntrain,0.5\n", "row 1: the index '0.5'"),
    "index below 0": (b"split,index\ntrain,-1\n", "row 1: the index '-1'"),
    "uneven": (b'split,index\ntrain,0\n"train,1\n', "cannot be read as CSV"),
    "damaged Parquet": (parquet(FRAME)[:40], "cannot be read as Parquet"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_another_form_is_named(tmp_path, case):
    content, match = REFUSED[case]
    (tmp_path / "m.csv").write_bytes(content)
    with pytest.raises(MetadataError, match=match):
        read_metadata(tmp_path / "m.csv")


@pytest.mark.parametrize(
    "content", [text().encode(), text().encode("utf-8-sig"), parquet(FRAME), text(quoting=1).encode()]
)
def test_the_right_form_whatever_the_suffix(tmp_path, content):
    (tmp_path / "m.data").write_bytes(content)
    assert read_metadata(tmp_path / "m.data")["train"]["site"].tolist() == ["Gießen", "b"]


def test_strange_content_is_refused_at_once(tmp_path):
    nested = parquet(pd.DataFrame({"split": [["train"]], "index": [{"a": 1}]}))
    wide = ",".join(["split", "index", *map(str, range(200_000))]).encode()
    many = parquet(
        pd.DataFrame({"split": "train", "index": 0, **{str(n): 0 for n in range(9)}}, index=range(2_000_000))
    )
    for content in (codecs.BOM_UTF8, nested, wide, b"x" * 200_000, b"split,index," + b"x" * 200_000 + b"\n", many):
        (tmp_path / "m.csv").write_bytes(content)
        with bounds(), pytest.raises(MetadataError, match=r"m\.csv"):
            read_metadata(tmp_path / "m.csv")
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, tmp_path / "none", "/dev/zero"):
        with pytest.raises(MetadataError, match="cannot be read"):
            read_metadata(path)


PARTS = (
    "split",
    "index",
    "train",
    ",",
    "\n",
    '"',
    "0",
    "1",
    ";",
    "\0",
    "a",
    "\ufeff",
    "\x85",
    "1e400",
    "9" * 5001,
    "-",
)
TYPES = ([["train"]], [{"a": 1}], [b"\xff"], [None], [1 + 2j], [pd.NaT], [pd.Timestamp(0)], [2**63], ["\ud800"[:0]])


def hostile(rng):
    """Content of a file: pieces of a CSV file, a damaged Parquet file, or one of strange types."""
    kind = rng.random()
    if kind < 0.4:
        some = "".join(rng.choice(PARTS) for _ in range(rng.randint(0, 30)))
        return rng.choice([b"", b"split,index\n", b"split,index,a\ntrain,0,"]) + some.encode()
    if kind < 0.5:
        columns = {name: rng.choice(TYPES) for name in rng.sample(["split", "index", "a", "b"], rng.randint(1, 4))}
        with suppress(Exception):  # not all can be written
            return parquet(pd.DataFrame(columns))
    content = bytearray(text().encode() if kind < 0.7 else parquet(FRAME))
    for _ in range(rng.randint(1, 12)):
        content[rng.randrange(len(content))] = rng.randrange(256)
    return bytes(content[: rng.choice([len(content), rng.randrange(len(content))])])


@pytest.mark.parametrize("count", [100, pytest.param(2000, marks=pytest.mark.slow)])
def test_nothing_but_our_own_error(tmp_path, count):
    rng, path = random.Random(count), tmp_path / "fuzz.csv"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(count):
            path.write_bytes(hostile(rng))
            with bounds(), suppress(MetadataError):
                read_metadata(path)
