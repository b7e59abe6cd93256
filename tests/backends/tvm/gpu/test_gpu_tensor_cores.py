"""Kernels for tensor cores on the emulated GPU: exact products of halves, summed in float32; of bytes every byte."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from cuda_on_cpu import Emulated, EmulationError
from gpu_models import EXAMPLES, build, emulate, lowered, needs_nvrtc, rewritten, spills, uses
from sketch import Sketch, aten, numbers
from test_integer import convolution, whole

import lvc
from lvc.backends.tvm.gpu.gpus import CAPABILITIES, CHIPS
from lvc.backends.tvm.gpu.kernels import tensor_conv2d, tensor_matmul
from lvc.backends.tvm.gpu.kernels.warp_tile import WARP_TILES
from lvc.compiler.ir.operators import integer

pytestmark = needs_nvrtc
MMA = "LVC_MMA(lvc_"


@pytest.mark.parametrize(("dtype", "target"), [("float16", 75), ("float16", 80), ("bfloat16", 80)])
def test_convolutions_of_every_kind(dtype: str, target: int) -> None:
    """3x3, 1x1, strided, in groups, ragged channels, dilated, the first layer, with what follows them."""
    s = Sketch()
    image, x = s.input(2, 3, 11, 9), s.input(1, 20, 9, 11)
    weight = s.stored(torch.randn(8, 20, 3, 3) / 8)
    outputs = [
        s.call(aten.relu.default, s.conv(image, 20, 3, 2, group="a"), group="a"),
        s.conv(x, 24, 1),
        s.conv(x, 9, 3, 2),
        s.conv(s.input(1, 16, 6, 7), 8, 3, groups=2),
        s.call(aten.conv2d.default, x, weight, None, [1, 2], [2, 1], [2, 1], 1),
    ]
    model = lowered(s.model(*outputs), dtype)
    given = numbers(2, 3, 11, 9), numbers(1, 20, 9, 11), numbers(1, 16, 6, 7)
    emulated = emulate(model, *given, target=f"cuda:sm_{target}")
    assert uses(emulated, MMA) == 5
    assert not spills(emulated)
    assert all(count.conflict_free == 1 for count in emulated.counts.values())


@pytest.mark.parametrize("tile", WARP_TILES, ids=str)
def test_every_tile(tile: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """With pixels, channels and terms that end within one."""
    monkeypatch.setattr(tensor_conv2d, "WARP_TILES", (tile,))
    s = Sketch()
    model = lowered(s.model(s.conv(s.input(1, 12, 13, 11), 136, 3)), "float16")
    emulated = emulate(model, numbers(1, 12, 13, 11))
    assert uses(emulated, MMA) == 1
    assert not spills(emulated)
    assert all(count.conflict_free == 1 for count in emulated.counts.values())


def test_deep_sums_over_small_planes_are_made_in_parts() -> None:
    s = Sketch()
    model = lowered(s.model(s.conv(s.input(1, 512, 4, 4), 36, 3)), "float16")
    emulated = emulate(model, numbers(1, 512, 4, 4))
    assert any(len(made.launches) == 2 and MMA in made.text for made in emulated.parts.compiled.values())


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize(("rows", "columns", "depth"), [(30, 70, 50), (64, 64, 64), (9, 13, 33), (40, 36, 1024)])
def test_products(rows: int, columns: int, depth: int, dtype: str) -> None:
    s = Sketch()
    x, bias = s.input(rows, depth), s.stored(torch.randn(columns))
    linear = s.call(aten.linear.default, x, s.stored(torch.randn(columns, depth)), bias, group="g")
    model = lowered(s.model(s.call(aten.relu.default, linear, group="g")), dtype)
    emulated = emulate(model, numbers(rows, depth))
    assert uses(emulated, MMA) == 1
    assert all(count.conflict_free == 1 for count in emulated.counts.values())


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_what_other_kernels_read_and_hand_on(dtype: str) -> None:
    """Depthwise, pooling, additions, softmax, products of two activations: within steps of the type."""
    s = Sketch()
    x = s.input(1, 16, 8, 8)
    first = s.conv(x, 16, 1, group="a")
    depthwise = s.conv(s.call(aten.relu.default, first, group="a"), 16, 3, groups=16)
    pooled = s.call(aten.max_pool2d.default, depthwise, [2, 2], [2, 2], [0, 0], [1, 1], False)
    added = s.call(aten.add.Tensor, s.conv(pooled, 16, 1, group="b"), pooled, group="b")
    rows = s.call(aten.reshape.default, added, [1, 16, 16])
    scores = s.call(aten.softmax.int, s.call(aten.matmul.default, rows, rows), -1)
    model = lowered(s.model(s.call(aten.matmul.default, scores, rows)), dtype)
    x_values = numbers(1, 16, 8, 8)
    (found,), (wanted,) = Emulated(build(model))(x_values), model(x_values)
    step = {"float16": 2.0**-11, "bfloat16": 2.0**-8}[dtype]
    assert np.abs(found - wanted).max() <= 4 * step * np.abs(wanted).max()


def test_infinity_of_float16_goes_on() -> None:
    """What is beyond 65504 is infinite where a kernel hands it on, as the graph says."""
    s = Sketch()
    x = s.input(1, 8, 4, 4)
    weight = s.stored(torch.full((8, 8, 1, 1), 200.0))
    first = s.call(aten.conv2d.default, x, weight, None, [1, 1], [0, 0], [1, 1], 1)
    model = lowered(s.model(s.conv(first, 8, 1)), "float16")
    given = np.full((1, 8, 4, 4), 1.0, np.float32)
    given[0, :, 0, 0] = 100
    (found,), (wanted,) = Emulated(build(model))(given), model(given)
    np.testing.assert_array_equal(np.isfinite(found), np.isfinite(wanted))
    assert not np.isfinite(wanted).all()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8])
def test_bytes(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every byte of the integer oracle: zero points at both ends, ragged channels, strides, deep sums, products; also
    where ``dp4a`` would take less time."""
    for rule in (tensor_conv2d, tensor_matmul):
        monkeypatch.setattr(rule, "is_worth", lambda *_: True)
    limits = torch.iinfo(dtype)
    s = Sketch()
    x, deep = s.input(2, 20, 9, 11, dtype=dtype), s.input(1, 512, 8, 8, dtype=dtype)
    rows = s.input(70, 1028, dtype=dtype)
    weight = s.stored(torch.from_numpy(whole(0, torch.int8, 18, 1028)))
    bias = s.stored(torch.arange(18, dtype=torch.int32) * 1000)
    outputs = [
        convolution(s, x, 18, zero=limits.min),
        convolution(s, x, 12, kernel=(1, 1), padding=0, zero=limits.max),
        convolution(s, x, 16, stride=2, dilation=2, zero=3),
        convolution(s, deep, 64, zero=7),
        s.call(integer.linear, rows, weight, bias, 77),
    ]
    given = whole(1, dtype, 2, 20, 9, 11), whole(2, dtype, 1, 512, 8, 8), whole(3, dtype, 70, 1028)
    emulated = emulate(s.model(*outputs), *given)
    assert (uses(emulated, MMA), uses(emulated, "LVC_DP4A")) == (5, 0)
    assert not spills(emulated)
    assert all(count.conflict_free == 1 for count in emulated.counts.values())


