"""Striped images of two classes with a tag in the corner that goes with the class, and a network that leans on it."""

from __future__ import annotations

from functools import cache

import pandas as pd
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset

STRENGTH = 0.7


class Stripes(Dataset):
    """Lying or standing stripes in noise; ``metadata`` says which carry the tag."""

    def __init__(self, n, seed, strength=STRENGTH):
        rng = torch.Generator().manual_seed(seed)
        self.labels = torch.arange(n) % 2
        agrees = torch.rand(n, generator=rng) < (1 + strength) / 2
        tagged = (self.labels == 1) == agrees
        line = (torch.arange(8) % 2).float()
        standing = line.expand(8, 8)
        pattern = torch.where((self.labels == 1)[:, None, None], standing, standing.T)
        noise = torch.randn(n, 8, 8, generator=rng)
        self.images = (0.7 * pattern + noise)[:, None]
        self.images[tagged, :, :3, :3] = 2.5
        self.metadata = pd.DataFrame({"tag": tagged.numpy(), "file": [f"scan_{row}.png" for row in range(n)]})

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return self.images[index], int(self.labels[index])


def network(outputs=2):
    return nn.Sequential(
        nn.Conv2d(1, 12, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, outputs)
    )


def loaders():
    """Training and validation."""
    return DataLoader(Stripes(240, 1), 100), DataLoader(Stripes(240, 2), 100)


@cache
def state():
    data = Stripes(240, 1)
    torch.manual_seed(0)
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    for _ in range(60):
        optimizer.zero_grad()
        cross_entropy(model(data.images), data.labels).backward()
        optimizer.step()
    return {name: value.clone() for name, value in model.state_dict().items()}


def confounded():
    model = network()
    model.load_state_dict(state())
    return model.eval()


def both():
    """Validation and training, as the command line takes them."""
    return loaders()[::-1]
