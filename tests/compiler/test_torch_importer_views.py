"""Writing in place: through views, into views, and reading views of what was written since."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from traced import draw, op_names, traced

from lvc.compiler.errors import CompileError
from lvc.compiler.load import from_module


def _write_column(x: Tensor) -> Tensor:
    x = x * 1
    x[:, 0] = 7.0
    return x


def _add_to_rows(x: Tensor) -> Tensor:
    x = x * 1
    x[:2] += x[2:]
    return x


def _read_a_view_made_before(x: Tensor) -> Tensor:
    x = x * 1
    row = x[0]
    x.mul_(2)
    return row + x[1]


def _write_through_two_views(x: Tensor) -> tuple[Tensor, Tensor]:
    x = x * 1
    corner = x[1:, 2:]
    corner[0].fill_(3)
    return x, corner


def _write_through_a_transpose(x: Tensor) -> Tensor:
    x = x * 1
    x.t()[2].zero_()
    return x


def _write_through_a_reshape(x: Tensor) -> Tensor:
    x = x * 1
    x.view(2, 2, 6)[1, 0] = -1
    return x


def _reshape_that_copies(x: Tensor) -> tuple[Tensor, Tensor]:
    x = x * 1
    flat = x.t().reshape(-1)
    flat.add_(1)
    return x, flat


def _write_into_a_chunk(x: Tensor) -> Tensor:
    x = x * 1
    first, second = x.chunk(2, 1)
    first.add_(second)
    return x


def _write_into_an_unbound_row(x: Tensor) -> Tensor:
    x = x * 1
    rows = x.unbind(0)
    rows[2].relu_()
    return x + rows[2]


def _write_into_the_input(x: Tensor) -> Tensor:
    y = x.view(-1)
    y.clamp_(min=0)
    return x


def _keep_the_old_value(x: Tensor) -> Tensor:
    y = x * 1
    old = y.clone()
    y += 1
    return old * y


def _copy_with_broadcast(x: Tensor) -> Tensor:
    y = torch.zeros(4, 6)
    y[1:].copy_(x[0])
    return y + x


def _build_a_mask(x: Tensor) -> Tensor:
    mask = x.new_zeros(4, 6)
    for i in range(3):
        mask[i : i + 2, 2 * i :] = i + 1
    return x.masked_fill(mask == 2, -5.0)


def _narrow_result_type(x: Tensor) -> Tensor:
    y = (x > 0).float()
    y += x.double()
    return y


WRITES = [value for name, value in list(globals().items()) if name.startswith("_") and callable(value)]


@pytest.mark.parametrize("function", WRITES, ids=lambda function: function.__name__.strip("_"))
def test_writes_are_what_eager_does(function: Callable[[Tensor], Tensor]) -> None:
    traced(function, *draw((4, 6)))


def test_writes_that_touch_no_view_cost_nothing() -> None:
    model = traced(lambda x: nn.functional.relu(x + 1, inplace=True).mul_(2).sigmoid_(), *draw((4, 6)))
    assert op_names(model) == ["add", "relu", "mul", "sigmoid"]


def test_mask_of_constants_is_evaluated() -> None:
    assert op_names(traced(_build_a_mask, *draw((4, 6)))) == ["where"]


def test_write_to_a_copy_of_a_parameter_stays_trainable() -> None:
    """Swin v2 clears the middle third of a bias so."""

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bias = nn.Parameter(torch.randn(6))

        def forward(self, x: Tensor) -> Tensor:
            bias = self.bias.clone()
            bias[2:4].zero_()
            return x + bias

    model = traced(Layer(), *draw((4, 6)))
    assert op_names(model) == ["slice", "slice", "cat", "add"]
    (output,) = model.module(draw((4, 6))[0])
    output.sum().backward()
    (parameter,) = model.module.parameters()
    assert parameter.grad is not None
    assert parameter.grad.tolist() == [4, 4, 0, 0, 4, 4]


def test_model_that_keeps_state_is_refused() -> None:
    class Counter(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("calls", torch.zeros(1))

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            return x * self.calls

    with pytest.raises(CompileError, match="the model writes to its own 'calls'"):
        from_module(Counter(), *draw((4, 6)))


def test_write_that_cannot_be_expressed_is_refused_with_its_line() -> None:
    class Stripes(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            x = x * 1
            x[:, ::2] = 0
            return x

    with pytest.raises(CompileError) as caught:
        from_module(Stripes(), *draw((4, 6)))
    assert "aten.slice.Tensor (it writes one in 2 elements)" in caught.value.where
    assert "test_torch_importer_views.py" in caught.value.where
