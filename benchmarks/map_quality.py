"""Check ``statistics.map_quality`` against Quantus, on random maps and a small network.

python -m pip install --target FOLDER --no-deps quantus opencv-python-headless cachetools
PYTHONPATH=.:FOLDER python -m benchmarks.map_quality
"""

from __future__ import annotations

import warnings

import numpy as np
import torch
from torch import nn

from lightning_ifa.statistics import map_quality as own

SAMPLES, SIDE, DRAWS, RADIUS = 12, 16, 8, 0.1


def small_net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3)
    ).eval()


def explain(model: nn.Module, inputs: np.ndarray, targets: np.ndarray, **_: object) -> np.ndarray:
    """Give HiResCAM behind the convolution, ``(n, 1, h, w)``."""
    activation = model[:2](torch.as_tensor(np.asarray(inputs), dtype=torch.float32))
    weights = model[4].weight[torch.as_tensor(np.asarray(targets))]
    return (activation * weights[..., None, None]).sum(1, keepdim=True).numpy(force=True)


def compare() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Give each measure's values by this package and by Quantus, ``(n,)`` each."""
    import quantus

    rng, model = np.random.default_rng(0), small_net()
    x = rng.standard_normal((SAMPLES, 1, SIDE, SIDE)).astype(np.float32)
    y = np.arange(SAMPLES) % 3
    regions = rng.random((SAMPLES, 1, SIDE, SIDE)) < 0.2
    maps = explain(model, x, y)
    quiet = {"disable_warnings": True, "display_progressbar": False, "normalise": False}
    given = {"model": model, "x_batch": x, "y_batch": y, "device": "cpu"}

    def run(metric: object, attributions: np.ndarray, **more: object) -> np.ndarray:
        return np.asarray(metric(a_batch=attributions.copy(), **given, **more), dtype=float)

    noise = iter(np.random.default_rng(1).uniform(-RADIUS, RADIUS, (DRAWS, *x.shape)).astype(np.float32))
    again = np.random.default_rng(1).uniform(-RADIUS, RADIUS, (DRAWS, *x.shape)).astype(np.float32)
    sensitivity = quantus.MaxSensitivity(
        nr_samples=DRAWS, abs=False, perturb_func=lambda arr, **_: arr + next(noise).reshape(arr.shape), **quiet
    )
    positive = np.maximum(maps, 0)
    return {
        "sparseness": (own.gini(maps), run(quantus.Sparseness(abs=True, **quiet), maps)),
        "relevance mass": (
            own.relevance_mass(maps, regions),
            run(quantus.RelevanceMassAccuracy(abs=False, **quiet), positive, s_batch=regions),
        ),
        "relevance rank": (
            own.relevance_rank(maps, regions),
            run(quantus.RelevanceRankAccuracy(abs=False, **quiet), maps, s_batch=regions),
        ),
        "pointing game": (
            own.pointing_hits(maps, regions),
            run(quantus.PointingGame(abs=False, **quiet), maps, s_batch=regions),
        ),
        "max-sensitivity": (
            own.max_sensitivity(maps, np.stack([explain(model, x + delta, y) for delta in again])),
            run(sensitivity, maps, explain_func=explain),
        ),
    }


def main() -> None:
    """Print the largest difference of each measure."""
    warnings.filterwarnings("ignore")
    print("| measure | mean, this package | mean, Quantus | largest difference |\n|---|---|---|---|")
    for name, (ours, theirs) in compare().items():
        print(f"| {name} | {ours.mean():.6f} | {theirs.mean():.6f} | {np.abs(ours - theirs).max():.1e} |")


if __name__ == "__main__":
    main()
