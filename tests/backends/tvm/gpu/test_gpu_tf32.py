"""Layers in TF32 on the emulated tensor cores: exact products of rounded factors, summed in float32."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch
from cuda_on_cpu import Emulated, EmulationError
from gpu_models import EXAMPLES, build, needs_nvrtc, rewritten, spills, uses
from sketch import Sketch, aten, numbers

import lvc
from lvc.backends.tvm.gpu.gpus import CAPABILITIES, CHIPS
from lvc.backends.tvm.gpu.kernels import tensor_conv2d, tensor_matmul
from lvc.backends.tvm.gpu.kernels.matrix_factors import Tf32, is_worth
from lvc.backends.tvm.gpu.kernels.tile import Size
from lvc.backends.tvm.gpu.kernels.warp_tile import WARP_TILES
from lvc.compiler.cli import main
from lvc.compiler.ir.model import Model
from lvc.compiler.measure.precision import tf32_outputs
from lvc.compiler.pipeline.pipeline import Pipeline
from lvc.compiler.pipeline.workspace import Workspace
from lvc.compiler.verification.closeness import Comparison

pytestmark = needs_nvrtc
MMA = "LVC_MMA(float"


@pytest.fixture
def _wherever_it_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where float32 as it is would take less time."""
    for rule in (tensor_conv2d, tensor_matmul):
        monkeypatch.setattr(rule, "is_worth", lambda *_: True)


def marked(model: Model) -> Model:
    return Pipeline.parse("allow-tf32").run(model, Workspace(threads=1))[0]


def run(model: Model, target: str = "cuda:sm_80", edit: Callable[[str], str] = lambda text: text) -> Emulated:
    """A model that has run and agrees with PyTorch where both factors are rounded; the check knows that they were."""
    emulated = Emulated(build(model, target), edit)
    given = [numbers(*value.spec.shape) for value in model.inputs]
    found, wanted, own = emulated(*given), tf32_outputs(model, tuple(given)), model(*given)
    for ours, theirs in zip(found, wanted, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-6 * np.abs(theirs).max())
    assert Comparison(model, given, own, found).explanation == "factors rounded to TF32"
    return emulated


@pytest.mark.usefixtures("_wherever_it_can_be")
def test_layers_of_every_kind() -> None:
    """3x3, 1x1, strided, in groups, ragged channels, dilated, transposed, the first layer, products."""
    s = Sketch()
    image, x, rows = s.input(2, 3, 11, 9), s.input(1, 20, 9, 11), s.input(30, 50)
    weight, bias = s.stored(torch.randn(8, 20, 3, 3) / 8), s.stored(torch.randn(70))
    outputs = [
        s.call(aten.relu.default, s.conv(image, 20, 3, 2, group="a"), group="a"),
        s.conv(x, 24, 1),
        s.conv(x, 9, 3, 2),
        s.conv(s.input(1, 16, 6, 7), 8, 3, groups=2),
        s.call(aten.conv2d.default, x, weight, None, [1, 2], [2, 1], [2, 1], 1),
        s.call(aten.conv_transpose2d.input, x, s.stored(torch.randn(20, 12, 4, 4) / 8), None, [2, 2], [1, 1]),
        s.call(aten.linear.default, rows, s.stored(torch.randn(70, 50)), bias),
        s.call(aten.linear.default, s.input(9, 33), s.stored(torch.randn(13, 33)), None),
    ]
    emulated = run(marked(s.model(*outputs)))
    assert uses(emulated, MMA) == len(outputs)
    assert not spills(emulated)
    assert all(count.conflict_free == 1 for count in emulated.counts.values())


@pytest.mark.usefixtures("_wherever_it_can_be")
@pytest.mark.parametrize("tile", WARP_TILES, ids=str)
def test_every_tile(tile: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensor_conv2d, "WARP_TILES", (tile,))
    s = Sketch()
    emulated = run(marked(s.model(s.conv(s.input(1, 12, 13, 11), 136, 3))))
    assert uses(emulated, MMA) == 1
    assert not spills(emulated)
    assert all(count.conflict_free == 1 for count in emulated.counts.values())


