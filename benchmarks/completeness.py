"""Contributions behind norms and attention: what their sum says of the logit, by the plain gradient and by the rule.

python -m benchmarks.completeness            # trains six small networks on digits; about ten minutes on one core
.zoo/bin/python -m benchmarks.completeness --library    # timm's own architectures, small, with trained heads

The pictures are empty but for a digit in a random place, a tenth of their area. "object" is how many times its share of
the picture the digit holds of the map's positive part. Completeness is that of the explained class within classes, as
``consistency`` judges it, with what comes through class tokens and the residual stream ("without a place").
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate
from torch.utils.data import DataLoader, TensorDataset

from lightning_ifa import analyze
from lightning_ifa.features.extractor import FeatureExtractor

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))

from mnist import digits

SIDE, OBJECT, CLASSES, LENGTH = 44, 14, 4, 320
TRAIN, VALIDATION = slice(600, 2400), slice(0, 400)


class Attention(nn.Module):
    """A pre-norm transformer block; tokens ``(n, t, c)``."""

    def __init__(self, width):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, 4, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm1(x)
        x = x + self.attn(h, h, h, need_weights=False)[0]
        return x + self.mlp(self.norm2(x))


class VisionTransformer(nn.Module):
    """Patches of 4 pixels, read from a class token or from the mean."""

    def __init__(self, width=32, depth=3, token=True):
        super().__init__()
        self.token = nn.Parameter(0.02 * torch.randn(1, 1, width)) if token else None
        self.patch = nn.Conv2d(1, width, 4, 4)
        self.position = nn.Parameter(0.02 * torch.randn(1, (SIDE // 4) ** 2 + token, width))
        self.blocks = nn.Sequential(*(Attention(width) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patch(x).flatten(2).transpose(1, 2)
        if self.token is not None:
            tokens = torch.cat([self.token.expand(len(x), -1, -1), tokens], 1)
        tokens = self.norm(self.blocks(tokens + self.position))
        return self.head(tokens.mean(1) if self.token is None else tokens[:, 0])


class ChannelNorm(nn.LayerNorm):
    """LayerNorm of the channels of maps ``(n, c, h, w)``."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ConvNeXtBlock(nn.Module):
    """Depthwise convolution, norm, two linear layers, residual."""

    def __init__(self, width):
        super().__init__()
        self.branch = nn.Sequential(
            nn.Conv2d(width, width, 5, padding=2, groups=width), ChannelNorm(width),
            nn.Conv2d(width, 2 * width, 1), nn.GELU(), nn.Conv2d(2 * width, width, 1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x)


class ConvNeXt(nn.Module):
    """Pooling, then LayerNorm, then a linear head."""

    def __init__(self, width=32):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, width, 4, 4), ChannelNorm(width))
        self.stage = nn.Sequential(ConvNeXtBlock(width), ConvNeXtBlock(width))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.stage(self.stem(x)).mean((2, 3))))


