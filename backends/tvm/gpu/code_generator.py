"""Code for an NVIDIA GPU: launches by rules, CUDA C, and device code from NVRTC."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch.fx import Graph, Node
from tvm.s_tir import Schedule

from lvc.backends.tvm.device import Anchor, Assembled, CodeGenerator, Group, NoSuchWay, host_of
from lvc.backends.tvm.entry import EXPORTED
from lvc.backends.tvm.gpu import rules
from lvc.backends.tvm.gpu.compiled import CompiledKernel, Parameter, PlannedLaunch
from lvc.backends.tvm.gpu.emission import Parts
from lvc.backends.tvm.gpu.entry import Entry
from lvc.backends.tvm.gpu.estimate import estimate
from lvc.backends.tvm.gpu.general_schedule import GeneralSchedule
from lvc.backends.tvm.gpu.gpus import Gpu
from lvc.backends.tvm.gpu.kernels import attention
from lvc.backends.tvm.gpu.launch import Launches
from lvc.backends.tvm.gpu.nvrtc import compile_cuda, version
from lvc.backends.tvm.gpu.printer import PRELUDE, KernelText, kernel_text
from lvc.backends.tvm.layout import Layout
from lvc.backends.tvm.nest import Buffer
from lvc.backends.tvm.object_cache import Object
from lvc.backends.tvm.ops.table import Call
from lvc.backends.tvm.program import ITEM_BYTES, Program, Step
from lvc.backends.tvm.runtime.executable import LIBRARY
from lvc.compiler.errors import CompileError
from lvc.compiler.measure.kernels import KernelsAccount
from lvc.compiler.measure.memory import Memory

BLOCK = 4  # channels: a vector of 16 bytes in float32, a word of 4 bytes in int8
ALIGNMENT = 16


@dataclass(frozen=True)
class GpuCodeGenerator(CodeGenerator):
    """Code for a ``gpu``; what is made for chips of one capability differs in how work is split."""

    gpu: Gpu

    @property
    def block(self) -> int:
        return BLOCK

    @property
    def alignment(self) -> int:
        return ALIGNMENT

    @property
    def host(self) -> str:
        return host_of(self.gpu.host).kind

    @property
    def fingerprint(self) -> str:
        return f"{self.gpu!r} NVRTC {version()} {PRELUDE}"

    def wanted_layout(self, node: Node, operand: Node, layout: Layout) -> Layout:
        return rules.wanted_layout(node, operand, layout, self.block)

    def groups(self, graph: Graph) -> Iterable[Group]:
        return attention.groups(graph, self.gpu)

    def anchor(self, call: Call, choice: str = "") -> Anchor | None:
        if choice:
            raise NoSuchWay(f"kernels for GPUs are made in one way, and none is called {choice}")
        return rules.anchor_of(call, self.gpu)

    def general_schedule(self, *, apart: bool) -> GeneralSchedule:
        return GeneralSchedule(apart)

    def compile(self, step: Step, name: str) -> Object:
        try:
            return self._compiled(step, name)
        except CompileError as error:
            raise CompileError(f"no kernel for GPUs can be made for {', '.join(step.nodes)}", why=str(error)) from error

    def _compiled(self, step: Step, name: str) -> Object:
        schedule, launches = Schedule(step.function), Launches(self.gpu)
        step.schedule(schedule, launches)
        texts = [kernel_text(launch, f"{name}_{number}") for number, launch in enumerate(launches.items)]
        arguments = [*schedule.mod["main"].params, *launches.scratch]
        planned = [
            PlannedLaunch(f"{name}_{number}", launch.blocks, launch.threads, tuple(_parameters(text, arguments)))
            for number, (launch, text) in enumerate(zip(launches.items, texts, strict=True))
        ]
        source = "\n".join(text.text for text in texts)
        code = compile_cuda(PRELUDE + source, self.gpu.capability.architecture)
        scratch = tuple(_elements(buffer) * ITEM_BYTES[str(buffer.dtype)] for buffer in launches.scratch)
        return Object(CompiledKernel(source, tuple(planned), code).to_bytes(), scratch)

    def assemble(
        self, program: Program, kernels: Sequence[str], objects: Mapping[str, Object], memory: Memory
    ) -> Assembled:
        compiled = {name: CompiledKernel.from_bytes(made.code) for name, made in objects.items()}
        scratch = {name: made.scratch for name, made in objects.items()}
        entry = Entry(program, kernels, compiled, memory, scratch, self.gpu.capability.number, version())
        library = host_of(self.gpu.host).linker.link({}, entry.sources(), EXPORTED)
        parts = Parts(program, tuple(kernels), compiled, scratch, memory, self.gpu)
        return Assembled({LIBRARY: library}, parts)

    def account(self, parts: object, macs: Mapping[str, int]) -> KernelsAccount:
        assert isinstance(parts, Parts)
        return estimate(parts, macs).account()


def _parameters(text: KernelText, arguments: Sequence[Buffer]) -> list[Parameter]:
    numbers = {buffer: number for number, buffer in enumerate(arguments)}
    return [
        Parameter(numbers[buffer], str(buffer.dtype), _elements(buffer), is_written)
        for buffer, is_written in zip(text.parameters, text.written, strict=True)
    ]


def _elements(buffer: Buffer) -> int:
    return math.prod(int(extent) for extent in buffer.shape)
