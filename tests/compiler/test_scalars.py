"""A tensor without dimensions takes part in everything that takes a dimension, as PyTorch lets it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

import lvc


def zero(x: Tensor) -> Tensor:
    """An index without dimensions."""
    return (x * 0).long()


CASES: dict[str, Callable[[Tensor], Tensor]] = {
    "gather": lambda x: torch.gather(x, 0, zero(x)),
    "gather one": lambda x: torch.gather(x, 0, zero(x).reshape(1)),
    "gather three": lambda x: torch.gather(x, -1, zero(x).reshape(1).expand(3)),
    "index select": lambda x: torch.index_select(x, 0, zero(x)),
    "softmax": lambda x: torch.softmax(x, 0),
    "log softmax": lambda x: torch.log_softmax(x, -1),
    "cumsum": lambda x: torch.cumsum(x, 0),
    "argmax": lambda x: x.argmax(0),
    "sum": lambda x: x.sum(0),
    "sum kept": lambda x: x.sum(0, keepdim=True),
    "product": lambda x: x.prod(0),
    "mean": lambda x: x.mean(0),
    "maximum": lambda x: x.amax(-1),
    "maximum and place": lambda x: x.max(0).values,
    "all": lambda x: (x > 0).all(0),
    "variance": lambda x: x.var(0, unbiased=False),
    "norm": lambda x: x.norm(dim=0),
    "logsumexp": lambda x: x.logsumexp(0),
    "flatten": lambda x: x.flatten(),
    "squeeze": lambda x: x.squeeze(0),
    "unsqueeze": lambda x: x.unsqueeze(-1),
    "stack": lambda x: torch.stack([x, x]),
    "expand": lambda x: x.expand(2, 3),
    "roll": lambda x: torch.roll(x, 1),
    "flip": lambda x: torch.flip(x, []),
}


@pytest.mark.parametrize("name", CASES)
def test_scalars(name: str) -> None:
    class Net(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return CASES[name](x.sum())

    x = torch.arange(6.0).reshape(2, 3).cos()
    wanted = Net()(x).numpy()
    model = lvc.from_module(Net().eval(), x)
    artefact = lvc.compile(model, "O2", "native", verify=False)
    for found in (model(x), lvc.load(artefact)(x.numpy())):
        result = np.asarray(found[0] if isinstance(found, tuple) else found)
        assert result.shape == wanted.shape
        assert result.dtype == wanted.dtype
        np.testing.assert_allclose(result, wanted, rtol=1e-6)
