"""Deliberate mistakes, each of which lvc's own checks or the fuzzer must catch: where one is not, they are blind.

Each replaces a function of lvc for a while; no file is touched.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
from torch import nn

from fuzzing import workers
from fuzzing.campaign import Plan
from fuzzing.case import Case, Verdict, judge

Plant = Callable[[], AbstractContextManager[Any]]


@dataclass(frozen=True)
class Sabotage:
    """A mistake, where it is planted, and a network that it concerns."""

    name: str
    where: str
    plant: Plant
    network: Callable[[torch.Tensor], Any]


@dataclass(frozen=True)
class Caught:
    """What lvc's own comparison said (nothing if it saw nothing), and which model of the fuzzer failed first, after how
    many seconds; None if none did in time."""

    sabotage: Sabotage
    by_check: str
    model: int | None
    verdict: str
    seconds: float


def swapped_offset() -> AbstractContextManager[Any]:
    """The first two parts of a concatenation change places where they are of one size."""
    from lvc.backends.tvm.ops.table import LOWERINGS
    from lvc.compiler.ir.dialect import aten

    right = LOWERINGS[aten.cat.default]

    def wrong(call: Any) -> Any:
        parts = list(call["tensors"])
        if len(parts) > 1 and parts[0].shape == parts[1].shape:
            parts[:2] = parts[1], parts[0]
        return right(dataclasses.replace(call, operands={**call.operands, "tensors": parts}))

    return mock.patch.dict(LOWERINGS, {aten.cat.default: wrong})


def shifted_output() -> AbstractContextManager[Any]:
    """Each result of a Split becomes that of the next part where they are of one size."""
    from lvc.compiler.load.onnx_importer.build import load_converters
    from lvc.compiler.load.onnx_importer.call import CONVERTERS
    from lvc.compiler.load.onnx_importer.values import shape_of

    load_converters()
    right = CONVERTERS["Split"]

    def wrong(call: Any) -> Any:
        parts: Any = right(call)
        same = len({shape_of(part) for part in parts}) == 1
        return [*parts[1:], parts[0]] if same else parts

    return mock.patch.dict(CONVERTERS, {"Split": wrong})


def wrong_pad() -> AbstractContextManager[Any]:
    """Padding before and after the last dimension are taken for each other."""
    from lvc.backends.tvm.ops import movement

    right = movement.pad_array

    def wrong(operand: Any, pad: Any, shape: Any, value: Any) -> Any:
        return right(operand, [pad[1], pad[0], *pad[2:]], shape, value)

    return mock.patch.object(movement, "pad_array", wrong)


def dropped_bias() -> AbstractContextManager[Any]:
    """A pass forgets the biases of convolutions."""
    from lvc.compiler.ir.dialect import aten
    from lvc.compiler.ir.graph import calls
    from lvc.passes.fold_batch_norm import FoldBatchNorm

    right = FoldBatchNorm.apply

    def wrong(self: Any, model: Any, workspace: Any) -> Any:
        outcome = right(self, model, workspace)
        for node in calls(model.module.graph, aten.conv2d.default):
            node.args = (*node.args[:2], None, *node.args[3:])
        return outcome

    return mock.patch.object(FoldBatchNorm, "apply", wrong)


def late_slice() -> AbstractContextManager[Any]:
    """A slice in the middle begins one element late."""
    from lvc.backends.tvm.ops.table import LOWERINGS
    from lvc.compiler.ir.dialect import aten

    right = LOWERINGS[aten.slice.Tensor]

    def wrong(call: Any) -> Any:
        size, start, end = call["self"].shape[call["dim"]], call["start"] or 0, call["end"]
        if start > 0 and end is not None and 0 < end < size:
            call = dataclasses.replace(call, operands={**call.operands, "start": start + 1})
        return right(call)

    return mock.patch.dict(LOWERINGS, {aten.slice.Tensor: wrong})


_CONV = nn.Conv2d(3, 4, 3, padding=1)

SABOTAGES = (
    Sabotage("swapped concatenation offset", "code of `cat`", swapped_offset, lambda x: torch.cat([x, x.abs()], 3)),
    Sabotage("shifted output", "ONNX `Split`", shifted_output, lambda x: torch.split(x, 1, 1)[1]),
    Sabotage("wrong pad", "code of `constant_pad_nd`", wrong_pad, lambda x: nn.functional.pad(x, (0, 2, 1, 1))),
    Sabotage("dropped bias", "pass `fold-batch-norm`", dropped_bias, lambda x: _CONV(x).relu()),
    Sabotage("off-by-one slice", "code of `slice`", late_slice, lambda x: x[:, :, 2:5] * 2),
)


def caught(sabotage: Sabotage, plan: Plan, seconds: float) -> Caught:
    """Plant a mistake; ask lvc's own checks about its network, and the fuzzer for so long."""
    with planted(sabotage):
        check = workers.apart(lambda: Verdict("ok", _check(sabotage))).what
    started = time.monotonic()
    for number in itertools.count():
        case = plan.case(number)
        with planted(sabotage):
            verdict = _verdict(case)
        passed = time.monotonic() - started
        if verdict.is_fault and not _verdict(case).is_fault:
            return Caught(sabotage, check, number, verdict.what, passed)
        if passed > seconds:
            break
    return Caught(sabotage, check, None, "", passed)


def _verdict(case: Case) -> Verdict:
    return workers.apart(lambda: judge(case))


@contextmanager
def planted(sabotage: Sabotage) -> Iterator[None]:
    """Kernels of before are not those of the mistake: nothing is taken from the cache."""
    with mock.patch.dict(os.environ, {"LVC_CACHE": ""}), sabotage.plant():
        yield


def _check(sabotage: Sabotage) -> str:
    """What lvc says of a small network with its default checks: the first line of the error."""
    import tempfile
    from pathlib import Path

    import lvc
    from lvc.compiler.errors import LvcError

    class Net(nn.Module):
        def forward(self, x: torch.Tensor) -> Any:
            return sabotage.network(x)

    torch.manual_seed(0)
    try:
        with tempfile.TemporaryDirectory() as folder:
            subject: Any = str(Path(folder) / "net.onnx")
            if "ONNX" in sabotage.where:
                _write_split(subject)
            else:
                subject = lvc.from_module(Net(), torch.randn(1, 3, 8, 8))
            lvc.compile(subject)
    except LvcError as error:
        return f"{type(error).__name__}: {error.what}"
    return ""


def _write_split(file: str) -> None:
    import onnx
    from onnx import TensorProto, helper

    x, y = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, size, 4, 4]) for name, size in (("x", 4), ("y", 2))
    )
    node = helper.make_node("Split", ["x"], ["a", "y"], axis=1, num_outputs=2)
    graph = helper.make_graph([node], "split", [x], [y])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), file)


def table(rows: list[Caught]) -> str:
    """Markdown of what was caught by what."""
    lines = [
        "| mistake | planted in | lvc's own checks say | the fuzzer finds it at | as |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        found = f"model {row.model}, {row.seconds:.0f} s" if row.model is not None else f"not in {row.seconds:.0f} s"
        lines.append(
            f"| {row.sabotage.name} | {row.sabotage.where} | {row.by_check or 'nothing'} | {found} | {row.verdict} |"
        )
    return "\n".join(lines)