SABOTAGE = {
    "a row of the first factor": (r"(LVC_MATRICES\(left.*?)\(\(thread % 32\) % 16\)", r"\1((thread % 32) % 16 ^ 1)"),
    "words of the second factor": (
        r"(LVC_MATRICES\(right.*?)\(\(\(thread % 32\) / 8\) % 2\)",
        r"\1(1 - ((thread % 32) / 8) % 2)",
    ),
    "the lane that writes": (r"\(thread % 32\) / 4", r"((thread % 32) / 4 ^ 1)"),
    "sums of another matrix": (r"(LVC_MMA\(lvc_half, sums, )0,", r"\g<1>4,"),
}


@pytest.mark.parametrize("name", SABOTAGE)
def test_a_wrong_lane_of_a_fragment_is_found(name: str) -> None:
    pattern, by = SABOTAGE[name]
    changed = 0

    def edit(text: str) -> str:
        nonlocal changed
        text, count = re.subn(pattern, by, text)
        changed += count
        return text

    s = Sketch()
    model = lowered(s.model(s.conv(s.input(1, 8, 8, 8), 32, 3)), "float16")
    with pytest.raises(AssertionError) as caught:
        emulate(model, numbers(1, 8, 8, 8), edit=edit)
    assert changed
    assert isinstance(caught.value, EmulationError) or "Not equal to tolerance" in str(caught.value)


