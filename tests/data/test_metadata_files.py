"""Metadata files of another form: the form is named, with what mends it."""

import io
from contextlib import suppress

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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


PIECES = st.sampled_from(
    [b"split", b"index", b"train", b",", b"\n", b'"', b"0", b"1", b";", b"\x00", b"\xff", b"PAR1", b"a"]
)


@given(st.lists(st.one_of(PIECES, st.binary(max_size=3)), max_size=24).map(b"".join))
@settings(max_examples=150, deadline=None)
def test_nothing_but_our_own_error(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "fuzz.csv"
    for head in (b"", b"split,index\n"):
        path.write_bytes(head + content)
        with suppress(MetadataError):
            read_metadata(path)
