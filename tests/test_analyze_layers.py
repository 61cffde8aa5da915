"""Several layers analysed in one pass: the same reports as one by one."""

from __future__ import annotations

import pytest
from models import PoolNet, ResidualNet, loader, trained

from lightning_ifa.analysis import analyze, analyze_layers
from lightning_ifa.errors import LayerError


@pytest.mark.parametrize(
    ("kind", "layers"),
    [(PoolNet, ["features", "features.0"]), (ResidualNet, ["bn2", "relu#0"])],
)
def test_reports_equal_those_of_each_layer_alone(kind, layers):
    model, validation, train = trained(kind(), 20), loader(40, seed=5), loader(40, seed=1)
    together = analyze_layers(model, validation, train, layers=layers, probes=3)
    assert list(together) == layers
    for layer, report in together.items():
        alone = analyze(model, validation, train, layer=layer, probes=3)
        assert report.tables["validation"].layer == layer
        assert report.metrics == pytest.approx(alone.metrics, rel=1e-3, abs=1e-4)
        assert report.digest == alone.digest


def test_misspelt_layer_is_named():
    with pytest.raises(LayerError, match='no layer "featurs"; did you mean "features"'):
        analyze_layers(PoolNet(), loader(12), layers=["features.0", "featurs"])
