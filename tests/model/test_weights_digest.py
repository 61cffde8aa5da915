"""The digest of weights: one for the same bits wherever they lie, another for any change."""

import pytest
import torch
from torch import nn

from lightning_ifa.model.weights_digest import digest_weights


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2))


def test_order_strides_and_other_entries_make_no_difference():
    state = network().state_dict()
    turned = {name: value.t().contiguous().t() if value.ndim == 2 else value for name, value in state.items()}
    assert digest_weights(dict(reversed(turned.items())) | {"extra": "text"}) == digest_weights(state)


@pytest.mark.parametrize(
    "change",
    [
        lambda net: net[0].weight.data[0, 0, 0, 0].add_(1e-7),
        lambda net: net[1].running_mean[1].fill_(float("nan")),
        lambda net: net[1].num_batches_tracked.add_(1),
        lambda net: net.bfloat16(),
        lambda net: setattr(net[2].weight, "data", net[2].weight.data.reshape(4, 2)),
        lambda net: net.register_buffer("empty", torch.ones(0)),
    ],
    ids=["one bit", "not a number", "counter", "dtype", "shape", "an empty buffer more"],
)
def test_every_change_is_seen(change):
    net = network()
    before = digest_weights(net.state_dict())
    change(net)
    assert digest_weights(net.state_dict()) != before


def test_weights_without_bytes_are_refused():
    with pytest.raises(TypeError, match="bias has no bytes"):
        digest_weights(nn.Linear(2, 2, device="meta").state_dict())
