"""Specs of tensors: one text for each element type, with or without PyTorch, and arrays that are none."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lvc.compiler.errors import UsageError
from lvc.compiler.ir.spec import ELEMENT_TYPES, TensorSpec


@pytest.mark.parametrize("name", ELEMENT_TYPES)
def test_an_element_type_is_the_same_from_text_and_from_tensors(name: str) -> None:
    parsed = TensorSpec.parse(f"{name}[2,3]")
    tensor = torch.zeros(2, 3, dtype=parsed.dtype)
    assert TensorSpec.of(tensor) == parsed == TensorSpec((2, 3), parsed.dtype)
    assert hash(TensorSpec.of(tensor)) == hash(parsed)
    assert str(parsed) == f"{name}[2,3]"
    assert parsed.bytes == 6 * tensor.itemsize
    if name != "bf16":
        assert TensorSpec.of_array(tensor.numpy()) == parsed


def test_types_without_a_short_name_keep_their_own() -> None:
    complex_numbers = TensorSpec.of(torch.zeros(2, dtype=torch.complex64))
    assert str(complex_numbers) == "complex64[2]"
    assert complex_numbers.dtype is torch.complex64
    assert TensorSpec.of_array(np.zeros(2, np.complex64)) == complex_numbers


@pytest.mark.parametrize("dtype", [">f4", "U3", "O", "M8[s]", "f4,f4"])
def test_arrays_that_hold_no_numbers_are_refused(dtype: str) -> None:
    with pytest.raises(UsageError, match="not an array of numbers"):
        TensorSpec.of_array(np.empty(2, np.dtype(dtype)))
