"""Types of the user's columns are settled when they enter."""

import datetime
import json
import warnings
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_ifa.data.column_types import settle_types
from lightning_ifa.errors import IFAWarning, MetadataError
from lightning_ifa.statistics.metadata_columns import read_column


class Silent:
    def __str__(self):
        raise RuntimeError("no text")


KEPT = {
    "numbers": ([1, 2.5, None], "f"),
    "decimals": ([Decimal("1.5"), Fraction(1, 2), None], "f"),
    "text": (["a", None, "b"], "O"),
    "booleans": ([True, None, False], "O"),
    "dates": ([datetime.date(2020, 1, 1), None, datetime.date(2021, 1, 1)], "M"),
    "spans": (pd.to_timedelta([1, 2, 3], unit="D"), "m"),
    "categories": (pd.Categorical(["a", "b", "a"]), "O"),
}
MADE_TEXT = {
    "mixed": ([1, "a", None], "values of type int, str"),
    "large": ([2**70, 1, None], "above 2"),
    "unsigned": (np.array([2**63, 1, 2], dtype=np.uint64), "above 2"),
    "complex": ([1j, 2j, 3j], "complex"),
    "nested": ([[1], {"a": 2}, None], "values of type dict, list"),
    "arrays": ([np.arange(3), np.arange(2), None], "ndarray"),
    "bytes": ([b"a", b"\xff", None], "bytes"),
    "objects": ([Silent(), None, Silent()], "Silent"),
    "periods": (pd.period_range("2020", periods=3, freq="D"), "period"),
    "intervals": (pd.interval_range(0, 3), "interval"),
    "categories of numbers and text": (pd.Categorical([1, "a", 1]), "int, str"),
    "zones": (
        [datetime.datetime(2020, 1, 1), datetime.datetime(2020, 1, 1, tzinfo=datetime.timezone.utc), None],
        "datetime",
    ),
}


@pytest.mark.parametrize("case", KEPT)
def test_what_has_a_type_keeps_it_without_a_word(case):
    values, kind = KEPT[case]
    frame = settle_types(pd.DataFrame({"x": values}), "train")
    assert frame["x"].dtype.kind == kind
    read_column(frame["x"])


@pytest.mark.parametrize("case", MADE_TEXT)
def test_what_has_none_becomes_text_with_a_warning(case):
    values, match = MADE_TEXT[case]
    with pytest.warns(IFAWarning, match=f"'x' of the train split holds .*{match}"):
        frame = settle_types(pd.DataFrame({"x": pd.Series(values)}), "train")
    assert {type(value) for value in frame["x"].dropna()} == {str}
    read_column(frame["x"])


@pytest.mark.parametrize("names", [["a", "a"], [1, "1"]])
def test_two_columns_of_one_name_are_refused(names):
    with pytest.raises(MetadataError, match="two columns of the name"):
        settle_types(pd.DataFrame([[1, 2]], columns=names), "train")


VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=4), st.binary(max_size=4), st.dates(),
    st.complex_numbers(), st.lists(st.integers(), max_size=2), st.decimals(), st.datetimes(), st.timedeltas(),
)  # fmt: skip


@given(st.lists(VALUES, min_size=1, max_size=5))
@settings(max_examples=60, deadline=None)
def test_whatever_comes_in_can_be_written(tmp_path_factory, values):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", IFAWarning)
        frame = settle_types(pd.DataFrame({"x": pd.Series(values, dtype=object)}), "train")
    frame.to_parquet(tmp_path_factory.getbasetemp() / "x.parquet")
    json.loads(frame.to_json(date_format="iso"))
    assert len(frame) == len(values)
