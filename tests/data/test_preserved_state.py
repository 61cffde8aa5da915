"""What users' objects hold beside the global generators is found and put back."""

import functools
import random
import threading
from collections import Counter, deque

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset

from lightning_ifa.data.preserved_state import find_generators, preserve, preserve_generators
from lightning_ifa.data.sampling import draw_twice, reference_loader
from lightning_ifa.errors import IFAWarning
from lightning_ifa.model.isolation import isolate

GENERATORS = {
    "RandomState": (lambda: np.random.RandomState(0), lambda g: g.rand()),
    "Generator": (lambda: np.random.default_rng(0), lambda g: g.random()),
    "Random": (lambda: random.Random(0), lambda g: g.random()),
    "torch": (lambda: torch.Generator().manual_seed(0), lambda g: torch.rand((), generator=g).item()),
}


class Transform:
    def __init__(self, generator):
        self.R = generator


class Compose:
    def __init__(self, *steps):
        self.steps = list(steps)


class Holder(Dataset):
    def __init__(self, draw, **attributes):
        self.draw = draw
        vars(self).update(attributes)

    def __len__(self):
        return 8

    def __getitem__(self, index):
        return torch.full((2,), float(self.draw()))


def closed_over(generator):
    return lambda: generator


PLACES = {
    "attribute": lambda g: {"R": g},
    "nested": lambda g: {"transform": Compose(Compose(Transform(g)))},
    "dict": lambda g: {"steps": {"a": [(Transform(g),)]}},
    "closure": lambda g: {"fn": closed_over(g)},
    "partial": lambda g: {"fn": functools.partial(print, g)},
    "method": lambda g: {"fn": Transform(g).__init__},
    "module": lambda g: {"net": nn.Sequential(nn.Identity())} | {"own": setattr_on(nn.Identity(), g)},
}


def setattr_on(module, generator):
    module.generator = generator
    return module


@pytest.mark.parametrize("kind", GENERATORS)
@pytest.mark.parametrize("place", PLACES)
def test_generators_are_found_and_put_back(kind, place):
    make, draw = GENERATORS[kind]
    generator = make()
    data = Holder(lambda: 0, **PLACES[place](generator))
    data = Subset(ConcatDataset([data]), [0])
    assert find_generators(data) == [generator]
    with pytest.raises(ZeroDivisionError), preserve_generators(data):
        draw(generator) / 0
    assert draw(generator) == draw(make())


@pytest.mark.parametrize("kind", GENERATORS)
@pytest.mark.parametrize("workers", [0, 2])
def test_samples_are_the_same_whatever_was_drawn_before(kind, workers):
    make, draw = GENERATORS[kind]
    generator = make()
    data = Holder(functools.partial(draw, generator))
    loader = DataLoader(data, 4, num_workers=workers)
    rounds = []
    for _ in range(2 if workers == 0 else 1):
        draw(generator)
        rounds.append(torch.cat([x for _, x in reference_loader(loader, np.arange(8), 0)]))
    alone = torch.cat([x for _, x in reference_loader(DataLoader(data, 4), np.arange(8), 0)])
    assert all(torch.equal(each, alone) for each in rounds)
    assert len(alone.unique()) == 8
    before = find_generators(data)
    first, second = next(draw_twice(loader, np.arange(8), 0))
    assert not torch.equal(first, second)
    assert before == [generator]


class Meter:
    def __init__(self):
        self.total, self.lock = 0, None


class Restless(nn.Module):
    """Changes everything that it has in a forward pass."""

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("mean", torch.zeros(2))
        self.count, self.seen, self.by_name = 0, [], {"n": 0}
        self.last, self.recent, self.names = None, deque(maxlen=3), Counter()
        self.running, self.array = torch.zeros(2), np.zeros(2)
        self.meter, self.rng = Meter(), np.random.default_rng(0)
        self.inner = nn.Sequential(nn.BatchNorm1d(2))

    def forward(self, x):
        self.calls += 1
        self.mean = self.mean + x.mean(0)
        self.count += 1
        self.seen.append(x)
        self.by_name["n"] += 1
        self.by_name["new"] = 1
        self.last = x
        self.recent.append(1)
        self.names["a"] += 1
        self.running += 1
        self.array += 1
        self.meter.total += 1
        self.rng.random()
        self.added = True
        self.inner.train()
        return self.inner(x)


def state(model):
    found = {name: value.clone() for name, value in model.state_dict().items()}
    plain = (model.count, len(model.seen), dict(model.by_name), model.last, list(model.recent), dict(model.names))
    more = (model.running.tolist(), model.array.tolist(), model.meter.total, hasattr(model, "added"))
    return {k: v.tolist() for k, v in found.items()}, plain, more, str(model.rng.bit_generator.state)


@pytest.mark.parametrize("inference", [False, True])
def test_a_network_is_as_before(inference):
    model = Restless()
    before = state(model)
    buffer = model.calls
    with torch.inference_mode(inference), pytest.raises(TypeError), isolate(model, 0), torch.inference_mode(False):
        len(model(torch.rand(3, 2)).sum())
    assert state(model) == before
    assert model.calls is buffer
    assert model.inner.training


def test_changed_weights_are_told():
    class Drifting(nn.Linear):
        def forward(self, x):
            with torch.no_grad():
                self.weight.mul_(0.9)
            return super().forward(x)

    model = Drifting(2, 2)
    with pytest.warns(IFAWarning, match=r"changes its weights \(weight\)"), isolate(model, 0):
        model(torch.rand(3, 2))


def test_objects_that_threads_share_are_left_alone():
    meter = Meter()
    meter.lock = threading.Lock()
    with preserve(lambda: meter):
        meter.total += 1
    assert meter.total == 1
