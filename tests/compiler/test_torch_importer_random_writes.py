"""Random programs of views and in-place writes: the traced model computes what eager PyTorch does."""

# ruff: noqa: ARG005

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from traced import draw, traced

VIEWS: list[Callable[[Tensor, random.Random], Tensor]] = [
    lambda x, r: x[r.randrange(x.shape[0])] if x.dim() > 1 else x.view(-1),
    lambda x, r: x[r.randrange(x.shape[0]) :],
    lambda x, r: x[..., : r.randrange(1, x.shape[-1] + 1)],
    lambda x, r: x.transpose(0, -1),
    lambda x, r: x.reshape(-1),
    lambda x, r: x.reshape(-1, 1, x.shape[-1]),
    lambda x, r: x.squeeze(),
    lambda x, r: x.unsqueeze(r.randrange(x.dim() + 1)),
    lambda x, r: r.choice(x.chunk(2, -1)),
    lambda x, r: r.choice(x.unbind(0)) if x.dim() > 1 else x.view(-1),
    lambda x, r: x.flatten().unflatten(0, (1, -1)),
    lambda x, r: x.contiguous(),
]
WRITES: list[Callable[[Tensor, random.Random], Tensor]] = [
    lambda x, r: x.mul_(r.choice([2.0, -1.0, 0.5])),
    lambda x, r: x.add_(1),
    lambda x, r: x.relu_(),
    lambda x, r: x.fill_(r.random()),
    lambda x, r: x.copy_(torch.full_like(x, 3.0).cumsum(-1)),
    lambda x, r: x.clamp_(-0.5, 0.5),
    lambda x, r: x.sub_(x.clone()),
]


class Program(nn.Module):
    """The same random steps each time it runs: make a view of a known tensor, write one, or compute a new one."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.seed = seed

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        choose = random.Random(self.seed)
        known = [x * 1]
        for _ in range(12):
            tensor = choose.choice(known)
            step = choose.random()
            if step < 0.5 and tensor.numel() > 1:
                known.append(choose.choice(VIEWS)(tensor, choose))
            elif step < 0.9:
                choose.choice(WRITES)(tensor, choose)
            else:
                known.append(tensor + 1)
        return tuple(known)


@pytest.mark.parametrize("seed", range(20))
def test_random_program_is_what_eager_does(seed: int) -> None:
    traced(Program(seed), *draw((3, 4, 6)))
