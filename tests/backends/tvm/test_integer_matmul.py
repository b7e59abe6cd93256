"""Products of computed matrices of 8 bits against their definition, bit for bit."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sketch import Sketch
from test_integer import DTYPES, check_exact, whole
from test_integer_products import zero_points
from tvm.s_tir import Schedule

from lvc.backends.tvm.cpu.code_generator import CpuCodeGenerator
from lvc.backends.tvm.cpu.isa.avx2 import Avx2
from lvc.backends.tvm.cpu.kernels import batch_matmul
from lvc.backends.tvm.cpu.vector import Vector
from lvc.backends.tvm.lower import lower
from lvc.compiler.ir.model import Model
from lvc.compiler.ir.operators import integer


def product(data: st.DataObject, *sizes: int, lead: tuple[int, ...]) -> tuple[Model, list[np.ndarray]]:
    """A product of two inputs on a grid of 8 bits, behind a scale for all of it, and values for them."""
    draw, (m, k, n) = data.draw, sizes
    shapes = [(*lead, m, k), (*lead, k, n)]
    dtypes = [draw(st.sampled_from(DTYPES)) for _ in shapes]
    zeros = [draw(zero_points(dtype)) for dtype in dtypes]
    sketch = Sketch()
    inputs = [sketch.input(*shape, dtype=dtype) for shape, dtype in zip(shapes, dtypes, strict=True)]
    sums = sketch.call(integer.matmul, *inputs, *zeros, group="product")
    multiplier = sketch.stored(torch.tensor([300.3 / (k * 255 * 255)]))
    rounded = sketch.call(integer.requantise, sums, multiplier, 0, 5, -128, 127, group="product")
    values = [whole(draw(st.integers(0, 3)), dtype, *shape) for dtype, shape in zip(dtypes, shapes, strict=True)]
    return sketch.model(rounded), values


@settings(max_examples=10, deadline=None)
@given(st.data())
def test_products_of_matrices(data: st.DataObject) -> None:
    draw = data.draw
    sizes = (draw(st.integers(1, most)) for most in (20, 40, 40))
    model, values = product(data, *sizes, lead=draw(st.sampled_from([(), (3,), (2, 2)])))
    check_exact(model, *values)


def test_sums_at_the_bound_of_32_bits_do_not_overflow() -> None:
    """As deep as `lower-to-integer` allows where all factors are 255 steps from zero."""
    depth = (2**31 - 1) // 255**2
    sketch = Sketch()
    left, right = (sketch.input(*shape, dtype=torch.uint8) for shape in ((1, 2, depth), (1, depth, 9)))
    model = sketch.model(sketch.call(integer.matmul, left, right, 0, 255))
    values = np.full((1, 2, depth), 255, np.uint8), np.zeros((1, depth, 9), np.uint8)
    assert model(*values)[0].min() == -depth * 255**2
    check_exact(model, *values)


def test_stacks_have_the_kernel_of_pairs_and_broadcasts_the_general_form() -> None:
    for shape, has_kernel in (((4, 5, 6), True), ((1, 5, 6), False)):
        sketch = Sketch()
        left, right = sketch.input(*shape, dtype=torch.int8), sketch.input(4, 6, 3, dtype=torch.uint8)
        model = sketch.model(sketch.call(integer.matmul, left, right, -3, 7))
        (step,) = lower(model, CpuCodeGenerator(Vector(Avx2()))).steps
        assert (getattr(step.schedule, "function", None) is batch_matmul.schedule) == has_kernel
        step.schedule(Schedule(step.function), Vector(Avx2()))  # whose failure would give a plain schedule
        check_exact(model, whole(0, torch.int8, *shape), whole(2, torch.uint8, 4, 6, 3))


def test_a_stored_factor_is_no_weight_of_a_layer() -> None:
    """Its zero point is any, and kernels of stored weights multiply floating-point numbers or the weights of layers."""
    for dtype in DTYPES:
        sketch = Sketch()
        stored = sketch.stored(torch.arange(-24, 24, dtype=torch.int8).reshape(8, 6))
        model = sketch.model(sketch.call(integer.matmul, sketch.input(5, 8, dtype=dtype), stored, 3, -2))
        check_exact(model, whole(0, dtype, 5, 8))