class Hierarchy(nn.Module):
    """Swin's plan in small: a stage of tokens, four merged into one of twice the width, a second stage, norm, mean."""

    def __init__(self, width=16):
        super().__init__()
        self.patch, self.first = nn.Conv2d(1, width, 2, 2), Attention(width)
        self.merge_norm, self.merge = nn.LayerNorm(4 * width), nn.Linear(4 * width, 2 * width, bias=False)
        self.second = nn.Sequential(Attention(2 * width), Attention(2 * width))
        self.norm, self.head = nn.LayerNorm(2 * width), nn.Linear(2 * width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.patch(x)
        n, c, h, w = maps.shape
        tokens = self.first(maps.flatten(2).transpose(1, 2)).reshape(n, h // 2, 2, w // 2, 2, c)
        tokens = self.merge(self.merge_norm(tokens.permute(0, 1, 3, 2, 4, 5).reshape(n, h * w // 4, 4 * c)))
        return self.head(self.norm(self.second(tokens)).mean(1))


class Encoder(nn.Module):
    """A 1-D encoder: convolutions make tokens of a signal, two transformer blocks, norm, mean."""

    def __init__(self, width=32):
        super().__init__()
        self.patch = nn.Sequential(nn.Conv1d(1, width, 9, 4, 4), nn.GELU(), nn.Conv1d(width, width, 5, 2, 2))
        self.position = nn.Parameter(0.02 * torch.randn(1, LENGTH // 8, width))
        self.blocks = nn.Sequential(Attention(width), Attention(width))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.blocks(self.patch(x).transpose(1, 2) + self.position)).mean(1))


NETWORKS = {
    "ConvNeXt": (ConvNeXt, "stage.1"),
    "hierarchical transformer": (Hierarchy, "second.0"),
    "pooled ViT": (lambda: VisionTransformer(token=False), "blocks.1"),
    "class-token ViT, norm": (VisionTransformer, "blocks.2.norm1"),
    "class-token ViT, stream": (VisionTransformer, "blocks.1"),
    "1-D encoder": (Encoder, "blocks.0"),
}
"""What makes each network, and the layer that is looked at."""


def library_networks():
    """Timm's own architectures, small, at the layer that is found."""
    import timm
    from timm.models.beit import Beit
    from timm.models.convnext import ConvNeXt as TimmConvNeXt
    from timm.models.deit import VisionTransformerDistilled
    from timm.models.swin_transformer import SwinTransformer
    from timm.models.vision_transformer import VisionTransformer as TimmVit

    few = {"in_chans": 1, "num_classes": CLASSES}
    vit = {"img_size": SIDE, "patch_size": 4, "embed_dim": 32, "depth": 3, "num_heads": 4, **few}
    return {
        "ConvNeXt": (lambda: TimmConvNeXt(depths=(1, 1, 1, 1), dims=(16, 24, 32, 48), patch_size=1, **few), None),
        "Swin": (
            lambda: SwinTransformer(
                img_size=SIDE, patch_size=2, embed_dim=16, depths=(2, 2), num_heads=(2, 4), window_size=11, **few
            ),
            None,
        ),
        "pooled ViT": (lambda: TimmVit(class_token=False, global_pool="avg", **vit), None),
        "EfficientNet-Lite": (lambda: timm.create_model("efficientnet_lite0", **few), None),
        "ViT": (lambda: TimmVit(**vit), None),
        "DeiT, distilled": (lambda: VisionTransformerDistilled(**vit), None),
        "BEiT, class token": (lambda: Beit(global_pool="token", **vit), None),
    }


def pictures(part: slice) -> tuple[Tensor, Tensor, Tensor]:
    """Digits below ``CLASSES`` in random places of empty pictures, labels, and masks of where they are."""
    images, labels = (values[part] for values in digits(0))
    images, labels = images[labels < CLASSES], labels[labels < CLASSES]
    small = interpolate(images, (OBJECT, OBJECT), mode="area")
    places = torch.randint(0, SIDE - OBJECT + 1, (len(images), 2), generator=torch.Generator().manual_seed(1)).tolist()
    x, inside = torch.zeros(len(images), 1, SIDE, SIDE), torch.zeros(len(images), SIDE, SIDE)
    for row, (top, left) in enumerate(places):
        x[row, :, top : top + OBJECT, left : left + OBJECT] = small[row]
        inside[row, top : top + OBJECT, left : left + OBJECT] = 1
    return x, labels, inside


def trained(make, x: Tensor, y: Tensor, epochs: int) -> nn.Module:
    """Train a network."""
    torch.manual_seed(0)
    model = make()
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=epochs * -(-len(x) // 32))
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(32):
            optimizer.zero_grad()
            cross_entropy(model(x[rows]), y[rows]).backward()
            optimizer.step()
            schedule.step()
    return model.eval()


def signals(part: slice) -> tuple[Tensor, Tensor, Tensor]:
    """Bursts of one of four frequencies, a tenth of a noisy signal; labels, and masks of where they are."""
    count = (part.stop - part.start) // 2
    generator = torch.Generator().manual_seed(part.start)
    y = torch.randint(0, CLASSES, (count,), generator=generator)
    burst = LENGTH // 10
    starts = torch.randint(0, LENGTH - burst + 1, (count,), generator=generator).tolist()
    x, inside = 0.1 * torch.randn(count, 1, LENGTH, generator=generator), torch.zeros(count, LENGTH)
    for row, start in enumerate(starts):
        wave = torch.sin(torch.arange(burst) * (0.4 + 0.35 * y[row]) + 6 * torch.rand((), generator=generator))
        x[row, 0, start : start + burst] += wave
        inside[row, start : start + burst] = 1
    return x, y, inside


def with_trained_head(make, x: Tensor, y: Tensor) -> nn.Module:
    """Make a network with random weights and fit its last linear layers to what they read."""
    torch.manual_seed(0)
    model = make().train()
    with torch.no_grad():
        for part in x.split(64):  # statistics of batch norms
            model(part)
        model.eval()
        for head in [m for m in model.modules() if isinstance(m, nn.Linear) and m.out_features == CLASSES]:
            seen: list[Tensor] = []
            handle = head.register_forward_pre_hook(lambda module, args, seen=seen: seen.append(args[0]))
            for part in x.split(64):
                model(part)
            handle.remove()
            features = torch.cat(seen)
            scale = features.std(0).clamp(min=1e-6)
            fit = LogisticRegression(C=0.1, max_iter=500).fit((features / scale).numpy(), y.numpy())
            head.weight.copy_(torch.from_numpy(fit.coef_) / scale)
            head.bias.copy_(torch.from_numpy(fit.intercept_))
    return model


def share_inside(cams: np.ndarray, inside: Tensor) -> float:
    """How many times its share of the picture the object holds of the map's positive part."""
    cover = interpolate(inside[:, None], cams.shape[1:], mode="area")[:, 0].flatten(1).numpy()
    positive = cams.reshape(len(cams), -1).clip(0)
    share = (positive * cover).sum(1) / np.maximum(positive.sum(1), 1e-12)
    return float(share.mean() / cover.mean())


def time_ratio(model: nn.Module, loader: DataLoader, layer: str, gradient: str, rounds: int = 5) -> float:
    """CPU time of gradients over that of bare forward passes, median."""
    extraction, x = FeatureExtractor(model, layer, "multiclass", gradient=gradient), loader.dataset.tensors[0]
    ratios = []
    for _ in range(rounds):
        with extraction.session():
            start = time.process_time()
            with torch.inference_mode():
                for part in x.split(loader.batch_size):
                    model(part)
            bare, start = time.process_time() - start, time.process_time()
            for batch in extraction.batches(loader, np.arange(len(x))):
                batch.gradients(batch.readout.predictions)
            ratios.append((time.process_time() - start) / bare)
    return float(np.median(ratios))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=25)
    parser.add_argument("--only", nargs="*", help="names of networks")
    parser.add_argument("--library", action="store_true", help="timm's architectures with trained heads")
    given = parser.parse_args()
    networks = library_networks() if given.library else NETWORKS
    drawn = {make: (make(TRAIN), make(VALIDATION)) for make in (pictures, signals)}
    print("| network | layer | accuracy | gradient | completeness | health | without a place | object | time |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name in given.only or networks:
        make, layer = networks[name]
        (x, y, _), (vx, vy, inside) = drawn[signals if name == "1-D encoder" else pictures]
        loader = DataLoader(TensorDataset(vx, vy), 64)
        model = with_trained_head(make, x, y) if given.library else trained(make, x, y, given.epochs)
        accuracy = float((model(vx).argmax(1) == vy).float().mean())
        for gradient in ("plain", "conservative"):
            report = analyze(model, loader, layer=layer, gradient=gradient)
            finding, table = report.findings["consistency"], report.tables["validation"]
            details, found = finding.details, table.layer
            print(
                f"| {name} | {found} | {accuracy:.2f} | {gradient} | {details['completeness']:.3f} | "
                f"{finding.health:.2f} | {details.get('unplaced', 0.0):.2f} | {share_inside(table.cams, inside):.1f} | "
                f"{time_ratio(model, loader, found, gradient):.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
