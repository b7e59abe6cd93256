"""tools/inspect_kernels.py for cores of ARM: no kernel of resnet18 spills, and its inner loops keep pace with
the core by estimate."""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from lvc.backends.tvm.cpu.architectures.aarch64 import PROCESSORS
from lvc.compiler.backend import Target
from lvc.compiler.ir.model import Model
from lvc.compiler.load import from_module
from lvc.compiler.pipeline.pipeline import Pipeline
from lvc.compiler.pipeline.workspace import Workspace

TOOLS = Path(__file__).parents[2] / "tools"
LEAST_SHARE = 0.9  # of what the core could do by the same estimate
pytestmark = pytest.mark.skipif(not TOOLS.is_dir(), reason="the tool is not part of the wheel")


@pytest.fixture(scope="module")
def tool() -> SimpleNamespace:
    """The tool and its rooms."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(TOOLS))
        names = ("account", "assembly", "estimate", "loops", "throughput")
        rooms = {name: importlib.import_module(f"inspection.{name}") for name in names}
        return SimpleNamespace(main=importlib.import_module("inspect_kernels"), **rooms)


def need_models(tool: SimpleNamespace) -> None:
    """Skip where nothing estimates."""
    if not tool.throughput.program():
        pytest.skip("no llvm-mca is there (Debian: apt-get install llvm-19)")


STREAM = """
0 <k>:
 0:\tldr\tq0, [x29]
 4:\tfmla\tv8.4s, v0.4s, v1.s[2]
 8:\tfmla\tv9.4s, v0.4s, v2.s[0]
 c:\tstr\tq0, [x29, #16]
 10:\tsubs\tx3, x3, #0x1
 14:\tb.ne\t0 <k>
 18:\tret
"""


def test_a_register_that_is_no_frame_is_none(tool: SimpleNamespace) -> None:
    """LLVM takes x29 for anything where a function has no frame."""
    (plain,) = tool.assembly.parse(STREAM, "aarch64")
    (framed,) = tool.assembly.parse(STREAM.replace("ret\n", "ret\n 1c:\tmov\tx29, sp\n"), "aarch64")
    counts = [tool.loops.loops(function)[0].counts for function in (plain, framed)]
    assert [(c.loads, c.stores, c.spills) for c in counts] == [(1, 1, 0), (0, 0, 2)]


@pytest.mark.parametrize(("count", "rate"), [(2, 0.5), (6, 1.5), (8, 2.0), (12, 2.0)])
def test_the_pace_of_a_loop_is_that_of_what_it_waits_for(count: int, rate: float, tool: SimpleNamespace) -> None:
    """Each sum waits for itself four cycles on a core that could do two multiply-adds a cycle."""
    need_models(tool)
    lines = [f"fmla\tv{8 + number}.4s, v0.4s, v1.s[2]" for number in range(count)]
    lines += ["subs\tx3, x3, #0x1", "b.ne\t0 <k>", "ret"]
    text = "0 <k>:\n" + "".join(f" {4 * place:x}:\t{line}\n" for place, line in enumerate(lines))
    (function,) = tool.assembly.parse(text, "aarch64")
    pace = tool.estimate.pace(tool.loops.loops(function), tool.throughput.CORES["neoverse-n1"])
    assert pace.products == {"fmla": count}
    assert pace.rate == pytest.approx(rate, rel=0.05)
    assert pace.peak_share == pytest.approx(rate / 2, rel=0.05)


class Layers(nn.Module):
    """Layers of resnet18 that LLVM spilled for."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(64, 64, 3, padding=1)
        self.narrow = nn.Conv2d(64, 128, 1, stride=2)
        self.last = nn.Conv2d(128, 512, 3, stride=4, padding=1)
        self.again = nn.Conv2d(512, 512, 3, padding=1)
        self.linear = nn.Linear(512, 1000)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.again(self.last(self.narrow(self.first(x).relu()).relu()).relu())
        z: torch.Tensor = self.linear(y.mean((2, 3)))
        return z


@pytest.fixture(scope="module")
def layers() -> Model:
    return Pipeline.parse("O2").run(from_module(Layers(), torch.zeros(1, 64, 56, 56)))[0]


@pytest.mark.parametrize("core", ["cortex-a53", "neoverse-v1"])
def test_layers_have_no_spills(core: str, layers: Model, tool: SimpleNamespace) -> None:
    found = tool.account.account(layers, Target.parse(core), Workspace(threads=1)).kernels
    assert {kernel.name: kernel.spills for kernel in found if kernel.spills} == {}
    assert {kernel.kind for kernel in found} == {"Conv2d", "Winograd", "Matmul"}
    assert all(sum(loop.accumulators for loop in kernel.loops) for kernel in found)


def test_cores_in_order_load_the_words_of_several_steps_at_once(layers: Model, tool: SimpleNamespace) -> None:
    """A convolution of one tap does 0.6 of what a Cortex-A53 could where each step loads its own."""
    need_models(tool)
    found = tool.account.account(layers, Target.parse("cortex-a53"), Workspace(threads=1)).kernels
    (narrow,) = (kernel for kernel in found if kernel.name == "narrow")
    (loop,) = (loop for loop in narrow.loops if loop.accumulators == max(one.accumulators for one in narrow.loops))
    assert loop.loads < 0.35 * loop.multiply_adds
    assert narrow.pace.peak_share > 0.7


def test_products_of_matrices_keep_pace(tool: SimpleNamespace) -> None:
    """Two by two sums of four products each to an instruction."""
    need_models(tool)
    pipeline = Pipeline.parse("O2").with_precision("bf16")
    model = pipeline.run(from_module(nn.Conv2d(64, 48, 3, padding=1), torch.zeros(1, 64, 20, 40)))[0]
    account = tool.account.account(model, Target.parse("neoverse-v1"), Workspace(threads=1))
    (kernel,) = (one for one in account.kernels if one.kind == "Conv2d")
    assert kernel.pace.products.keys() == {"bfmmla"}
    assert kernel.pace.peak_share > LEAST_SHARE
    assert not kernel.spills
    assert account.seconds > 20 * 40 * 64 * 48 * 9 / 16 / (4 * 2.6e9)


@pytest.mark.parametrize(("core", "product", "share"), [("neoverse-v1", "usmmla", 0.9), ("cortex-a55", "sdot", 0.65)])
def test_bytes_keep_pace(core: str, product: str, share: float, tool: SimpleNamespace) -> None:
    """On a Cortex-A55 each word took two slots more, and the pace was half."""
    need_models(tool)
    loaded = from_module(nn.Conv2d(32, 48, 3, padding=1).eval(), torch.zeros(1, 32, 20, 40))
    found = tool.account.account(tool.main.quantised(loaded, tool.main.INT8), Target.parse(core), Workspace(threads=1))
    (kernel,) = (one for one in found.kernels if one.kind == "Conv2d")
    assert kernel.pace.products.keys() == {product}
    assert kernel.pace.peak_share > share
    assert not kernel.spills


@pytest.mark.parametrize(("core", "rate"), [("cortex-a53", 1.2e9), ("neoverse-v1", 4 * 2.6e9)])
def test_time_is_that_of_the_multiply_adds(core: str, rate: float, tool: SimpleNamespace) -> None:
    """A product of 197 by 768 by 64, four multiply-adds to a vector, so many vectors a second at best."""
    need_models(tool)
    model, target = from_module(nn.Linear(768, 64), torch.zeros(1, 197, 768)), Target.parse(core)
    account = tool.account.account(model, target, Workspace(threads=1))
    (kernel,) = account.kernels
    best = 197 * 768 * 64 / 4 / rate
    assert kernel.pace.products.keys() == {"fmla"}
    assert best < account.seconds == pytest.approx(best / kernel.pace.peak_share, rel=0.05)
    assert f"{1e3 * account.seconds:.3g} ms" in tool.main.estimated(account, target)
    assert f"{kernel.pace.rate:.2f}" in tool.main.describe([kernel])


@pytest.fixture(scope="module", params=["fp32", "int8"])
def resnet18(request: pytest.FixtureRequest, tool: SimpleNamespace) -> Model:
    """The network in a precision, as the backend gets it."""
    options = argparse.Namespace(precision=request.param, pipeline="O2", model="resnet18")
    model: Model = tool.main.rewritten("resnet18", options)
    return model


@pytest.mark.targets
@pytest.mark.parametrize("core", PROCESSORS)
def test_resnet18_has_no_spills_and_keeps_pace(core: str, resnet18: Model, tool: SimpleNamespace) -> None:
    """No spill on any core; nine tenths of what a Neoverse N1 and V1 could do in the tile of every convolution."""
    need_models(tool)
    found = tool.account.account(resnet18, Target.parse(core), Workspace(threads=1)).kernels
    assert {kernel.name: kernel.spills for kernel in found if kernel.spills} == {}
    if core in ("neoverse-n1", "neoverse-v1"):
        slow = {k.name: k.pace.peak_share for k in found if k.kind != "Matmul" and k.pace.peak_share < LEAST_SHARE}
        assert slow == {}
