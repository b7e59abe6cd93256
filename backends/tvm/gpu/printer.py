"""Launches as CUDA C.

Every access to memory is a macro of ``prelude.cuh``, so that the same text can be compiled with accesses that are
checked. Nothing is simplified but constants: the device compiler does that.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tvm_ffi
from tvm import ir, tirx

from lvc.backends.tvm.gpu.expressions import Range, bounds, number
from lvc.backends.tvm.gpu.launch import (
    BARRIER,
    COMMIT,
    COPY,
    COPY_AHEAD,
    EXCHANGE,
    MATRICES,
    MMA,
    TO_TF32,
    TURNED,
    WAIT,
    WORD_OF,
    Launch,
)
from lvc.backends.tvm.gpu.operations import CONDITIONAL, EXTERNS, binary, cast, constant, intrinsic, type_name
from lvc.backends.tvm.nest import Buffer, Expr, Stmt
from lvc.backends.tvm.program import ITEM_BYTES
from lvc.compiler.errors import CompileError

_BYTES = {**ITEM_BYTES, "uint32": 4}  # with words of the factors of tensor cores
_MOST = 1 << 30  # turns of a loop whose number is computed
PRELUDE = (Path(__file__).parent / "prelude.cuh").read_text()


@dataclass(frozen=True)
class KernelText:
    """A kernel in CUDA C; ``parameters`` are the buffers that it is called with, and which of them it writes."""

    text: str
    parameters: tuple[Buffer, ...]
    written: tuple[bool, ...]


def kernel_text(launch: Launch, name: str) -> KernelText:
    """Write a launch down."""
    return _Printer(launch).kernel(name)


@dataclass
class _Printer:
    """The text under construction; ``known`` are the ranges of variables, ``names`` those of variables and buffers."""

    launch: Launch
    lines: list[str] = field(default_factory=list)
    depth: int = 1
    names: dict[Any, str] = field(default_factory=dict)
    known: dict[Any, Range] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def kernel(self, name: str) -> KernelText:
        launch = self.launch
        allocated, read, written = _buffers(launch.body)
        parameters = [buffer for buffer in dict.fromkeys([*read, *written]) if buffer not in allocated]
        are_written = [buffer in written for buffer in parameters]
        for variable, macro, extent in (
            (launch.block, "BLOCK", launch.blocks),
            (launch.thread, "THREAD", launch.threads),
        ):
            self.known[variable] = (0, extent - 1)
            self.line(f"const int {self.named(variable, variable.name)} = LVC_{macro};")
        signature = ", ".join(self._parameter(*pair) for pair in zip(parameters, are_written, strict=True))
        self.statement(launch.body)
        body = "\n".join(self.lines)
        text = f"LVC_KERNEL({name}, {launch.threads})({signature}) {{\n{body}\n}}\n"
        return KernelText(text, tuple(parameters), tuple(are_written))

    def _parameter(self, buffer: Buffer, is_written: bool) -> str:
        const = "" if is_written else "const "
        return f"LVC_GLOBAL({const}{type_name(str(buffer.dtype))}, {self.named(buffer, buffer.name)}, {_size(buffer)})"

    def named(self, thing: Any, wanted: str) -> str:
        """The name of a variable or buffer, a new one at first."""
        if thing not in self.names:
            count = self.counts[wanted] = self.counts.get(wanted, 0) + 1
            self.names[thing] = wanted if count == 1 else f"{wanted}_{count}"
        return self.names[thing]

    def line(self, text: str) -> None:
        self.lines.append("  " * self.depth + text)

    @contextmanager
    def braces(self, head: str = "") -> Iterator[None]:
        self.line(f"{head} {{".strip())
        self.depth += 1
        yield
        self.depth -= 1
        self.line("}")

    def statement(self, node: Stmt) -> None:
        if isinstance(node, tirx.SeqStmt):
            for part in node.seq:
                self.statement(part)
        elif isinstance(node, tirx.For):
            self.loop(node)
        elif isinstance(node, tirx.IfThenElse):
            with self.braces(f"if ({self.expression(node.condition)})"):
                self.statement(node.then_case)
            if node.else_case is not None:
                with self.braces("else"):
                    self.statement(node.else_case)
        elif isinstance(node, tirx.AllocBuffer):
            self.allocate(node.buffer)
        elif isinstance(node, tirx.BufferStore):
            value = self.expression(node.value)
            self.line(f"LVC_STORE({self.names[node.buffer]}, {self.flat(node.buffer, node.indices)}, {value});")
        elif isinstance(node, tirx.Evaluate):
            self.evaluate(node.value)
        else:
            raise CompileError(f"a kernel for GPUs cannot hold {type(node).__name__}")

    def loop(self, node: Any) -> None:
        least, extent = number(node.min), number(node.extent)
        assert least is not None, node
        end = self.expression(node.extent) if extent is None else str(least + extent)
        assert extent is not None or not least, node
        variable = self.named(node.loop_var, node.loop_var.name)
        self.known[node.loop_var] = (least, _MOST if extent is None else least + max(extent, 1) - 1)
        is_unrolled = node.kind != tirx.ForKind.SERIAL
        self.line("#pragma unroll" if is_unrolled else "#pragma unroll 1")
        with self.braces(f"for (int {variable} = {least}; {variable} < {end}; ++{variable})"):
            self.statement(node.body)

    def allocate(self, buffer: Buffer) -> None:
        kind = {"shared": "SHARED", "local": "LOCAL"}[buffer.scope()]
        self.line(f"LVC_{kind}({type_name(str(buffer.dtype))}, {self.named(buffer, buffer.name)}, {_size(buffer)});")

    def evaluate(self, call: Any) -> None:
        if number(call) is not None:
            return
        name, arguments = _extern(call)
        if name == BARRIER:
            self.line("LVC_BARRIER();")
        elif name in (COPY, COPY_AHEAD):
            target, source, lanes = arguments
            size = int(lanes) * _BYTES[str(target.source.dtype)]
            self.line(f"{name.upper()}({size}, {self.place(target)}, {self.place(source)});")
        elif name in (COMMIT, WAIT):
            self.line(f"{name.upper()}({', '.join(map(self.expression, arguments))});")
        elif name in (MATRICES, TURNED, TO_TF32):
            self.line(f"{name.upper()}({', '.join(map(self.place, arguments))});")
        elif name == EXCHANGE:
            target, source, mask = arguments
            self.line(f"LVC_EXCHANGE({self.place(target)}, {self.place(source)}, {int(mask)});")
        elif name == MMA:
            kind, *places = arguments
            self.line(f"LVC_MMA({type_name(str(kind.value))}, {', '.join(map(self.place, places))});")
        else:
            raise CompileError(f"a kernel for GPUs cannot call {name or call}")

    def place(self, element: Any) -> str:
        """The memory of an element and its index."""
        return f"{self.names[element.source]}, {self.flat(element.source, element.indices)}"

    def flat(self, buffer: Buffer, indices: Sequence[Expr]) -> str:
        """The index of an element in memory."""
        stride, constant_part, parts = 1, 0, []
        for index, extent in zip(reversed(list(indices)), reversed(list(buffer.shape)), strict=True):
            value = number(index)
            if value is not None:
                constant_part += value * stride
            else:
                text = self.expression(index)
                parts.append(text if stride == 1 else f"{text} * {stride}")
            stride *= int(extent)
        parts.reverse()
        return " + ".join([*parts, *([str(constant_part)] if constant_part or not parts else [])])

    def expression(self, node: Expr) -> str:
        if isinstance(node, int | tirx.IntImm | tirx.FloatImm):
            return constant(node)
        if isinstance(node, tirx.Var):
            return self.names[node]
        if isinstance(node, ir.TensorLoad):
            return f"LVC_LOAD({self.names[node.source]}, {self.flat(node.source, node.indices)})"
        if isinstance(node, tirx.Cast):
            return cast(str(node.ty.dtype), self.expression(node.value), str(node.value.ty.dtype))
        if isinstance(node, tirx.Select):
            parts = map(self.expression, (node.condition, node.true_value, node.false_value))
            return "({} ? {} : {})".format(*parts)
        if isinstance(node, tirx.Not):
            return f"(!{self.expression(node.a)})"
        if isinstance(node, tirx.Let):
            return self.let(node)
        if isinstance(node, ir.Call):
            return self.call(node)
        return self.operation(node)

    def operation(self, node: Any) -> str:
        a, b = self.expression(node.a), self.expression(node.b)
        range = bounds(node.a, self.known) if isinstance(node, tirx.FloorDiv | tirx.FloorMod) else None
        return binary(node, a, b, is_positive=range is not None and range[0] >= 0)

    def let(self, node: Any) -> str:
        value = self.expression(node.value)
        dtype = str(node.var.ty.dtype)
        if dtype == "int32" and (range := bounds(node.value, self.known)):
            self.known[node.var] = range
        self.line(f"const {type_name(dtype)} {self.named(node.var, node.var.name)} = {value};")
        return self.expression(node.body)

    def call(self, node: Any) -> str:
        name = getattr(node.op, "name", "")
        if name == CONDITIONAL:
            return self.choice(node)
        if name in EXTERNS:
            function, arguments = _extern(node)
            if function == WORD_OF:
                (found,) = arguments
                return f"LVC_WORD({self.place(found)})"
            return f"{EXTERNS[name].get(function, function)}({', '.join(map(self.expression, arguments))})"
        return intrinsic(node, self.expression)

    def choice(self, node: Any) -> str:
        """What stands behind a condition is computed, and read, under it alone."""
        condition, yes, no = node.args
        test = self.expression(condition)
        branches = [self.apart(branch) for branch in (yes, no)]
        if not any(lines for _, lines in branches):
            return f"({test} ? {branches[0][0]} : {branches[1][0]})"
        chosen = tirx.Var("chosen", str(node.ty.dtype))
        name = self.named(chosen, "chosen")
        self.line(f"{type_name(str(node.ty.dtype))} {name};")
        for head, (value, lines) in zip((f"if ({test})", "else"), branches, strict=True):
            with self.braces(head):
                self.lines += lines
                self.line(f"{name} = {value};")
        return name

    def apart(self, node: Expr) -> tuple[str, list[str]]:
        """The text of an expression, and the statements that must stand before it."""
        lines, self.lines = self.lines, []
        self.depth += 1
        value = self.expression(node)
        self.depth -= 1
        lines, self.lines = self.lines, lines
        return value, lines


def _extern(call: Any) -> tuple[str, list[Any]]:
    """The name and the arguments of a call of a function by its name."""
    if getattr(call.op, "name", "") not in EXTERNS:
        return "", []
    name, *arguments = call.args
    return str(name.value), arguments


def _size(buffer: Buffer) -> int:
    size = 1
    for extent in buffer.shape:
        size *= int(extent)
    return size


def _buffers(body: Stmt) -> tuple[set[Any], list[Any], list[Any]]:
    """The buffers that a statement allocates, reads and writes."""
    allocated: set[Any] = set()
    read: list[Any] = []
    written: list[Any] = []

    def visit_call(call: Any) -> None:
        name, arguments = _extern(call)
        if name in (COPY, COPY_AHEAD, EXCHANGE, MATRICES, TO_TF32, TURNED):
            written.append(arguments[0].source)

    tvm_ffi.structural_walk(
        body,
        [
            (tirx.AllocBuffer, lambda node: allocated.add(node.buffer)),
            (ir.TensorLoad, lambda node: read.append(node.source)),
            (tirx.BufferStore, lambda node: written.append(node.buffer)),
            (ir.Call, visit_call),
        ],
    )
    return allocated, read, written
