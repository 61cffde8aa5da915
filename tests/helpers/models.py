"""Small networks with the habits of the large ones, and data that they can learn."""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

CLASSES = 3


class PoolNet(nn.Module):
    """Convolutions with in-place ReLU, global average pooling, linear head."""

    def __init__(self, channels=8, n_in=1):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(n_in, 4, 3, padding=1, bias=False),
            nn.BatchNorm2d(4),
            nn.ReLU(inplace=True),
            nn.Conv2d(4, channels, 3, padding=1),
            nn.ReLU(inplace=True),
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(channels, CLASSES)

    def forward(self, x):
        return self.head(self.pool(self.features(x)).flatten(1))


class MlpNet(nn.Module):
    """VGG habits: max pooling, flatten, two linear layers with dropout."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 6, 3, padding=1)
        self.act = nn.ReLU(inplace=True)
        self.pool = nn.MaxPool2d(3)
        self.head = nn.Sequential(nn.Linear(6 * 16, 16), nn.ReLU(inplace=True), nn.Dropout(), nn.Linear(16, CLASSES))

    def forward(self, x):
        return self.head(self.pool(self.act(self.conv(x))).flatten(1))


class ResidualNet(nn.Module):
    """ResNet habits: one in-place ReLU used twice, ``out += identity`` on a batch norm's output."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 6, 3, stride=2, padding=1)
        self.conv1, self.bn1 = nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.conv2, self.bn2 = nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.relu = nn.ReLU(inplace=True)
        self.head = nn.Linear(6, CLASSES)

    def forward(self, x):
        identity = self.stem(x)
        out = self.relu(self.bn1(self.conv1(identity)))
        out = self.bn2(self.conv2(out))
        out += identity
        return self.head(self.relu(out).mean((2, 3)))


class HardswishNet(nn.Module):
    """MobileNet and DenseNet habits: in-place Hardswish after a batch norm, functional in-place ReLU on features."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 5, 3), nn.BatchNorm2d(5), nn.Hardswish(inplace=True), nn.Conv2d(5, 7, 3), nn.BatchNorm2d(7)
        )
        self.head = nn.Linear(7, CLASSES)

    def forward(self, x):
        features = self.features(x)
        return self.head(nn.functional.relu(features, inplace=True).mean((2, 3)))


class SignalNet(nn.Module):
    """1-D regression."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Sequential(nn.Conv1d(2, 5, 5, padding=2), nn.ReLU())
        self.head = nn.Linear(5, 1)

    def forward(self, x):
        return self.head(self.conv(x).mean(2))


class VolumeNet(nn.Module):
    """3-D, one logit."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.ReLU())
        self.head = nn.Linear(4, 1)

    def forward(self, x):
        return self.head(self.conv(x).mean((2, 3, 4)))[:, 0]


class SegmentationNet(nn.Module):
    """Encoder, decoder, class planes at input size."""

    def __init__(self, classes=CLASSES):
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(1, 6, 3, stride=2, padding=1), nn.ReLU())
        self.decoder = nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(6, 5, 3, padding=1), nn.ReLU())
        self.planes = nn.Conv2d(5, classes, 1)

    def forward(self, x):
        return self.planes(self.decoder(self.encoder(x)))


class TokenNet(nn.Module):
    """A vision transformer: patches, class and register tokens, two encoder layers; reads one token or their mean."""

    def __init__(self, reads="class", norm_first=True, registers=2, patch=4):
        super().__init__()
        self.reads, self.prefix = reads, 1 + registers
        self.patches = nn.Conv2d(1, 8, patch, stride=patch)
        self.first = nn.Parameter(torch.randn(1, self.prefix, 8))
        layer = nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True, norm_first=norm_first)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x):
        patches = self.patches(x).flatten(2).transpose(1, 2)
        tokens = self.norm(self.encoder(torch.cat([self.first.expand(len(x), -1, -1), patches], dim=1)))
        read = {"class": tokens[:, 0], "patches": tokens[:, self.prefix :].mean(1), "all": tokens.mean(1)}
        return self.head(read[self.reads])


class LastChannelNet(nn.Module):
    """Swin and ConvNeXt habits: channels last, layer norm over them."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 6, 4, stride=4)
        self.norm = nn.LayerNorm(6)
        self.head = nn.Linear(6, CLASSES)

    def forward(self, x):
        return self.head(self.norm(self.conv(x).movedim(1, -1)).mean((1, 2)))


class StacksNet(nn.Module):
    """Two input stacks kept apart by grouped convolutions until the head, as for several MRI series."""

    def __init__(self, groups=2):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(groups, 4 * groups, 3, padding=1, groups=groups),
            nn.ReLU(),
            nn.Conv2d(4 * groups, 3 * groups, 3, padding=1, groups=groups),
            nn.ReLU(inplace=True),
        )
        self.head = nn.Linear(3 * groups, CLASSES)

    def forward(self, x):
        return self.head(self.features(x).mean((2, 3)))


NETS = {
    "pool": (PoolNet, (4, 1, 12, 12)),
    "mlp": (MlpNet, (4, 1, 12, 12)),
    "residual": (ResidualNet, (4, 1, 12, 12)),
    "hardswish": (HardswishNet, (4, 1, 12, 12)),
    "signal": (SignalNet, (4, 2, 20)),
    "volume": (VolumeNet, (4, 1, 5, 6, 7)),
    "segmentation": (SegmentationNet, (4, 1, 8, 10)),
    "stacks": (StacksNet, (4, 2, 7, 9)),
}
"""Name to network and shape of an input."""


def build(name):
    """An untrained network of ``NETS`` whose batch norms do something, and an input."""
    torch.manual_seed(0)
    kind, shape = NETS[name]
    model = kind()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1, 0.3)
            nn.init.normal_(module.running_mean, 0, 0.3)
    return model.eval(), torch.randn(shape)


def first_score(output):
    """One number a sample, whatever the output's form."""
    return output.reshape(len(output), -1)[:, 0] if output.dim() < 3 else output[:, 0].flatten(1).mean(1)


class Squares(Dataset):
    """Images 1 x 12 x 12 with a bright square whose place is the class; noise, and optional random shifts."""

    def __init__(self, n, seed=0, augmented=False):
        generator = torch.Generator().manual_seed(seed)
        self.labels = torch.arange(n) % CLASSES
        self.images = torch.randn(n, 1, 12, 12, generator=generator) * 0.3
        for image, label in zip(self.images, self.labels, strict=True):
            place = 1 + 3 * int(label)
            image[:, place : place + 4, place : place + 4] += 1.0
        self.augmented = augmented

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        image = self.images[index]
        if self.augmented:
            image = image.roll(int(torch.randint(-1, 2, ())), -1) + 0.1 * torch.randn(image.shape)
        return image, self.labels[index]


def loader(n=60, seed=0, batch_size=16, **options):
    augmented = options.pop("augmented", False)
    return DataLoader(Squares(n, seed, augmented), batch_size, **options)


def trained(model, steps=60, seed=0):
    """Train a little, so that most samples are classified correctly."""
    torch.manual_seed(seed)
    data = Squares(96, seed=seed + 1)
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    model.train()
    for _ in range(steps):
        loss = nn.functional.cross_entropy(model(data.images), data.labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


class Steps:
    """What a module of either Lightning package does, beside its base class."""

    def __init__(self, rate=0.01):
        super().__init__()
        self.net, self.rate = PoolNet(), rate

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, batch_idx):
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", nn.functional.cross_entropy(self(batch[0]), batch[1]))

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), self.rate)