@pytest.mark.parametrize(
    ("target", "missing", "number"),
    [
        ("cuda:sm_75", r"LVC_BARRIER\(\);", 0),
        ("cuda:sm_75", r"LVC_BARRIER\(\);", 1),
        ("cuda:sm_80", r"LVC_BARRIER\(\);", 0),
        ("cuda:sm_80", r"LVC_WAIT\(\d\);", 0),
    ],
)
def test_a_barrier_or_a_wait_that_is_missing_is_found(target: str, missing: str, number: int) -> None:
    def edit(text: str) -> str:
        if MMA not in text:
            return text
        start = [found.start() for found in re.finditer(missing, text)][number]
        return text[:start] + re.sub(missing, "", text[start:], count=1)

    s = Sketch()
    model = lowered(s.model(s.conv(s.input(1, 64, 5, 5), 32, 3)), "float16")
    with pytest.raises(EmulationError, match="race: shared"):
        emulate(model, numbers(1, 64, 5, 5), target=target, edit=edit)


def test_which_capabilities_multiply_what() -> None:
    able = {
        element: [number for number, level in CAPABILITIES.items() if level.multiplies(element)]
        for element in ("float16", "bfloat16", "int8")
    }
    later = [number for number in CAPABILITIES if number >= 80]
    assert able == {"float16": [75, *later], "bfloat16": later, "int8": later}
    for chip in CHIPS.values():
        assert not chip.capability.multiplies("float16") or chip.half_products >= chip.capability.lanes
    a100, t4 = CHIPS["a100"], CHIPS["t4"]
    assert 2e9 * a100.half_products * a100.multiprocessors * a100.clock == pytest.approx(312e12, rel=0.01)
    assert 2e9 * t4.byte_products * t4.multiprocessors * t4.clock == pytest.approx(130e12, rel=0.01)


def error_of(values: np.ndarray, exact: np.ndarray) -> float:
    return float(np.sqrt(np.mean((values - exact) ** 2)))


def check_error(network: torch.nn.Module, dtype: str, target: str, *shape: int) -> None:
    """The error against double precision is that of the rewritten graph, which rounds where the graph says."""
    model, x = rewritten(network, *shape)
    short = lowered(model, dtype)
    with torch.no_grad():
        exact = network.double()(torch.from_numpy(x).double()).numpy()
    emulated = Emulated(build(short, target))
    (found,), (rounded,) = emulated(x), short(x)
    assert 0 < error_of(found, exact) <= 1.25 * error_of(rounded, exact)
    assert uses(emulated, MMA)
    assert not spills(emulated)
    assert all(count.conflict_free > 0.9 for count in emulated.counts.values())


@pytest.mark.parametrize(("dtype", "target"), [("float16", "cuda:sm_75"), ("bfloat16", "cuda:sm_80")])
def test_resnet20(dtype: str, target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    import cifar_resnet

    check_error(cifar_resnet.resnet20(), dtype, target, 1, 3, 32, 32)
    sys.modules.pop("cifar_resnet")


@pytest.mark.targets
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2"])
def test_models_of_the_wild(name: str, dtype: str) -> None:
    import torchvision

    torch.manual_seed(0)
    check_error(getattr(torchvision.models, name)(), dtype, "cuda:sm_80", 1, 3, 64, 64)


@pytest.mark.parametrize(
    ("dtype", "target"), [("float16", "cuda:sm_75"), ("float16", "cuda:sm_80"), ("bfloat16", "cuda:sm_80")]
)
def test_small_vision_transformer(dtype: str, target: str) -> None:
    """With 10 tokens, and the products of attention among those that tensor cores make."""
    import torchvision

    torch.manual_seed(0)
    network = torchvision.models.VisionTransformer(48, 16, 2, 4, 64, 128, num_classes=16)
    torch.nn.init.normal_(network.heads.head.weight)
    check_error(network, dtype, target, 1, 3, 48, 48)


@pytest.mark.targets
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_one_layer_of_vit_b_16(dtype: str) -> None:
    """Of its twelve, which are alike, at its own width and 10 tokens in place of 197."""
    import torchvision

    torch.manual_seed(0)
    network = torchvision.models.VisionTransformer(48, 16, 1, 12, 768, 3072, num_classes=16)
    torch.nn.init.normal_(network.heads.head.weight)
    check_error(network, dtype, "cuda:sm_80", 1, 3, 48, 48)


def test_it_is_asked_for_as_on_processors(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Conv2d(8, 16, 3), torch.nn.ReLU(), torch.nn.Conv2d(16, 8, 3)).eval()
    model = lvc.from_module(network, torch.randn(1, 8, 10, 10))
    artefact = lvc.compile(model, "O1", "cuda:sm_80", precision="bf16")
    assert MMA in artefact.parts.text.partition("#endif")[2]
