"""What the networks share: convolutions of any dimension, and the head that pools."""

from __future__ import annotations

from torch import Tensor, nn

CONVOLUTIONS = {2: nn.Conv2d, 3: nn.Conv3d}
NORMS = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


def block(
    n_in: int, n_out: int, *, kernel: int = 3, stride: int = 1, groups: int = 1, dimensions: int = 2
) -> nn.Sequential:
    """Convolution, batch norm, ReLU."""
    convolution = CONVOLUTIONS[dimensions](
        n_in, n_out, kernel, stride=stride, padding=kernel // 2, groups=groups, bias=False
    )
    return nn.Sequential(convolution, NORMS[dimensions](n_out), nn.ReLU())


class Pooled(nn.Module):
    """Features, their mean over space, one linear layer: where HiResCAM sums to the logit without its bias.

    Args:
        features: Gives ``(n, channels, *space)``.
        channels: Of the features.
        outputs: Classes, or 1 for regression, whose axis is then dropped.
        regression: Give ``(n,)``.
    """

    def __init__(self, features: nn.Module, channels: int, outputs: int, regression: bool = False) -> None:
        super().__init__()
        self.features, self.head = features, nn.Linear(channels, outputs)
        self.regression = regression

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``(n, outputs)``, or scores ``(n,)``."""
        output = self.head(self.features(images).flatten(2).mean(2))
        return output[:, 0] if self.regression else output
