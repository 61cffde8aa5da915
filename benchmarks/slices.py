"""Slices and groups: how often sound networks raise them, how often planted ones are found, whether intervals cover.

Networks on real sets, as ``benchmarks.real`` trained them. Planted: a twentieth of the validation samples is blurred,
darkened, turned, tilted, covered or made noisy, which no network was trained on. A plant counts as weak where accuracy
falls by half at least, and as found where two fifths of a slice are of it; tasks are told apart by how often the
network errs elsewhere. Limits in ``statistics/slices.py`` were chosen on seeds 0 and 1.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.ndimage import gaussian_filter, rotate
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.planted.tables import to_markdown
from benchmarks.real.tasks import TASKS
from benchmarks.real.train import CHECKPOINTS, Net, Training, load_net, load_training
from lightning_ifa.features.extractor import FeatureExtractor
from lightning_ifa.indicators.outliers import read_logits
from lightning_ifa.statistics.slices import find_slices
from lightning_ifa.statistics.subgroups import LEVEL, error_p_value, holm, wilson

MOST_ROWS = 1024
SHARE = 0.05
WEAK, HARD, RIGHT = 0.5, 0.2, 0.4
SIMULATIONS = 1000


def blur(x: Tensor) -> Tensor:
    """Blur by a twentieth of the edge."""
    return torch.as_tensor(gaussian_filter(x.numpy(), [0, 0] + [x.shape[-1] / 20] * (x.dim() - 2)))


def darken(x: Tensor) -> Tensor:
    """Leave a third of the light."""
    return x * 0.35


def turn(x: Tensor, angle: float = 90) -> Tensor:
    """Turn in the plane of the last two axes."""
    return torch.as_tensor(rotate(x.numpy(), angle, (-1, -2), reshape=False, order=1, mode="nearest"))


def tilt(x: Tensor) -> Tensor:
    """Turn by 35 degrees."""
    return turn(x, 35)


def roughen(x: Tensor) -> Tensor:
    """Add noise."""
    return (x + 0.25 * torch.randn(x.shape, generator=torch.Generator().manual_seed(1))).clamp(0, 1)


def cover(x: Tensor) -> Tensor:
    """Cover the middle with gray."""
    changed, (h, w) = x.clone(), x.shape[-2:]
    changed[..., h // 3 : 2 * h // 3, w // 3 : 2 * w // 3] = 0.5
    return changed


KINDS: tuple[Callable[[Tensor], Tensor], ...] = (blur, darken, turn, tilt, roughen, cover)


def judge_network(net: Net, images: Tensor, labels: Tensor, inside: np.ndarray) -> dict[str, object]:
    """Say how the network does inside and outside a group, and whether slices were found, and the right one."""
    table = FeatureExtractor(net)(DataLoader(TensorDataset(images, labels), 128), np.arange(len(labels)))
    found = find_slices(table.activations, table.properties.to_numpy(float), read_logits(table), table.targets)
    wrong = ~table.correct
    return {
        "found": bool(found),
        "right": any((each.inside & inside).sum() > RIGHT * each.inside.sum() for each in found),
        "errors elsewhere": float(wrong[~inside].mean()),
        "weakness": float(wrong[inside].mean() - wrong[~inside].mean()) if inside.any() else 0.0,
    }


def judge(root: Path, folder: Path, seeds: list[int]) -> Iterator[dict[str, object]]:
    """Judge every trained network as it is, and a sound one with each kind of plant."""
    for task in TASKS.values():
        for seed in seeds:
            for noise in (0.0, 0.2):
                training = Training(task, seed, "pool" if seed % 2 == 0 else "mlp", noise)
                if not (folder / training.name / "accuracy.json").exists():
                    continue
                parts, _ = load_training(training, root)
                images, labels = (part[:MOST_ROWS] for part in (parts["validation"].images, parts["validation"].labels))
                net = load_net(training, parts, folder, CHECKPOINTS - 1)
                of = {"task": task.name, "seed": seed, "noise": noise}
                nothing = np.zeros(len(labels), dtype=bool)
                yield of | {"plant": ""} | judge_network(net, images, labels, nothing)
                for number, kind in enumerate(KINDS if not noise else ()):
                    rows = np.random.default_rng(100 * seed + number).permutation(len(labels))
                    rows = rows[: round(SHARE * len(labels))]
                    changed = images.clone()
                    changed[rows] = kind(images[rows]).float()
                    inside = np.isin(np.arange(len(labels)), rows)
                    yield of | {"plant": kind.__name__} | judge_network(net, changed, labels, inside)
                print(training.name, flush=True)


def summarise(rows: pd.DataFrame) -> pd.DataFrame:
    """Count what was found, where."""
    weak = rows[(rows["plant"] != "") & (rows["weakness"] >= WEAK)]
    hard = weak["errors elsewhere"] >= HARD
    clean = rows[rows["plant"] == ""]
    parts = {
        "sound networks": clean[clean["noise"] == 0],
        "a fifth of the labels wrong": clean[clean["noise"] > 0],
        f"weak plant, errs in less than {HARD:.0%} elsewhere": weak[~hard],
        f"weak plant, errs in {HARD:.0%} or more elsewhere": weak[hard],
    }
    return pd.DataFrame(
        {
            "networks": name,
            "number": len(part),
            "a slice is found": part["found"].mean(),
            "the right one": part["right"].mean(),
        }
        for name, part in parts.items()
    )


def groups(seed: int = 0) -> str:
    """Simulate groups: how often intervals cover the true accuracy, and how often sound groups alarm."""
    rng = np.random.default_rng(seed)
    covered, alarms = [], 0
    for _ in range(SIMULATIONS):
        labels, group = rng.integers(0, 3, 600), rng.integers(0, 6, 600)
        rate = np.array([0.05, 0.2, 0.4])[labels]
        wrong = rng.random(600) < rate
        masks = [group == number for number in range(6)]
        alarms += bool((holm(np.array([error_p_value(wrong, labels, mask) for mask in masks])) < LEVEL).any())
        truth = rng.uniform(0.5, 0.98, 6)
        hits = [int(rng.binomial(mask.sum(), share)) for mask, share in zip(masks, truth, strict=True)]
        ends = [wilson(hit, int(mask.sum())) for hit, mask in zip(hits, masks, strict=True)]
        covered += [low <= share <= high for (low, high), share in zip(ends, truth, strict=True)]
    return (
        f"Simulated groups: 95 % intervals cover {np.mean(covered):.1%} ({len(covered)} groups); "
        f"{alarms / SIMULATIONS:.1%} of {SIMULATIONS} data sets without a worse group alarm."
    )


def main() -> None:
    """Print both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, help="folder of the real sets; without it, groups only")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "ifa-real")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3])
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(groups())
    if options.root:
        print(to_markdown(summarise(pd.DataFrame(judge(options.root, options.folder, options.seeds)))))


if __name__ == "__main__":
    main()