def test_what_is_not_marked_is_in_float32() -> None:
    """Also what is marked, on a target without it, which a model that brings marks along may be built for."""
    s = Sketch()
    model = s.model(s.conv(s.input(1, 64, 28, 28), 64, 3))
    x = numbers(1, 64, 28, 28)
    for one, target in ((model, "cuda:sm_80"), (marked(model), "cuda:sm_75")):
        emulated = Emulated(build(one, target))
        assert uses(emulated, MMA) == 0
        (found,), (wanted,) = emulated(x), one(x)
        np.testing.assert_allclose(found, wanted, rtol=0, atol=2e-6 * np.abs(wanted).max())


def test_it_is_used_where_it_takes_fewer_cycles() -> None:
    size, factor = Size(56 * 56, 64, 576), Tf32()
    a100, rtx4090 = CHIPS["a100"], CHIPS["rtx4090"]
    assert (factor.rate(a100), factor.rate(rtx4090)) == (512, 128)
    assert 2e9 * factor.rate(a100) * a100.multiprocessors * a100.clock == pytest.approx(156e12, rel=0.01)
    assert is_worth(a100, factor, 1, size)
    assert not is_worth(a100, factor, 1e9, size)
    able = [number for number, level in CAPABILITIES.items() if level.multiplies("tf32")]
    assert able == [number for number in CAPABILITIES if number >= 80]


SABOTAGE = {
    "factors that are not rounded": (r"LVC_TO_TF32\(left, .*?\);", ""),
    "a row of the first factor": (r"(LVC_MATRICES\(left.*?)\(\(thread % 32\) % 16\)", r"\1((thread % 32) % 16 ^ 1)"),
    "words of the second factor": (
        r"(LVC_MATRICES\(right.*?)\(\(\(thread % 32\) / 8\) % 2\)",
        r"\1(1 - ((thread % 32) / 8) % 2)",
    ),
    "a barrier": (r"LVC_BARRIER\(\);", ""),
}


@pytest.mark.usefixtures("_wherever_it_can_be")
@pytest.mark.parametrize("name", SABOTAGE)
def test_a_wrong_kernel_is_found(name: str) -> None:
    pattern, by = SABOTAGE[name]
    changed = 0

    def edit(text: str) -> str:
        nonlocal changed
        text, count = re.subn(pattern, by, text) if MMA in text else (text, 0)
        changed += count
        return text

    s = Sketch()
    model = marked(s.model(s.conv(s.input(1, 16, 8, 8), 32, 3)))
    with pytest.raises(AssertionError) as caught:
        run(model, edit=edit)
    assert changed
    assert isinstance(caught.value, EmulationError) or "Not equal to tolerance" in str(caught.value)


@pytest.mark.usefixtures("_wherever_it_can_be")
def test_resnet20(monkeypatch: pytest.MonkeyPatch) -> None:
    """No further from double precision than the graph with rounded factors."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    import cifar_resnet

    network = cifar_resnet.resnet20()
    sys.modules.pop("cifar_resnet")
    model, x = rewritten(network, 1, 3, 32, 32)
    model = marked(model)
    emulated = Emulated(build(model))
    (found,), (rounded,) = emulated(x), tf32_outputs(model, (x,))
    with torch.no_grad():
        exact = network.double()(torch.from_numpy(x).double()).numpy()
    errors = [float(np.sqrt(np.mean((made - exact) ** 2))) for made in (found, rounded)]
    assert 0 < errors[0] <= 1.25 * errors[1]
    assert uses(emulated, MMA) >= 5
    assert not spills(emulated)


def test_it_is_asked_for_by_precision_and_told(capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Conv2d(64, 64, 3), torch.nn.ReLU()).eval()
    model = lvc.from_module(network, torch.randn(1, 64, 56, 56))
    artefact = lvc.compile(model, "O1", "cuda:sm_80", precision="tf32")
    kinds = [kernel["kind"] for kernel in artefact.metadata["kernels"]["kernels"]]
    assert "TensorConv2d tf32" in kinds
    assert main(["compile", "torchvision.models:resnet18", "--precision", "tf32", "--target", "cuda:t4"]) == 2
    told = capsys.readouterr().err
    assert "the target 'cuda:t4' cannot multiply tf32" in told
    assert "Traceback" not in told
