"""What is no number stays none: softmax of nothing but minus infinity has no value, as in PyTorch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import lvc


@pytest.mark.parametrize("function", [torch.softmax, torch.log_softmax])
def test_softmax(function: object) -> None:
    class Net(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return function(x, -1)  # type: ignore[operator, no-any-return]

    x = torch.zeros(4, 40)
    x[1] = -torch.inf
    x[2, 3], x[3, 5] = -torch.inf, torch.nan
    found = lvc.load(lvc.compile(lvc.from_module(Net(), x), "O2", "native", verify=False))(x.numpy())
    np.testing.assert_allclose(found, Net()(x).numpy(), rtol=1e-5)
