"""What the examples in docstrings take as given: a small network, and loaders over squares that it tells apart."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

EXPLAINED = (
    "analysis",
    "feature_report",
    "feature_table",
    "decompose",
    "cam_check",
    "cam_evaluation",
    "repair",
    "autolog",
)
"""Modules whose examples take ``model``, ``val_loader``, ``train_loader``, ``report``, and ``analyze``."""


@pytest.fixture(scope="session")
def _example_parts() -> dict[str, Any]:
    import torch
    from models import PoolNet, loader, trained

    from lightning_ifa import analyze

    torch.manual_seed(0)
    model = trained(PoolNet())
    parts = {"model": model, "val_loader": loader(60, seed=2), "train_loader": loader(60, seed=1)}
    return parts | {"report": analyze(**parts), "analyze": analyze}


@pytest.fixture(autouse=True)
def _examples(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[None]:
    """Give an example its names and a folder of its own; put back what it sets for the process."""
    if not isinstance(request.node, pytest.DoctestItem) or request.node.path.stem not in EXPLAINED:
        yield
        return
    from lightning_ifa.training import autolog

    request.node.dtest.globs |= request.getfixturevalue("_example_parts")  # type: ignore[union-attr]
    before = autolog._autolog
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        yield
    autolog._autolog = before
