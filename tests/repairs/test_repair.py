"""A network that leans on a tag is repaired on a copy, and measured on samples that neither fit nor choice saw."""

from __future__ import annotations

import confounded as made
import pytest
import torch

import lightning_ifa
from lightning_ifa.errors import DataError
from lightning_ifa.repairs.head_features import read_head, write_head
from lightning_ifa.statistics.linear_head import LinearHead


@pytest.fixture(scope="module")
def report():
    return lightning_ifa.analyze(made.confounded(), *made.both(), probes=1)


@pytest.fixture(scope="module")
def repaired(report):
    train, validation = made.loaders()
    return lightning_ifa.repair(made.confounded(), train, report, validation, suspect="tag", cost=0.1)


def accuracy(model, strength):
    data = made.Stripes(600, 3, strength)
    with torch.no_grad():
        return float((model(data.images).argmax(1) == data.labels).float().mean())


def test_a_repaired_network_no_longer_errs_where_the_tag_points_away(repaired):
    original = made.confounded()
    assert repaired.helped
    assert accuracy(repaired.model, -1) > accuracy(original, -1) + 0.1
    before, after = repaired.reliance
    assert before > 0.05
    assert abs(after) < before / 1.5
    row = repaired.table.set_index("samples").loc["conflicting"]
    assert row["after_low"] <= row["after"] <= row["after_high"]
    assert row["after"] > row["before"]


def test_only_a_copys_last_layer_changes(repaired):
    changed = {n for n, v in repaired.model.state_dict().items() if not torch.equal(v, made.state()[n])}
    assert repaired.layer == "4"
    assert changed == {"4.weight", "4.bias"}


def test_the_figures_are_those_of_the_copy_on_the_half_kept_apart(repaired):
    data = made.loaders()[1].dataset
    with torch.no_grad():
        right = repaired.model(data.images).argmax(1) == data.labels
    row = repaired.table.set_index("samples").loc["all"]
    assert row["size"] == 120
    assert abs(float(right.float().mean()) - row["after"]) < 0.06


def test_the_outlook_is_told_with_what_was_tried(repaired):
    assert repaired.outlook.reachable >= repaired.outlook.conflicting
    assert str(repaired).startswith("The features still give")
    assert "as trained" in set(repaired.tried["method"])


def test_other_weights_samples_and_suspects_are_refused(report):
    train, validation = made.loaders()
    with pytest.raises(DataError, match="other weights"):
        lightning_ifa.repair(made.network(), train, report, validation)
    with pytest.raises(DataError, match="other samples"):
        lightning_ifa.repair(made.confounded(), train, report, train)
    with pytest.raises(DataError, match="did you mean 'tag'"):
        lightning_ifa.repair(made.confounded(), train, report, validation, suspect="tagg")


def test_one_logit_is_read_and_written_as_two_classes():
    model, x = made.network(1), torch.rand(4, 12)
    head = read_head(model, "4")
    scores = torch.from_numpy(head(x.numpy()))
    assert torch.allclose(scores.diff(dim=1)[:, 0].float(), model[4](x)[:, 0], atol=1e-5)
    write_head(model, "4", LinearHead(2 * head.weight, 2 * head.bias))
    assert torch.allclose(2 * scores.diff(dim=1)[:, 0].float(), model[4](x)[:, 0], atol=1e-5)
