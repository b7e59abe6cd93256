"""The residual networks for 32x32 images of He et al., "Deep residual learning for image recognition", section 4.2.

Shortcuts have no weights (option A): where the size halves, every second pixel is taken and the new channels are zero.
The names of the weights are those of akamaster/pytorch_resnet_cifar10, whose trained files load as they are:

    lvc eval examples/cifar_resnet.py:resnet20 --weights resnet20-12fca82f.th --shape 1x3x32x32 --data test.npz
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


class Shortcut(nn.Module):
    """Takes every second pixel and puts zeros into the new channels, half of them before and half after the old."""

    def __init__(self, new_channels: int) -> None:
        super().__init__()
        self.before = new_channels // 2
        self.after = new_channels - self.before

    def forward(self, x: Tensor) -> Tensor:
        return functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.before, self.after))


class Block(nn.Module):
    """Two 3x3 convolutions around which the input is added."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut = Shortcut(channels - in_channels) if stride != 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return functional.relu(y + self.shortcut(x))


class CifarResNet(nn.Module):
    """A network of ``6 * blocks + 2`` layers for 32x32 images: three stages of 16, 32 and 64 channels."""

    def __init__(self, blocks: int, classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = self._stage(16, 16, blocks, stride=1)
        self.layer2 = self._stage(16, 32, blocks, stride=2)
        self.layer3 = self._stage(32, 64, blocks, stride=2)
        self.linear = nn.Linear(64, classes)

    @staticmethod
    def _stage(in_channels: int, channels: int, blocks: int, stride: int) -> nn.Sequential:
        first = Block(in_channels, channels, stride)
        return nn.Sequential(first, *(Block(channels, channels, 1) for _ in range(blocks - 1)))

    def forward(self, input: Tensor) -> Tensor:
        x = functional.relu(self.bn1(self.conv1(input)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean((2, 3)))


def resnet20(classes: int = 10) -> CifarResNet:
    return CifarResNet(3, classes)


def resnet56(classes: int = 10) -> CifarResNet:
    return CifarResNet(9, classes)


def resnet110(classes: int = 10) -> CifarResNet:
    return CifarResNet(18, classes)
