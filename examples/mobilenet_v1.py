"""MobileNet v1 as Google trained it in TensorFlow: padding on the right and at the bottom only, ReLU6, epsilon 1e-3.

Howard et al., "MobileNets: efficient convolutional neural networks for mobile vision applications". Inputs are RGB,
from -1 to 1.

    lvc compile examples/mobilenet_v1.py:mobilenet_v1 --arg width=0.75 --weights mobilenet_v1_0.75_224_fp16.npz
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

CHANNELS = (64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024)
STRIDES = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)


class Layer(nn.Module):
    """A convolution without bias, batch normalisation and ReLU6, padded as TensorFlow pads even sizes."""

    def __init__(self, in_channels: int, channels: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.pads = (0, 1, 0, 1) if stride == 2 else (kernel // 2,) * 4
        self.conv = nn.Conv2d(in_channels, channels, kernel, stride, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(channels, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu6(self.bn(self.conv(functional.pad(x, self.pads))))


class MobileNetV1(nn.Module):
    """Thirteen pairs of a depthwise and a pointwise layer; ``width`` scales all channels."""

    def __init__(self, width: float = 1.0, classes: int = 1000) -> None:
        super().__init__()
        outer = [int(channels * width) for channels in CHANNELS]
        inner = [int(32 * width), *outer[:-1]]
        self.conv1 = Layer(3, inner[0], 3, stride=2)
        self.blocks = nn.Sequential(
            *(
                nn.Sequential(Layer(a, a, 3, stride, groups=a), Layer(a, b, 1))
                for a, b, stride in zip(inner, outer, STRIDES, strict=True)
            )
        )
        self.fc = nn.Linear(outer[-1], classes)

    def forward(self, input: Tensor) -> Tensor:
        return self.fc(self.blocks(self.conv1(input)).mean((2, 3)))


def mobilenet_v1(width: float = 1.0, classes: int = 1000) -> MobileNetV1:
    return MobileNetV1(width, classes)
