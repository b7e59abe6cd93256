"""Products of small matrices, emulated: bytes to the last bit, bfloat16 as the rewritten graph in PyTorch has it."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
import tvm
from hypothesis import given
from hypothesis import strategies as st
from sketch import Sketch
from test_arm import TARGETS, need
from test_integer import check_exact, convolution, whole
from torch import nn
from tvm import te

from lvc.backends.tvm.bfloat16 import to_bits
from lvc.backends.tvm.cpu.code_generator import CpuCodeGenerator
from lvc.backends.tvm.cpu.kernels import conv2d, matmul
from lvc.backends.tvm.cpu.kernels.dot_operands import BFLOAT16, DotOperand
from lvc.backends.tvm.cpu.kernels.integer_operands import IntegerQuad, SignedQuad, TurnedQuad
from lvc.backends.tvm.cpu.kernels.matrix_operands import BFLOAT16_MATRIX, Bfloat16Matrix, QuadMatrix
from lvc.backends.tvm.cpu.kernels.paired_rows import Slots
from lvc.backends.tvm.cpu.kernels.register_tile import cut, tile_count
from lvc.backends.tvm.cpu.targets import vector_of
from lvc.backends.tvm.lower import lower
from lvc.compiler.backend import Target
from lvc.compiler.data.seeded import seeded_inputs
from lvc.compiler.driver import compile
from lvc.compiler.ir.model import Model
from lvc.compiler.ir.operators import integer
from lvc.compiler.load import from_module
from lvc.compiler.loaded import load
from lvc.compiler.pipeline.observers import relative_difference
from lvc.compiler.pipeline.pipeline import Pipeline

ROWS = [(19, 36, 30), (7, 72, 70)]  # rows, elements, columns


def operands_of(model: Model, target: str) -> list[type]:
    steps = lower(model, CpuCodeGenerator.of(Target.parse(target))).steps
    return [type(step.schedule.problem.operand) for step in steps if hasattr(step.schedule, "problem")]


def convolutions(zero: int) -> Model:
    """Odd and even widths and numbers of channels; strides, large windows, a reduction that is done in parts,
    rows of pixels that are no pairs, and steps that take two taps of few channels."""
    sketch = Sketch()
    data, deep, image = (sketch.input(*shape, dtype=torch.uint8) for shape in IMAGES)
    made = [
        convolution(sketch, data, 24, zero=zero, seed=1, stride=2),
        convolution(sketch, data, 12, zero=zero, seed=2, kernel=(5, 5), padding=2, dilation=2),
        convolution(sketch, data, 40, zero=zero, seed=3, kernel=(1, 1), padding=0, stride=2),
        convolution(sketch, deep, 36, zero=zero, seed=4),
        convolution(sketch, data, 40, zero=zero, seed=5, kernel=(1, 1), padding=0),
        convolution(sketch, image, 16, zero=zero, seed=6, kernel=(7, 7), padding=3, stride=2),
        convolution(sketch, image, 8, zero=0, seed=7, kernel=(5, 5), padding=4, dilation=2),
    ]
    return sketch.model(*made)


IMAGES = [(2, 20, 9, 11), (1, 512, 4, 7), (1, 3, 15, 17)]


def products(zero: int) -> Model:
    sketch, made = Sketch(), []
    for number, (rows, elements, columns) in enumerate(ROWS):
        weight = sketch.stored(torch.from_numpy(whole(number, torch.int8, columns, elements)))
        sums = sketch.call(
            integer.linear, sketch.input(rows, elements, dtype=torch.uint8), weight, None, zero, group=f"g{number}"
        )
        made.append(sketch.call(integer.rescale, sums, sketch.stored(torch.rand(columns)), 1, group=f"g{number}"))
    return sketch.model(*made)


@pytest.mark.parametrize(
    ("target", "operand"),
    [("aarch64+i8mm", QuadMatrix), ("cortex-a55", TurnedQuad), pytest.param("neoverse-v1", QuadMatrix, marks=TARGETS)],
)
@pytest.mark.parametrize("zero", [7, *(pytest.param(zero, marks=TARGETS) for zero in (0, 128, 255))])
def test_convolutions_of_bytes(zero: int, target: str, operand: type) -> None:
    need(target)
    model = convolutions(zero)
    assert operands_of(model, target) == [operand] * 7
    check_exact(model, *(whole(zero + 1, torch.uint8, *shape) for shape in IMAGES), target=target)


@pytest.mark.parametrize(("target", "operand"), [("aarch64+i8mm", QuadMatrix), ("cortex-a55", TurnedQuad)])
@pytest.mark.parametrize("zero", [7, pytest.param(255, marks=TARGETS)])
def test_products_of_bytes(zero: int, target: str, operand: type) -> None:
    need(target)
    model = products(zero)
    assert operands_of(model, target) == [operand] * len(ROWS)
    check_exact(model, *(whole(3, torch.uint8, *size[:2]) for size in ROWS), target=target)


class Layers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.images = nn.Sequential(
            nn.Conv2d(3, 18, 3, 2, 1), nn.ReLU(), nn.Conv2d(18, 36, 3, padding=1), nn.ReLU(), nn.Conv2d(36, 22, 1)
        )
        self.tokens = nn.Sequential(nn.Linear(22, 37), nn.GELU(), nn.Linear(37, 50))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.tokens(self.images(x).flatten(2).transpose(1, 2))


def test_matrices_of_bfloat16() -> None:
    need("aarch64+bf16")
    torch.manual_seed(1)
    model = from_module(Layers().eval(), torch.randn(1, 3, 19, 21))
    rewritten, _ = Pipeline.parse("O2").with_precision("bf16").run(model)
    assert operands_of(rewritten, "aarch64+bf16") == [Bfloat16Matrix] * 5
    inputs = seeded_inputs(model.inputs, 1)
    wanted, exact = rewritten(*inputs)[0], model(*inputs)[0]
    found = load(compile(rewritten, "", "aarch64+bf16"), threads=1, emulate=True)(*inputs)
    assert relative_difference(found, wanted) <= relative_difference(wanted, exact)


def test_whole_numbers_in_bfloat16_are_exact() -> None:
    """Nothing is rounded, so that the same bits must come out whatever the order."""
    need("aarch64+bf16")
    torch.manual_seed(2)
    layer = nn.Conv2d(6, 10, 3, padding=1)
    layer.load_state_dict({"weight": torch.randint(-3, 4, (10, 6, 3, 3)).float(), "bias": torch.zeros(10)})
    data = torch.randint(-9, 10, (1, 6, 5, 7)).float()
    model, _ = Pipeline.parse("O2").with_precision("bf16").run(from_module(layer.eval(), data))
    found = load(compile(model, "", "aarch64+bf16"), threads=1, emulate=True)(data.numpy())
    np.testing.assert_array_equal(found, layer(data).detach().numpy())


def test_groups_are_multiplied_a_word_at_a_time() -> None:
    """Blocks that a group begins in the middle of are not copied in pairs."""
    sketch = Sketch()
    model = sketch.model(convolution(sketch, sketch.input(1, 24, 8, 8, dtype=torch.uint8), 24, groups=2))
    assert operands_of(model, "neoverse-v1") == [SignedQuad]
    assert operands_of(model, "aarch64+i8mm") == [IntegerQuad]


@pytest.mark.parametrize("target", ["aarch64+dotprod", "cortex-a76", "armv7", "x86-64-v3", "znver4"])
def test_targets_without_the_instruction_have_no_matrices(target: str) -> None:
    assert not vector_of(Target.parse(target)).isa.matrices


@pytest.mark.parametrize(
    "operand", [QuadMatrix(9), SignedQuad(9), TurnedQuad(9), BFLOAT16_MATRIX], ids=lambda one: type(one).__name__
)
def test_the_definition_is_what_the_nest_computes(operand: DotOperand) -> None:
    """It stands in for the nest where TVM refuses it: weights as they are packed, data less as much."""
    random, less = np.random.default_rng(0), 128 if isinstance(operand, SignedQuad) else 0
    dtypes = (np.float32, np.float32) if operand == BFLOAT16_MATRIX else (np.uint8, np.int8)

    def stored(values: np.ndarray) -> np.ndarray:
        return values.astype(np.uint8) if dtypes[0] is np.uint8 else to_bits(values.astype(np.float32))

    data, weight = random.integers(0, 9, (4, 20, 6, 7)), random.integers(-9, 9, (24, 20, 3, 3))
    problem = conv2d.Conv2d(4, 20, 6, 7, 24, (3, 3), in_block=4, out_block=4, operand=operand)
    packed = conv2d.pack_weight(problem, weight.astype(dtypes[1]))
    assert packed.shape == conv2d.packed_shape(problem)
    blocks = stored(data.reshape(4, 5, 4, 6, 7).transpose(0, 1, 3, 4, 2))
    sums = torch.conv2d(torch.from_numpy(data - less).double(), torch.from_numpy(weight).double()).numpy()
    wanted = sums.reshape(4, 6, 4, 4, 5).transpose(0, 1, 3, 4, 2)
    np.testing.assert_array_equal(defined(conv2d, problem, blocks, packed), wanted)

    image, window = random.integers(0, 9, (1, 3, 5, 9)), random.integers(-9, 9, (4, 3, 2, 3))
    first = conv2d.Conv2d(1, 3, 5, 9, 4, (2, 3), dilation=(1, 2), in_block=4, out_block=4, operand=operand)
    packed = conv2d.pack_weight(first, window.astype(dtypes[1]))
    assert packed.shape == conv2d.packed_shape(first)
    blocks = stored(np.pad(image, [(0, 0), (0, 1), (0, 0), (0, 0)]).transpose(0, 2, 3, 1)[:, None])
    parts = torch.from_numpy(image - less).double(), torch.from_numpy(window).double()
    wanted = torch.conv2d(*parts, dilation=(1, 2)).numpy().transpose(0, 2, 3, 1)[:, None]
    np.testing.assert_array_equal(defined(conv2d, first, blocks, packed), wanted)

    rows, columns = random.integers(0, 9, (5, 36)), random.integers(-9, 9, (11, 36))
    product = matmul.Matmul(5, 11, 36, 4, operand)
    packed = matmul.pack_weight(product, columns.astype(dtypes[1]))
    np.testing.assert_array_equal(defined(matmul, product, stored(rows), packed), (rows - less) @ columns.T)


def defined(kernel: object, problem: object, *arrays: np.ndarray) -> np.ndarray:
    """The definition of a kernel on arrays, as TVM computes it without a schedule."""
    operands = [te.placeholder(array.shape, array.dtype, f"x{i}") for i, array in enumerate(arrays)]
    sums = kernel.compute(problem, *operands)  # type: ignore[attr-defined]
    library = tvm.compile(te.create_prim_func([*operands, sums]), target="llvm")
    result = np.zeros([int(size) for size in sums.shape], str(sums.dtype))
    given = [tvm.runtime.tensor(np.ascontiguousarray(array)) for array in (*arrays, result)]
    library["main"](*given)
    return np.asarray(given[-1].numpy())


@given(st.integers(1, 300), st.integers(2, 30))
def test_tiles_are_pairs_but_for_the_last(extent: int, size: int) -> None:
    runs = cut(extent, size, 2)
    tiles = [run.start + i * run.size for run in runs for i in range(run.count)]
    sizes = [run.size for run in runs for _ in range(run.count)]
    assert tiles == [sum(sizes[:i]) for i in range(len(sizes))]
    assert [run.first for run in runs] == list(itertools.accumulate((run.count for run in runs), initial=0))[:-1]
    assert sum(sizes) == extent
    assert max(sizes) <= size
    assert not any(one % 2 for one in sizes[:-1])
    assert tile_count(runs) == math.ceil(math.ceil(extent / 2) / (size // 2))


@given(st.integers(1, 40), st.integers(1, 4))
def test_columns_of_neighbouring_outputs_are_neighbours(columns: int, stride: int) -> None:
    slots = Slots(columns, stride)
    places = [int(slots.of(column)) for column in range(columns)]
    assert len(set(places)) == columns
    assert all(0 <= place < slots.count for place in places)
    assert all(places[i + stride] == places[i] + 1 for i in range(columns - stride))


@pytest.mark.parametrize("operand", [QuadMatrix(3), BFLOAT16_MATRIX], ids=["bytes", "bfloat16"])
def test_tiles_of_matrices_leave_registers_to_llvm(operand: DotOperand) -> None:
    vector = vector_of(Target.parse("neoverse-v1"))
    for rows in (2, 7, 50, 197):
        knobs = matmul.choose_knobs(matmul.Matmul(rows, 768, 192, 4, operand), vector)
        assert knobs.vectors * operand.whole(knobs.rows) <= 22


def test_matrices_take_half_the_instructions() -> None:
    vector = vector_of(Target.parse("neoverse-v1"))
    for whole_operand, matrix in ((SignedQuad(3), QuadMatrix(3)), (BFLOAT16, BFLOAT16_MATRIX)):
        assert matrix.step_cost(vector).cycles == whole_operand.step_cost(vector).cycles / 2
