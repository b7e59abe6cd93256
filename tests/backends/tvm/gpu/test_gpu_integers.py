"""Integer layers on the emulated GPU: every byte of the integer oracle, by dp4a (of capability 7.5, whose tensor cores
have smaller products of bytes than kernels use) and by the general kernels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from cuda_on_cpu import Emulated
from gpu_models import build, emulate, integer_resnet20, needs_nvrtc, uses
from sketch import Sketch
from test_integer import convolution, whole

from lvc.compiler.ir.operators import integer

pytestmark = needs_nvrtc
TARGET = "cuda:sm_75"
DP4A = {torch.uint8: "LVC_DP4A_UNSIGNED(", torch.int8: "LVC_DP4A("}


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8])
@pytest.mark.parametrize("seed", [0, 1])
def test_convolutions(dtype: torch.dtype, seed: int) -> None:
    """Zero points at both ends, ragged channels, strides, groups, depthwise, the first layer; ends of the types."""
    limits = torch.iinfo(dtype)
    s = Sketch()
    x, image = s.input(2, 20, 9, 11, dtype=dtype), s.input(1, 3, 12, 12, dtype=dtype)
    outputs = [
        convolution(s, x, 18, zero=limits.min, seed=seed),
        convolution(s, x, 12, kernel=(1, 1), padding=0, zero=limits.max, seed=seed),
        convolution(s, x, 16, groups=1, stride=2, dilation=2, zero=3, seed=seed),
        convolution(s, x, 8, groups=2, seed=seed),
        convolution(s, x, 20, groups=20, zero=100, seed=seed),
        convolution(s, image, 8, stride=2, zero=-5 if limits.min else 5, seed=seed),
    ]
    given = whole(seed, dtype, 2, 20, 9, 11), whole(seed + 1, dtype, 1, 3, 12, 12)
    text = emulate(s.model(*outputs), *given, target=TARGET).parts.text
    assert DP4A[dtype] in text.partition("#endif")[2]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8])
@pytest.mark.parametrize(("channels", "stride", "size"), [(20, 1, 16), (7, 2, 11), (96, 1, 64)])
def test_depthwise_convolutions(dtype: torch.dtype, channels: int, stride: int, size: int) -> None:
    """One pixel or four by a thread; zero points at both ends, at zero and between."""
    limits = torch.iinfo(dtype)
    s = Sketch()
    x = s.input(1, channels, size, size, dtype=dtype)
    zeros = sorted({limits.min, limits.max, 0, 9})
    outputs = [convolution(s, x, channels, groups=channels, stride=stride, zero=zero) for zero in zeros]
    emulated = emulate(s.model(*outputs), whole(0, dtype, 1, channels, size, size), target="cuda:orin")
    kinds = [type(getattr(step.schedule, "problem", None)).__name__ for step in emulated.parts.program.steps]
    assert kinds.count("Depthwise") == len(zeros)


def test_deep_sums_in_parts() -> None:
    s = Sketch()
    x = s.input(1, 512, 4, 4, dtype=torch.uint8)
    emulated = emulate(
        s.model(convolution(s, x, 32, zero=128, seed=1)), whole(1, torch.uint8, 1, 512, 4, 4), target=TARGET
    )
    assert any(len(made.launches) == 2 for made in emulated.parts.compiled.values())


@pytest.mark.parametrize(("rows", "depth"), [(30, 64), (9, 36), (12, 33), (1, 100)])
def test_products(rows: int, depth: int) -> None:
    s = Sketch()
    x = s.input(rows, depth, dtype=torch.uint8)
    weight = s.stored(torch.from_numpy(whole(0, torch.int8, 18, depth)))
    bias = s.stored(torch.arange(18, dtype=torch.int32) * 1000)
    emulate(s.model(s.call(integer.linear, x, weight, bias, 77)), whole(0, torch.uint8, rows, depth), target=TARGET)


@pytest.mark.parametrize(("target", "instruction"), [(TARGET, "LVC_DP4A"), ("cuda:sm_80", "LVC_MMA(lvc_")])
def test_resnet20_in_integers(target: str, instruction: str) -> None:
    """Every byte of what the integer graph gives; convolutions by dp4a, or by tensor cores."""
    model, x = integer_resnet20()
    emulated = Emulated(build(model, target))
    for found, wanted in zip(emulated(x), model(x), strict=True):
        np.testing.assert_array_equal(found, wanted)
    assert uses(emulated, instruction) >= (7 if target == TARGET else 1)  # small layers are worth no tensor cores
