"""tools/fuzz.py makes the same models again, finds a planted fault, and shrinks it to a script that shows it."""

from __future__ import annotations

import contextlib
import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from lvc.compiler.errors import CompileError
from lvc.compiler.ir.dialect import OPS, Family, aten
from lvc.compiler.ir.graph import calls
from lvc.compiler.ir.model import Model
from lvc.compiler.ir.operators import dynamic, functions, integer
from lvc.compiler.ir.operators.coded_weights import DECODE
from lvc.compiler.ir.spec import TensorSpec
from lvc.compiler.pipeline.passes import Outcome
from lvc.compiler.pipeline.workspace import Workspace
from lvc.passes.fold_batch_norm import FoldBatchNorm

TOOLS = Path(__file__).parents[2] / "tools"
pytestmark = pytest.mark.skipif(not TOOLS.is_dir(), reason="the fuzzer is not part of the wheel")


@pytest.fixture
def fuzzing(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    monkeypatch.syspath_prepend(str(TOOLS))
    from fuzzing import (
        campaign,
        case,
        composites,
        generate,
        moves_order,
        moves_volumes,
        oracle,
        program,
        rounding,
        scope,
        workers,
    )

    return SimpleNamespace(
        campaign=campaign,
        case=case,
        composites=composites,
        generate=generate,
        oracle=oracle,
        order=moves_order,
        program=program,
        rounding=rounding,
        scope=scope,
        volumes=moves_volumes,
        workers=workers,
    )


@pytest.fixture
def dropped_bias(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plant a mistake: a pass forgets the bias of every convolution."""
    right = FoldBatchNorm.apply

    def wrong(self: FoldBatchNorm, model: Model, workspace: Workspace) -> Outcome:
        outcome = right(self, model, workspace)
        for node in calls(model.module.graph, aten.conv2d.default):
            node.args = (*node.args[:2], None, *node.args[3:])
        return outcome

    monkeypatch.setattr(FoldBatchNorm, "apply", wrong)


def test_a_model_is_the_same_whenever_it_is_drawn(fuzzing: SimpleNamespace) -> None:
    plan = fuzzing.campaign.Plan(seed=5)
    cases = [plan.case(number) for number in range(8)]
    assert cases == [plan.case(number) for number in range(8)]
    assert len({str(case.program) for case in cases}) == 8


def test_every_operator_that_importers_bring_is_drawn(fuzzing: SimpleNamespace) -> None:
    """Those of ATen and those that order elements by name; what passes alone make is drawn as pipelines."""
    moves = "".join(file.read_text() for file in (TOOLS / "fuzzing").glob("moves_*.py"))
    by_passes = {*integer.OPERATORS, *dynamic.OPERATORS, *functions.OPERATORS, DECODE}
    brought = {op.name for op in OPS.values() if op.family is not Family.QUANTISATION and op.overload not in by_passes}
    assert {"conv2d", "lvc.argsort", "lvc.scatter", "lvc.nms", "lvc.peaks", "lvc.roi_align"} <= brought
    assert {name for name in brought | fuzzing.composites.CALLS.keys() if f'"{name}"' not in moves} == set()


@pytest.mark.filterwarnings("ignore:The reduce argument of torch.scatter:UserWarning")
def test_moves_of_order_and_volumes_draw_what_the_importers_take(fuzzing: SimpleNamespace) -> None:
    """Each operator that they name is drawn, and loaded it computes what PyTorch does."""
    ours = {"lvc.argsort", "lvc.scatter", "lvc.nms", "lvc.peaks", "lvc.roi_align"}
    programs = [program for move in (*fuzzing.order.MOVES, *fuzzing.volumes.MOVES) for program in drawn(fuzzing, move)]
    seen: set[str] = set()
    for program in programs:
        ops = {step.op for step in program.steps} - seen
        if not ops & (fuzzing.composites.CALLS.keys() | ours):
            continue
        seen |= ops
        verdict = fuzzing.case.judge(fuzzing.case.Case(program, "torch", "", "reference"))
        assert verdict.kind == "ok", f"{program}: {verdict.detail}"
    assert seen >= fuzzing.composites.CALLS.keys() | ours


def drawn(fuzzing: SimpleNamespace, move: Callable[[Any], None]) -> Iterator[Any]:
    """Small programs that a move makes of an image and a sequence."""
    for seed in range(24):
        scope = fuzzing.scope.Scope(random.Random(seed), fuzzing.generate.anything, most=2_000)
        scope.input(2, 4, 6, 5)
        scope.input(2, 3, 4)
        with contextlib.suppress(fuzzing.scope.Unfit):
            move(scope)
            yield fuzzing.program.Program(
                scope.inputs, scope.stored, tuple(scope.steps), (scope.steps[-1].name,)
            ).pruned()


@pytest.mark.parametrize("importer", ["ir", "torch", "onnx"])
def test_models_of_every_importer_are_right(fuzzing: SimpleNamespace, importer: str) -> None:
    if importer == "onnx":
        pytest.importorskip("onnxruntime")
    plan = fuzzing.campaign.Plan(seed=1, importer=importer, pipeline="O1", target="reference")
    verdicts = [fuzzing.case.judge(plan.case(number)) for number in range(6)]
    assert [verdict.detail for verdict in verdicts if verdict.kind not in ("ok", "blunt")] == []
    assert "ok" in {verdict.kind for verdict in verdicts}


def test_a_planted_fault_is_found_and_shrunk(
    fuzzing: SimpleNamespace,
    dropped_bias: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(fuzzing.workers, "apart", lambda trial: trial())
    plan = fuzzing.campaign.Plan(seed=2, importer="torch", pipeline="O1", target="reference", verified=0)
    rows = (fuzzing.campaign.attempt(plan, number, Counter(), tmp_path) for number in range(60))
    row = next(row for row in rows if row["kind"] == "fault")
    script = Path(row["script"]).read_text()
    assert script.count("conv2d") == 1
    steps = [line for line in script.splitlines() if line.startswith("        v")]
    assert len(steps) <= 2, "nothing but the convolution and perhaps the normalisation behind it is left"
    exec(compile(script, row["script"], "exec"), {})
    loaded, compiled = (float(line.split()[4].rstrip(",")) for line in capsys.readouterr().out.splitlines())
    assert loaded < 1e-5
    assert compiled > 1e-2


def test_the_bound_tells_a_wrong_element_from_rounding(fuzzing: SimpleNamespace) -> None:
    plan = fuzzing.campaign.Plan(seed=2, importer="ir")
    program = next(
        case.program for case in map(plan.case, range(100)) if {"conv2d", "cat"} <= {s.op for s in case.program.steps}
    )
    inputs = fuzzing.program.draw_inputs(program.inputs.values(), "normal", 0)
    for value in fuzzing.oracle.expected(program, inputs):
        assert value.error(value.single) == ""
        if value.bound is not None:
            wrong = value.single.copy().reshape(-1)
            wrong[-1] += 0.1 * abs(value.single).max() + 1
            assert value.error(wrong.reshape(value.single.shape)) != ""


def test_terms_that_cancel_round_by_their_own_size(fuzzing: SimpleNamespace) -> None:
    values = torch.tensor([[1000.0, -1000.0, 0.5, 0.25]])

    def mean(rows: torch.Tensor) -> torch.Tensor:
        return torch.ops.aten.mean.dim(rows, [1], False)

    size = fuzzing.rounding.rounded_size(
        "mean", {"dim": [1]}, values.shape, mean(values), lambda: mean(fuzzing.rounding.absolute(values))
    )
    assert size == pytest.approx(2000.75 / 4)


def busy() -> None:
    while True:
        pass


def test_an_end_of_the_process_is_a_fault(fuzzing: SimpleNamespace) -> None:
    apart = fuzzing.workers.apart
    assert apart(os.abort).what == "crash: SIGABRT"
    assert apart(lambda: os._exit(3)).what == "crash: exit 3"
    assert apart(lambda: time.sleep(60), seconds=0.2).what.startswith("hang")
    assert apart(busy, seconds=1).what == "hang in code outside lvc"


def test_refusals_are_no_faults_and_tracebacks_are(fuzzing: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    case = fuzzing.campaign.Plan(seed=1, importer="ir", pipeline="O1", target="reference").case(0)

    def fails(error: Exception) -> str:
        def apply(self: FoldBatchNorm, model: Model, workspace: Workspace) -> Outcome:
            raise error

        monkeypatch.setattr(FoldBatchNorm, "apply", apply)
        return str(fuzzing.case.judge(case).kind)

    assert fails(CompileError("no way")) == "refused"
    assert fails(ZeroDivisionError("oh")) == "fault"


@pytest.mark.parametrize(
    ("peer", "code", "kind"),
    [(0, 0, "ok"), (1, 0, "oracle"), (0, 1, "fault"), (1, 1, "fault"), (2, 1, "fault"), (None, 1, "fault")],
)
def test_a_peer_that_is_wrong_excuses_nothing(
    fuzzing: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, peer: int | None, code: int, kind: str
) -> None:
    """Peers and code that are off by so much, and a peer that fails."""
    case, right = simple_case(fuzzing), fuzzing.case._outputs

    def run(program: Any, opset: int, arrays: list[np.ndarray]) -> tuple[np.ndarray, ...]:
        assert peer is not None
        return tuple(value.single + peer for value in fuzzing.oracle.expected(program, arrays))

    monkeypatch.setattr("fuzzing.onnx_file.run", run)
    monkeypatch.setattr(fuzzing.case, "_outputs", lambda *given: tuple(value + code for value in right(*given)))
    assert fuzzing.case.judge(case).kind == kind


@pytest.mark.parametrize(("peer", "kind"), [(1, "oracle"), (0, "fault"), (2, "fault")])
def test_what_the_fuzzer_did_not_mean_is_no_fault(
    fuzzing: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, peer: int, kind: str
) -> None:
    """The file says one more than the description, the peer reads so much more from it."""
    case, right = simple_case(fuzzing), fuzzing.case.expected

    def described(*given: Any) -> list[Any]:
        return [type(v)(v.single - 1, v.double - 1, v.bound) for v in right(*given)]

    def run(program: Any, opset: int, arrays: list[np.ndarray]) -> tuple[np.ndarray, ...]:
        return tuple(value.single + peer for value in described(program, arrays))

    monkeypatch.setattr(fuzzing.case, "expected", described)
    monkeypatch.setattr("fuzzing.onnx_file.run", run)
    assert fuzzing.case.judge(case).kind == kind


def simple_case(fuzzing: SimpleNamespace) -> Any:
    spec = TensorSpec((2, 3), torch.float32)
    step = fuzzing.program.Step("v", "sigmoid", (fuzzing.program.Ref("x"),), {})
    program = fuzzing.program.Program({"x": spec}, {}, (step,), ("v",))
    return fuzzing.case.Case(program, importer="onnx", pipeline="O1", target="reference")


class Lane:
    def __init__(self, exitcode: int | None) -> None:
        self.exitcode = exitcode

    def is_alive(self) -> bool:
        return self.exitcode is None


class Rows:
    """Has a row at the second look."""

    looks = 0

    def poll(self, seconds: float) -> bool:
        self.looks += 1
        return self.looks > 1

    def recv(self) -> dict[str, int]:
        return {"model": 1}


def test_a_process_that_is_done_is_not_taken_for_one_that_was_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(TOOLS))
    from fuzzing.campaign import _next

    assert _next(Rows(), [Lane(0), Lane(None)]) == {"model": 1}
    for lanes in ([Lane(-9), Lane(None)], [Lane(0), Lane(0)]):
        with pytest.raises(RuntimeError, match="was ended"):
            _next(Rows(), lanes)
