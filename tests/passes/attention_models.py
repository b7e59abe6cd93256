"""Small networks with attention in the forms that the field writes it in."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional

from lvc.compiler.ir.model import Model
from lvc.compiler.load import from_module
from lvc.compiler.pipeline.pipeline import Pipeline

HEADS, WIDTH, CHANNELS = 2, 8, 16

Change = Callable[[torch.Tensor], torch.Tensor]


class Attention(nn.Module):
    """Queries, keys and values from layers of their own; hooks change them on their way to the products."""

    def __init__(self, keys: int = HEADS, **hooks: Change) -> None:
        super().__init__()
        self.query = nn.Linear(CHANNELS, HEADS * WIDTH)
        self.key, self.value = (nn.Linear(CHANNELS, keys * WIDTH) for _ in range(2))
        self.output = nn.Linear(HEADS * WIDTH, CHANNELS)
        self.hooks = hooks

    def heads(self, name: str, made: torch.Tensor) -> torch.Tensor:
        split = made.unflatten(-1, (-1, WIDTH)).transpose(1, 2)
        return self.hooks[name](split) if name in self.hooks else split

    def forward(self, x: torch.Tensor, memory: torch.Tensor | None = None) -> torch.Tensor:
        memory = x if memory is None else memory
        q = self.heads("query", self.query(x))
        k, v = self.heads("key", self.key(memory)), self.heads("value", self.value(memory))
        mixed = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return self.output(self.hooks["mixed"](mixed) if "mixed" in self.hooks else mixed)


class Packed(nn.Module):
    """One layer for all three, in which each head has its own together; a bias by position and a mask."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.output = nn.Linear(CHANNELS, 3 * HEADS * WIDTH), nn.Linear(HEADS * WIDTH, CHANNELS)
        self.bias = nn.Parameter(torch.randn(HEADS, 9, 9))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (HEADS, 3, WIDTH)).permute(3, 0, 2, 1, 4).unbind(0)
        scores = q @ k.transpose(-2, -1) / WIDTH**0.5 + self.bias
        mask = torch.ones(9, 9).tril().log()
        return self.output(((scores + mask).softmax(-1) @ v).transpose(1, 2).flatten(2))


class Convolutions(nn.Module):
    """Attention over places of an image, its channels first: keys lie across, values are mixed from the left."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Conv2d(CHANNELS, HEADS * WIDTH, 1) for _ in range(3))
        self.output = nn.Conv2d(HEADS * WIDTH, CHANNELS, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        image = x.transpose(1, 2).unflatten(2, (3, 3))
        q, k, v = (layer(image).flatten(2).unflatten(1, (HEADS, -1)) for layer in (self.query, self.key, self.value))
        scores = (k.transpose(-2, -1) @ q * WIDTH**-0.5).softmax(-2)
        return self.output((v @ scores).flatten(1, 2).unflatten(2, (3, 3))).flatten(2).transpose(1, 2)


class Beside(nn.Module):
    """One convolution for all three, and values that a depthwise one adds to what is mixed, as in YOLO11."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.output = nn.Conv2d(CHANNELS, 3 * HEADS * WIDTH, 1), nn.Conv2d(HEADS * WIDTH, CHANNELS, 1)
        self.local = nn.Conv2d(HEADS * WIDTH, HEADS * WIDTH, 3, padding=1, groups=HEADS * WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        made = self.qkv(x.transpose(1, 2).unflatten(2, (3, 3))).flatten(2).unflatten(1, (HEADS, 3 * WIDTH))
        q, k, v = made.chunk(3, 2)
        mixed = v @ (q.transpose(-2, -1) @ k * WIDTH**-0.5).softmax(-1).transpose(-2, -1)
        image = mixed.flatten(1, 2).unflatten(2, (3, 3)) + self.local(v.flatten(1, 2).unflatten(2, (3, 3)))
        return self.output(image).flatten(2).transpose(1, 2)


class Network(nn.Module):
    """A patch each for nine places, attention among them, and scores."""

    def __init__(self, attention: nn.Module, *, crosses: bool = False) -> None:
        super().__init__()
        self.patches, self.norm = nn.Conv2d(3, CHANNELS, 4, 4), nn.LayerNorm(CHANNELS)
        self.attention, self.head = attention, nn.Linear(CHANNELS, 5)
        self.crosses = crosses

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = self.patches(image).flatten(2).transpose(1, 2)
        y = self.norm(x)
        z = self.attention(y[:, ::2], y) if self.crosses else self.attention(y)
        return self.head((z if self.crosses else x + z).mean(1))


class TorchAttention(nn.Module):
    """PyTorch's own."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.MultiheadAttention(CHANNELS, HEADS, batch_first=True)

    def forward(self, x: torch.Tensor, memory: torch.Tensor | None = None) -> torch.Tensor:
        memory = x if memory is None else memory
        mixed: torch.Tensor = self.inner(x, memory, memory, need_weights=False)[0]
        return mixed


def turned(x: torch.Tensor) -> torch.Tensor:
    """A rotation by position."""
    angle = torch.arange(x.shape[2], dtype=x.dtype)[:, None] * torch.tensor([1.0, 0.5, 0.1, 0.01])
    first, second = x.chunk(2, -1)
    return torch.cat([first * angle.cos() - second * angle.sin(), first * angle.sin() + second * angle.cos()], -1)


FORMS: dict[str, Callable[[], nn.Module]] = {
    "separate": lambda: Network(Attention()),
    "packed": lambda: Network(Packed()),
    "torch": lambda: Network(TorchAttention()),
    "crossed": lambda: Network(Attention(), crosses=True),
    "torch_crossed": lambda: Network(TorchAttention(), crosses=True),
    "convolutions": lambda: Network(Convolutions()),
}
"""Those in which both products are found."""


def traced(module: nn.Module, images: int = 1) -> Model:
    torch.manual_seed(0)
    for parameter in module.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, 0, 0.5)
    model = from_module(module.eval(), torch.randn(images, 3, 12, 12))
    return Pipeline.parse("O1").run(model)[0]
