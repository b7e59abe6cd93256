"""NVIDIA GPUs as a kind of device. What is asked before code is made imports neither PyTorch nor TVM, nor does
`load`."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from lvc.backends.tvm.device import Device, host_of, own_kind
from lvc.backends.tvm.gpu import targets
from lvc.backends.tvm.gpu.gpus import CAPABILITIES
from lvc.compiler.backend import Place, Target
from lvc.compiler.errors import CompileError

if TYPE_CHECKING:
    import torch

    from lvc.backends.tvm.gpu.code_generator import GpuCodeGenerator
    from lvc.compiler.artefact import Artefact
    from lvc.compiler.backend import Executable
    from lvc.compiler.emission import Emission
    from lvc.compiler.files import Content

BLOCK = 4


class NvidiaGpu(Device):
    """The GPUs of `lvc.backends.tvm.gpu.gpus`."""

    @property
    def kinds(self) -> Collection[str]:
        return {targets.KIND}

    def targets(self) -> dict[str, str]:
        return targets.target_texts()

    def parse_target(self, text: str) -> Target | None:
        return targets.parse_target(text)

    def block(self, target: Target) -> int:
        return BLOCK

    def lacks(self, element: str, target: Target) -> str:
        of = targets.gpu_of(target).capability
        return "" if of.multiplies(element) else f"tensor cores of capability {of.number / 10:.1f} do not"

    def that_multiply(self, element: str) -> list[str]:
        levels = CAPABILITIES.values()
        return [f"{targets.KIND}:{level.architecture}" for level in levels if level.multiplies(element)]

    def missing(self, target: Target) -> CompileError | None:
        from lvc.backends.tvm.gpu import nvrtc

        gpu = targets.gpu_of(target)
        architecture = gpu.capability.architecture
        try:
            known = nvrtc.architectures()
            host_of(gpu.host)
        except CompileError as error:
            return error
        if architecture in known:
            return None
        return CompileError(
            f"NVRTC {nvrtc.version()} makes no code for {architecture}",
            why=f"it makes code for {', '.join(sorted(known, key=lambda name: int(name[3:])))}",
            help="take a newer GPU, or an NVRTC that is older: version 12 has sm_70",
        )

    def place(self, target: Target) -> Place:
        from lvc.backends.tvm.gpu.driver import found_gpu

        found, gpu = found_gpu(), targets.gpu_of(target)
        is_able = found is not None and found.capability >= gpu.capability.number and gpu.host in ("", own_kind())
        return Place.HERE if is_able else Place.ELSEWHERE

    def spelling(self, target: Target) -> str:
        return targets.spelling(target)

    def why_untunable(self, target: Target) -> str:
        return "kernels for GPUs are made in one way, by rules"

    def forms(self, target: Target) -> Collection[str]:
        return ("artefact", "source", "shared")

    def why_only(self, target: Target) -> str:
        return "what drives a GPU is a library"

    def emit(self, artefact: Artefact, emission: Emission) -> Mapping[str, Content]:
        from lvc.backends.tvm.gpu.emission import emitted

        return emitted(artefact, emission)

    def code_generator(self, target: Target, dtypes: Collection[torch.dtype] = ()) -> GpuCodeGenerator:
        from lvc.backends.tvm.gpu.code_generator import GpuCodeGenerator

        return GpuCodeGenerator(targets.gpu_of(target))

    def load(self, files: Mapping[str, Content], threads: int | None) -> Executable:
        from lvc.backends.tvm.gpu.executable import GpuExecutable

        return GpuExecutable(files, threads)


DEVICE = NvidiaGpu()
