"""What the digest of the weights takes of an analysis of ResNet-50, which takes one; a saved checkpoint takes another.

    python -m benchmarks.weights_digest                 # 16 + 16 samples of 224 x 224, a share that is too large
    python -m benchmarks.weights_digest --samples 1024  # as by default: ten minutes and more without a GPU

CPU seconds on one thread. The time of an analysis grows with its samples, that of the digest does not.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.networks import ResNet
from lightning_ifa.analysis import analyze
from lightning_ifa.model.weights_digest import digest_module


def cpu_seconds(act) -> float:
    """CPU seconds of the process, all its threads."""
    began = time.process_time()
    act()
    return time.process_time() - began


def loader(count: int, size: int, seed: int) -> DataLoader:
    """Noise of two classes, one lighter than the other."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 2
    images = torch.randn(count, 3, size, size, generator=generator) + labels.view(-1, 1, 1, 1)
    return DataLoader(TensorDataset(images, labels), 16)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=16, help="of each split")
    parser.add_argument("--size", type=int, default=224, help="of an image, in pixels")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = ResNet((3, 4, 6, 3), bottleneck=True).eval()
    numbers = sum(value.numel() for value in model.state_dict().values())
    digests = [cpu_seconds(lambda: digest_module(model)) for _ in range(5)]
    validation, train = (loader(options.samples, options.size, seed) for seed in (1, 2))
    analysis = cpu_seconds(lambda: analyze(model, validation, train, layer="stages.3"))
    digest = float(np.median(digests))
    print(
        f"ResNet-50, {numbers / 1e6:.1f} million numbers: the digest takes {digest:.3f} CPU s ({min(digests):.3f} to "
        f"{max(digests):.3f}), an analysis of {options.samples} + {options.samples} samples of {options.size} x "
        f"{options.size} takes {analysis:.1f} with it; share {digest / analysis:.2%}"
    )


if __name__ == "__main__":
    main()
