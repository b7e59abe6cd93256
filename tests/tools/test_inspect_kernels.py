"""tools/inspect_kernels.py: what it sees in object code, and that no kernel of the suite has the faults it is for."""

from __future__ import annotations

import importlib
import itertools
import json
import sys
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from lvc.backends.tvm.cpu.code_generator import CpuCodeGenerator
from lvc.backends.tvm.cpu.isa.avx2 import Avx2
from lvc.backends.tvm.cpu.kernels import matmul
from lvc.backends.tvm.cpu.kernels.matmul import Matmul
from lvc.backends.tvm.cpu.machine import Cache, Machine
from lvc.backends.tvm.cpu.targets import vector_of
from lvc.backends.tvm.cpu.vector import Vector
from lvc.backends.tvm.lower import lower
from lvc.compiler.backend import Target
from lvc.compiler.bench.suite import MODELS
from lvc.compiler.ir.model import Model
from lvc.compiler.load import from_module
from lvc.compiler.pipeline.pipeline import Pipeline
from lvc.compiler.pipeline.workspace import Workspace

TOOLS = Path(__file__).parents[2] / "tools"
PROCESSORS = ("znver4", "znver5", "sapphirerapids", "haswell")
pytestmark = pytest.mark.skipif(not TOOLS.is_dir(), reason="the tool is not part of the wheel")


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The tool and its rooms."""
    monkeypatch.syspath_prepend(str(TOOLS))
    rooms = {name: importlib.import_module(f"inspection.{name}") for name in ("account", "assembly", "caches", "loops")}
    return SimpleNamespace(main=importlib.import_module("inspect_kernels"), **rooms)


REDUCTION = """
0000000000001100 <k_compute_>:
    1100:	sub    $0x58,%rsp
    1104:	vmovups %zmm9,0x10(%rsp)
    1110:	vxorps %xmm3,%xmm3,%xmm3
    1114:	vmovaps (%rcx,%rbx,1),%zmm0
    1120:	vbroadcastss 0x180(%rdx,%r12,1),%zmm2
    1128:	vfmadd231ps %zmm2,%zmm0,%zmm3
    112e:	vfmadd231ps 0x4(%rdi,%r10,1){1to16},%zmm0,%zmm4
    1136:	vmovaps 0x40(%rsp),%zmm5
    113c:	vfmadd231ps %zmm2,%zmm0,%zmm5
    1142:	vmovups %zmm5,0x40(%rsp)
    1148:	mov    -0x50(%rsp),%rax
    114c:	vmovaps %zmm3,%zmm6
    1150:	vmovaps %zmm6,%zmm3
    1156:	cmp    $0x800,%r10
    115d:	jne    1114 <k_compute_+0x14>
    1163:	vmulps %zmm3,%zmm3,%zmm7
    1169:	vfmadd213ps 0x0(%rip),%zmm3,%zmm7        # 1170 <k_compute_+0x70>
    1170:	vmovups %zmm7,(%r8)
    1176:	dec    %r9
    117a:	jne    1110 <k_compute_+0x10>
    1180:	add    $0x58,%rsp
    1184:	ret
