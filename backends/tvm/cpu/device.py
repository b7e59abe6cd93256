"""CPUs as a kind of device. What is asked before code is made imports neither PyTorch nor TVM; nor does `load`."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from lvc.backends.tvm.cpu import targets
from lvc.backends.tvm.cpu.host import is_emulated, machine_architecture, runs_here
from lvc.backends.tvm.cpu.processors import CPUS, architecture_of
from lvc.backends.tvm.device import Device, Host, Peak
from lvc.backends.tvm.plan import read_plan
from lvc.compiler.backend import Place, Target
from lvc.compiler.errors import CompileError
from lvc.compiler.text import counted

if TYPE_CHECKING:
    import torch

    from lvc.backends.tvm.cpu.code_generator import CpuCodeGenerator
    from lvc.backends.tvm.runtime.executable import Executable
    from lvc.compiler.artefact import Artefact
    from lvc.compiler.emission import Emission
    from lvc.compiler.files import Content
    from lvc.compiler.ir.model import Model


class Cpu(Device):
    """The processors of `lvc.backends.tvm.cpu.processors`: one shared library, one file of weights, one plan."""

    @property
    def kinds(self) -> Collection[str]:
        return {processor.kind for processor in CPUS.values()}

    def targets(self) -> dict[str, str]:
        return targets.target_texts()

    def parse_target(self, text: str) -> Target | None:
        return targets.parse_target(text)

    def block(self, target: Target) -> int:
        return targets.vector_of(target).lanes

    def lacks(self, element: str, target: Target) -> str:
        if element in targets.vector_of(target).isa.dots:
            return ""
        parts = targets.processor_of(target).architecture.parts_that_multiply(element)
        return f"{target.cpu} has no {' or '.join(parts) or f'instruction for {element}'}"

    def that_multiply(self, element: str) -> list[str]:
        return targets.that_multiply(element)

    def missing(self, target: Target) -> CompileError | None:
        from lvc.backends.tvm.cpu.toolchain import assembler_of

        try:
            assembler_of(targets.processor_of(target).architecture.triple)
        except CompileError as error:
            return error
        return None

    def place(self, target: Target) -> Place:
        from lvc.backends.tvm.cpu.emulation import Emulator

        if runs_here(target.features, target.kind) and not is_emulated(target.kind):
            return Place.HERE
        try:
            Emulator.of(targets.processor_of(target).architecture, target.features)
        except CompileError:
            return Place.ELSEWHERE
        return Place.EMULATED

    def spelling(self, target: Target) -> str:
        return targets.spelling(target)

    def processor(self, target: Target, machine: str = "") -> str:
        return targets.timed_processor(target, machine)

    def peak(self, target: Target) -> Peak:
        from lvc.backends.tvm.cpu.peak import built

        return built(target)

    def one_shape(self, target: Target) -> str:
        return ""

    def remarks(self, model: Model, target: Target) -> list[str]:
        from lvc.backends.tvm.integers import layers_of_wide_weights

        wide, isa = layers_of_wide_weights(model), targets.vector_of(target).isa
        if not (wide and isa.seven_bits) or "uint8" in isa.dots:
            return []
        return [
            f"{counted(len(wide), 'layer')} with weights of 8 bits, and {target.cpu} multiplies 7 bits about 1.5 "
            f"times as fast, {isa.seven_bits}"
        ]

    @property
    def own_kind(self) -> str:
        known = machine_architecture()
        return known.kind if known else ""

    def host(self, kind: str = "") -> Host | None:
        from lvc.backends.tvm.cpu.toolchain import toolchain_of

        known = architecture_of(kind) if kind else machine_architecture()
        return Host(known.kind, toolchain_of(known.triple)) if known else None

    def folders(self) -> dict[str, Path]:
        runtime = Path(__file__).parents[1] / "runtime"
        return {kind: runtime / kind for kind in ("include", "cmake")}

    def forms(self, target: Target) -> Collection[str]:
        from lvc.compiler.emission import ARTEFACT, FORMS, SHARED

        has_library = targets.processor_of(target).architecture.has_library
        return FORMS.keys() - (set() if has_library else {ARTEFACT, SHARED})

    def emit(self, artefact: Artefact, emission: Emission) -> Mapping[str, Content]:
        from lvc.backends.tvm.cpu.emission import emitted

        return emitted(artefact, emission)

    def code_generator(self, target: Target, dtypes: Collection[torch.dtype] = ()) -> CpuCodeGenerator:
        from lvc.backends.tvm.cpu.code_generator import CpuCodeGenerator

        return CpuCodeGenerator.of(target, dtypes)

    def load(self, files: Mapping[str, Content], threads: int | None) -> Executable:
        from lvc.backends.tvm.cpu.executable import CpuExecutable

        if is_emulated(read_plan(files).target.kind):
            return self._emulated(files, threads)
        return CpuExecutable(files, threads)

    def emulate(self, files: Mapping[str, Content], threads: int | None) -> Executable:
        target = read_plan(files).target
        if runs_here(target.features, target.kind):
            return self.load(files, threads)
        return self._emulated(files, threads)

    def _emulated(self, files: Mapping[str, Content], threads: int | None) -> Executable:
        try:
            from lvc.backends.tvm.cpu.emulation import Emulated
        except ImportError as error:
            help = "run it on such a processor, or where lvc itself is installed"
            raise CompileError("lvc-runtime emulates nothing", why="that takes a compiler", help=help) from error
        return Emulated(files, threads)


DEVICE = Cpu()
