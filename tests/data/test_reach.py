"""Reach: every kind of sampler is asked, nothing moves by asking, and what does not fit is named."""

import random

import numpy as np
import pytest
import torch
from lightning_fabric.utilities.distributed import DistributedSamplerWrapper
from torch.utils.data import (
    ConcatDataset,
    DataLoader,
    DistributedSampler,
    Sampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from lightning_ifa.data.reach import find_reach
from lightning_ifa.data.sampling import reference_indices
from lightning_ifa.errors import DataError, IFAWarning

DATA = TensorDataset(torch.arange(20.0))


class Shuffled(Sampler):
    """Yields some samples, in an order from a generator of its own; counts how often it is run."""

    def __init__(self, ids):
        self.ids, self.runs, self.generator = ids, 0, torch.Generator().manual_seed(3)

    def __iter__(self):
        self.runs += 1
        yield from (self.ids[i] for i in torch.randperm(len(self.ids), generator=self.generator).tolist())


class Pairs:
    """A batch sampler of nobody's class, in a fixed order."""

    def __iter__(self):
        yield from ([2 * i, 2 * i + 1] for i in range(3))


class Endless:
    def __iter__(self):
        while True:
            yield [random.randrange(20) for _ in range(4)]


class Own(DistributedSampler):
    """Splits the samples between the ranks in its own way."""

    def __iter__(self):
        yield from range(5 + self.rank, 15, self.num_replicas)


CASES = {
    "list": ({"sampler": [3, 1, 5]}, [1, 3, 5]),
    "from the end": ({"sampler": [3, -1]}, [3, 19]),
    "tensor": ({"sampler": torch.tensor([4, 1])}, [1, 4]),
    "list of tensors": ({"sampler": [torch.tensor(3)]}, [3]),
    "dropped last": ({"sampler": [3, 1, 5], "drop_last": True, "batch_size": 2}, [1, 3]),
    "subset": ({"sampler": SubsetRandomSampler([1, 2])}, [1, 2]),
    "weights": ({"sampler": WeightedRandomSampler([0.0, 1.0, 0.0, 2.0], 9)}, [1, 3]),
    "own": ({"sampler": Shuffled([7, 8, 9])}, [7, 8, 9]),
    "own batches": ({"batch_sampler": Pairs()}, [0, 1, 2, 3, 4, 5]),
    "endless": ({"batch_sampler": Endless()}, list(range(20))),
    "ranks": ({"sampler": DistributedSampler(DATA, 2, 1, shuffle=False)}, list(range(20))),
    "own ranks": ({"sampler": Own(DATA, 2, 1)}, list(range(5, 15))),
    "list over ranks": ({"sampler": DistributedSamplerWrapper([1, 2, 7], num_replicas=2, rank=0)}, [1, 2, 7]),
    "no batches": ({"batch_size": None}, list(range(20))),
}


@pytest.mark.parametrize("case", CASES)
def test_only_what_a_sampler_yields_is_within_reach(case):
    settings, expected = CASES[case]
    reach = find_reach(DataLoader(DATA, **settings), "train")
    assert reach.indices.tolist() == expected
    assert not reach.doubt


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"sampler": [3, 1, 5, 7], "batch_size": 2}, [1, 3]),
        ({"batch_sampler": Pairs()}, [0, 1]),
        ({"sampler": Shuffled([7, 8, 9])}, [7, 8, 9]),
        ({"sampler": DistributedSampler(DATA, 2, 0, shuffle=False), "batch_size": 3}, list(range(6))),
    ],
)
def test_of_a_fixed_order_the_first_batches_only(settings, expected):
    assert find_reach(DataLoader(DATA, **settings), "train", batches=1).indices.tolist() == expected


def test_asking_moves_no_generator_and_changes_no_attribute():
    sampler = Shuffled([7, 8, 9])
    before = sampler.generator.get_state(), torch.get_rng_state(), np.random.get_state()[1], random.getstate()
    find_reach(DataLoader(DATA, 2, sampler=sampler), "train")
    after = sampler.generator.get_state(), torch.get_rng_state(), np.random.get_state()[1], random.getstate()
    assert sampler.runs == 0
    assert all(np.array_equal(a, b) for a, b in zip(before[:3], after[:3], strict=True))
    assert before[3] == after[3]


def test_doubt_is_told_and_the_samples_stay_the_same():
    class Some(Shuffled):
        def __iter__(self):
            yield from torch.randperm(20, generator=self.generator)[:3].tolist()

    loader = DataLoader(DATA, 2, sampler=Some([]))
    with pytest.warns(IFAWarning, match="train loader's Some chooses other samples each time"):
        first = reference_indices(loader, 100, 0, "train")
    torch.rand(3, generator=loader.sampler.generator)
    with pytest.warns(IFAWarning, match="Some"):
        np.testing.assert_array_equal(reference_indices(loader, 100, 0, "train"), first)
    assert 3 <= len(first) <= 12


@pytest.mark.parametrize(
    ("data", "settings", "match"),
    [
        (
            DATA,
            {"sampler": [3, 25, 26]},
            r"sample 25 \(at its place 1\), which the data set of 20 samples",
        ),
        (DATA, {"sampler": [3, -21]}, "sample -21"),
        (DATA, {"sampler": [3, "a"]}, "yields 'a', a str"),
        (DATA, {"sampler": [3, 1.5]}, "yields 1.5, a float"),
        (DATA, {"batch_sampler": [[0, 1], [2, 30]]}, "sample 30"),
        (DATA, {"sampler": iter(range(3))}, "range_iterator that can be run only once"),
        (DATA, {"sampler": []}, "has no samples"),
        (Subset(DATA, [0, 44]), {}, r"names sample 44 \(at its place 1\)"),
        (ConcatDataset([DATA, Subset(DATA, [99])]), {}, "names sample 99"),
    ],
)
def test_what_does_not_fit_is_named(data, settings, match):
    with pytest.raises(DataError, match=match):
        reference_indices(DataLoader(data, **settings), 100, 0, "train")
