"""Weights in few bits: how they lie in bytes, and what they stand for."""

from __future__ import annotations

import pytest
import torch

from lvc.compiler.ir.operators.coded_weights import DECODE, pack, packed_bytes, unpack


def test_the_first_code_is_in_the_lowest_bits() -> None:
    assert pack(torch.tensor([1, 2, 3]), 4).tolist() == [0x21, 0x03]
    assert pack(torch.tensor([1, 2, 3, 0, 1]), 2).tolist() == [0b00111001, 0b01]
    assert pack(torch.tensor([7, 255]), 8).tolist() == [7, 255]


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("count", [1, 2, 7, 64])
def test_round_trip(bits: int, count: int) -> None:
    codes = torch.arange(count) * 7 % (1 << bits)
    packed = pack(codes, bits)
    assert len(packed) == packed_bytes(count, bits)
    assert unpack(packed, bits, count).equal(codes.to(torch.uint8))


def test_values_times_the_scale_of_the_group() -> None:
    codes = pack(torch.tensor([0, 1, 2, 3, 3, 2, 1, 0]), 2)
    values, scale = torch.tensor([-1.0, 0.0, 0.5, 1.0]), torch.tensor([[1.0, 10.0], [2.0, 4.0]])
    weight = DECODE(codes, values, scale, 2, [2, 4, 1])
    assert weight.reshape(2, 4).tolist() == [[-1.0, 0.0, 5.0, 10.0], [2.0, 1.0, 0.0, -4.0]]
    assert DECODE(codes.to("meta"), values.to("meta"), scale.to("meta"), 2, [2, 4, 1]).shape == (2, 4, 1)


@pytest.mark.parametrize(
    ("codes", "values", "scale", "bits", "shape"),
    [
        (4, 4, (2, 1), 2, [2, 4]),
        (2, 16, (2, 1), 2, [2, 4]),
        (2, 4, (3, 1), 2, [2, 4]),
        (2, 4, (2, 3), 2, [2, 4]),
        (2, 4, (2, 1), 3, [2, 4]),
        (2, 4, (2, 1), 2, []),
    ],
)
def test_what_does_not_fit_is_refused(
    codes: int, values: int, scale: tuple[int, int], bits: int, shape: list[int]
) -> None:
    with pytest.raises(TypeError):
        DECODE(torch.zeros(codes, dtype=torch.uint8), torch.zeros(values), torch.ones(scale), bits, shape)