"""
REDUCTION_OF_ARM = """
0000000000000040 <k_compute_>:
  40:	movi	v3.2d, #0000000000000000
  44:	ldr	q0, [x0, x1]
  48:	ldp	q1, q2, [x2], #32
  4c:	fmla	v3.4s, v0.4s, v1.s[0]
  50:	fmla	v4.4s, v0.4s, v2.s[3]
  54:	str	q3, [sp, #16]
  58:	ldr	x9, [sp, #8]
  5c:	subs	x3, x3, #0x1
  60:	b.ne	44 <k_compute_+0x4>  // b.any
  64:	stp	q3, q4, [x4]
  68:	cbnz	x5, 0x40 <k_compute_>
  6c:	ret
"""


@pytest.mark.parametrize(
    ("text", "family", "expected"),
    [
        (REDUCTION, "x86", {"multiply_adds": 3, "loads": 3, "spills": 2, "pointers": 1, "moves": 2, "accumulators": 3}),
        (REDUCTION_OF_ARM, "aarch64", {"multiply_adds": 2, "loads": 2, "spills": 1, "pointers": 1, "accumulators": 2}),
    ],
)
def test_a_listing_is_counted(text: str, family: str, expected: dict[str, int], tool: Any) -> None:
    (function,) = tool.assembly.parse(text, family)
    inner, outer = sorted(tool.loops.loops(function), key=lambda loop: not loop.is_innermost)
    nothing = dict.fromkeys(asdict(inner.counts), 0)
    assert asdict(inner.counts) == nothing | expected
    assert not outer.is_innermost
    assert outer.counts.stores == 1  # those of the loop in it are not its own
    assert tool.loops.reductions([outer, inner]) == [inner]


def test_a_jump_back_that_leads_nowhere_is_no_loop(tool: Any) -> None:
    text = "0 <f>:\n 0:\tjmp 8 <f>\n 2:\tvfmadd231ps %ymm0,%ymm1,%ymm2\n 6:\tret\n 8:\ttest %al,%al\n a:\tjmp 2 <f>\n"
    (function,) = tool.assembly.parse(text, "x86")
    assert tool.loops.loops(function) == []


@pytest.fixture(scope="module")
def product() -> Model:
    return from_module(nn.Linear(768, 64), torch.zeros(1, 197, 768))


@pytest.mark.parametrize(("shape", "is_spilt"), [((2, 6), False), ((4, 6), True)])
def test_a_tile_with_more_sums_than_registers_is_seen(
    shape: tuple[int, int], is_spilt: bool, product: Model, tool: Any
) -> None:
    """Haswell has 16 registers, and 4 x 6 sums do not fit."""
    target = Target.parse("haswell")
    vector = vector_of(target)
    (step,) = (step for step in lower(product, CpuCodeGenerator.of(target)).steps if hasattr(step.schedule, "problem"))
    problem = step.schedule.problem  # type: ignore[attr-defined]
    knobs = replace(matmul.choose_knobs(problem, vector), vectors=shape[0], rows=shape[1])
    forced = replace(step, schedule=lambda sch, unit: matmul.schedule(sch, problem, unit, knobs))
    code = CpuCodeGenerator.of(target).compile(forced, "k_forced").code
    counts = [loop.counts for loop in tool.account.reductions_of(code)]
    assert max(loop.multiply_adds for loop in counts) == 8 * shape[0] * shape[1]
    assert (max(loop.spills for loop in counts) > 0) == is_spilt


@pytest.mark.parametrize(
    ("rows", "stride", "crowd"),
    [(29, 12288, 29), (12, 12288, 12), (29, 6144, 15), (29, 12288 + 64, 1), (4, 16, 1), (65, 64, 2)],
)
def test_rows_that_share_a_set_are_counted(rows: int, stride: int, crowd: int, tool: Any) -> None:
    """29 rows of 3,072 floats, all in one set of 12 lines, are what made vit_b_16 take twice as long on Zen 5."""
    vector = vector_of(Target.parse("znver5"))
    tile = tool.caches.Footprint(2, rows, panel=1024, steps=16, tiles=7, stride=stride)
    assert tile.crowd(vector.machine.first) == crowd
    assert [text for text in tile.suspicions(vector) if "fight" in text] == (
        [f"{crowd} rows, {stride} bytes apart, fight for 12 places of the first level"] if crowd > 12 else []
    )


def test_panels_come_from_the_level_that_holds_them(tool: Any) -> None:
    small = Machine(first=Cache(32 << 10, 8), second=Cache(256 << 10, 8))
    vector = Vector(Avx2(), small)
    found = []
    for steps in (256, 768, 1024, 3072):
        tile = tool.caches.footprint(Matmul(197, 768, steps), vector)
        tile = replace(tile, vectors=2, rows=2, panel=2 * 32 * steps)
        found.append((tile.level(small), round(tile.wait(vector), 2), bool(tile.suspicions(vector))))
    assert found == [("first", 0.25, False), ("second", 1.33, True), ("second", 1.33, True), ("third", 2.67, True)]
    assert replace(tile, tiles=1).wait(vector) == 0  # read once, from wherever


class Sample(nn.Module):
    """A convolution of each kind, and a product of 24 rows as deep as the deepest of vit_b_16."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 3, stride=2)
        self.depthwise = nn.Conv2d(32, 32, 3, padding=1, groups=32)
        self.point = nn.Conv2d(32, 64, 1)
        self.deep = nn.Linear(3072, 96)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.point(self.depthwise(self.stem(x)).relu()).relu()
        y: torch.Tensor = self.deep(x.reshape(24, 3072))
        return y


@pytest.fixture(scope="module")
def sample() -> Model:
    return Pipeline.parse("O2").run(from_module(Sample(), torch.zeros(1, 3, 49, 97)))[0]


# known and not mended: with 16 registers LLVM keeps what taps side by side share
SPILT = {"haswell": {"depthwise"}}


@pytest.mark.parametrize("processor", PROCESSORS)
def test_kernels_of_a_sample_have_no_other_fault(processor: str, sample: Model, tool: Any) -> None:
    target = Target.parse(processor)
    found = tool.account.account(sample, target, Workspace(threads=1)).kernels
    assert {kernel.kind for kernel in found} == {"Conv2d", "Depthwise", "Matmul"}
    assert all(kernel.footprint and kernel.hot.multiply_adds for kernel in found)
    assert sum(kernel.share for kernel in found) == pytest.approx(1)
    assert {kernel.name for kernel in found if kernel.spills} == SPILT.get(processor, set())
    assert [kernel for kernel in found if tool.main.fights(kernel, target)] == []


def test_the_command_writes_what_it_found(
    tool: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "net.py"
    source.write_text("from torch import nn\n\n\ndef make():\n    return nn.Linear(64, 16)\n")
    out = tmp_path / "kernels.json"
    options = ["--shape", "12x64", "--target", "haswell", "--json", str(out)]
    monkeypatch.setattr(sys, "argv", ["inspect_kernels.py", f"{source}:make", *options])
    assert tool.main.main() == 0
    assert "suspect" in capsys.readouterr().out
    (account,) = json.loads(out.read_text())
    assert (account["target"], account["precision"]) == ("haswell", "fp32")
    (kernel,) = account["kernels"]
    assert (kernel["kind"], kernel["share"], kernel["faulty"]) == ("Matmul", 1.0, False)
    assert kernel["tile"]["stride"] == 4 * 64
    assert kernel["loops"][0]["multiply_adds"] > 0


@pytest.mark.parametrize(
    ("target", "message"),
    [("cortex-m0", "there is no target 'cortex-m0'"), ("reference", "there are no kernels for the target 'reference'")],
)
def test_a_target_without_code_is_an_error(
    target: str, message: str, tool: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["inspect_kernels.py", "resnet18", "--target", target])
    assert tool.main.main() == 2
    assert message in capsys.readouterr().err


def spilt_kernels() -> dict[tuple[str, str], int]:
    """How many kernels of a model for a processor have spills by the table of results."""
    file = TOOLS.parent / "docs" / "results.md"
    if not file.exists():
        pytest.skip("the documentation is not beside the installed wheel")
    text = file.read_text()
    text = text[text.index("## Kernels without the processor") :]
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    head = rows[0]
    body = itertools.takewhile(lambda row: len(row) == len(head), rows[2:])
    return {(row[0], name): int(cell.split()[0]) for row in body for name, cell in zip(head[1:], row[1:], strict=True)}


def test_the_table_of_results_has_the_suite() -> None:
    assert spilt_kernels().keys() == {(model, processor) for model in MODELS for processor in PROCESSORS}


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_kernels_of_the_suite_have_no_new_fault(name: str, tool: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """No rows fight for one set, and no more kernels have spills than the table of results tells."""
    monkeypatch.setattr(sys, "argv", ["inspect_kernels.py", name])
    known = spilt_kernels()
    for _, target, account in tool.main.each(tool.main.parse()):
        found = account.kernels
        assert [kernel for kernel in found if tool.main.fights(kernel, target)] == []
        spilt = [f"{kernel.name}: {kernel.spills}" for kernel in found if kernel.spills]
        assert len(spilt) <= known[name, target.text], (target.text, spilt)
