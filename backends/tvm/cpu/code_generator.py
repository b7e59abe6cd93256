"""Code for a CPU: kernels by rules, object files from LLVM, an entry in C, and one shared library."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch.fx import Graph, Node

from lvc.backends.tvm.cpu import choices, rules
from lvc.backends.tvm.cpu.attention_groups import attention_groups
from lvc.backends.tvm.cpu.emission import Parts
from lvc.backends.tvm.cpu.entry import Entry, headers, instance_bytes
from lvc.backends.tvm.cpu.general_schedule import GeneralSchedule
from lvc.backends.tvm.cpu.kernel_schedule import KernelSchedule
from lvc.backends.tvm.cpu.objects import compile_kernel
from lvc.backends.tvm.cpu.processor import Architecture
from lvc.backends.tvm.cpu.processors import USUAL
from lvc.backends.tvm.cpu.targets import llvm_options, processor_of, vector_of
from lvc.backends.tvm.cpu.toolchain import toolchain_of
from lvc.backends.tvm.cpu.vector import Vector
from lvc.backends.tvm.device import Anchor, Assembled, CodeGenerator, Group, Ways
from lvc.backends.tvm.entry import EXPORTED
from lvc.backends.tvm.layout import Layout
from lvc.backends.tvm.object_cache import Object
from lvc.backends.tvm.ops.table import Call
from lvc.backends.tvm.program import Program, ScheduleFunction, Step
from lvc.backends.tvm.runtime.executable import LIBRARY
from lvc.compiler.backend import Target
from lvc.compiler.measure.memory import Memory


@dataclass(frozen=True)
class CpuCodeGenerator(CodeGenerator):
    """Code for a ``vector`` unit; ``options`` are what LLVM is told of the target, ``listed`` is what Linux lists of a
    processor that can run it: under ``key`` in /proc/cpuinfo all the ``words``."""

    vector: Vector
    options: Mapping[str, object] = field(default_factory=dict)
    listed: Mapping[str, object] = field(default_factory=dict)
    architecture: Architecture = USUAL

    @classmethod
    def of(cls, target: Target, dtypes: Collection[torch.dtype] = ()) -> CpuCodeGenerator:
        """That of a target, for models that multiply numbers of some types: of halves as many as a register has, unless
        there are sums of bytes too, which instructions make of half as many."""
        architecture = processor_of(target).architecture
        computes_halves = torch.float16 in dtypes and torch.int32 not in dtypes
        vector = vector_of(target, halves=computes_halves)
        listed = {"key": architecture.flags, "words": architecture.flags_of(target.features)}
        return cls(vector, llvm_options(target), listed, architecture)

    @property
    def block(self) -> int:
        return self.vector.lanes

    @property
    def alignment(self) -> int:
        return self.vector.bytes

    @property
    def fingerprint(self) -> str:
        return f"{self.vector!r} {self.options!r}"

    @property
    def flags(self) -> Mapping[str, object]:
        return self.listed

    def wanted_layout(self, node: Node, operand: Node, layout: Layout) -> Layout:
        return rules.wanted_layout(node, operand, layout, self.block)

    def anchor(self, call: Call, choice: str = "") -> Anchor | None:
        return choices.anchor_of(call, self.vector, choice) if choice else rules.anchor_of(call, self.vector)

    def groups(self, graph: Graph) -> Iterable[Group]:
        return attention_groups(graph, self.vector)

    def chosen(self, schedule: ScheduleFunction, choice: str) -> ScheduleFunction:
        assert isinstance(schedule, KernelSchedule)
        return choices.chosen(schedule, self.vector, choice)

    def ways(self, schedule: ScheduleFunction) -> Ways | None:
        return choices.ways(schedule, self.vector) if isinstance(schedule, KernelSchedule) else None

    def general_schedule(self, *, apart: bool) -> GeneralSchedule:
        return GeneralSchedule(apart)

    def compile(self, step: Step, name: str) -> Object:
        return compile_kernel(step, name, self.vector, dict(self.options))

    def assemble(
        self, program: Program, kernels: Sequence[str], objects: Mapping[str, Object], memory: Memory
    ) -> Assembled:
        entry, codes = Entry.of(program, kernels, memory), {name: made.code for name, made in objects.items()}
        steps = dict(zip(kernels, program.called, strict=True))
        room = instance_bytes(program, memory)
        parts = Parts(self.architecture, entry, codes, room, partial(self._assembly, steps))
        if not self.architecture.has_library:
            return Assembled({}, parts)
        sources = {"model.c": entry.source(), **headers()}
        return Assembled({LIBRARY: toolchain_of(self.architecture.triple).link(codes, sources, EXPORTED)}, parts)

    def _assembly(self, steps: Mapping[str, Step]) -> dict[str, str]:
        """The assembly of kernels by name, which takes as long as compiling them."""
        options = dict(self.options)
        return {
            name: self.architecture.assembly
            + compile_kernel(step, name, self.vector, options, is_assembly=True).code.decode()
            for name, step in steps.items()
        }
