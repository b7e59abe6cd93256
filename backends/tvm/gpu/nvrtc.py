"""CUDA C to device code, by the NVRTC library that PyTorch's wheel or NVIDIA's own brings."""

from __future__ import annotations

import ctypes
import importlib.util
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from lvc.compiler.errors import CompileError

INSTALL = "pip install lvc[cuda]"
OPTIONS = ("--fmad=false", "--ptxas-options=-v", "--std=c++17", "-default-device")
"""Nothing is contracted but what kernels ask for, so that all compilers round alike."""

_LOCK = threading.Lock()
_USAGE = re.compile(r"Used (\d+) registers(.*)")
_SHARED = re.compile(r"(\d+) bytes smem")
_SPILLS = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
_ENTRY = re.compile(r"Compiling entry function '(\w+)'")


@dataclass(frozen=True)
class Usage:
    """What the compiler says of a kernel: registers of a thread, bytes of shared memory of a block, and bytes that a
    thread stores to and loads from memory for want of registers."""

    registers: int
    shared: int
    spill_stores: int
    spill_loads: int


@dataclass(frozen=True)
class DeviceCode:
    """A cubin for one architecture, the PTX of the same, and what each kernel takes, by name."""

    cubin: bytes
    ptx: bytes
    usage: dict[str, Usage]


def version() -> str:
    """The library's version; `CompileError` where there is none."""
    major, minor = ctypes.c_int(), ctypes.c_int()
    _check(_library().nvrtcVersion(ctypes.byref(major), ctypes.byref(minor)), "nvrtcVersion")
    return f"{major.value}.{minor.value}"


@cache
def architectures() -> frozenset[str]:
    """The architectures that the library compiles for; `CompileError` where there is none."""
    count = ctypes.c_int()
    _check(_library().nvrtcGetNumSupportedArchs(ctypes.byref(count)), "nvrtcGetNumSupportedArchs")
    numbers = (ctypes.c_int * count.value)()
    _check(_library().nvrtcGetSupportedArchs(numbers), "nvrtcGetSupportedArchs")
    return frozenset(f"sm_{number}" for number in numbers)


def compile_cuda(source: str, architecture: str) -> DeviceCode:
    """Compile CUDA C; `CompileError` with the compiler's first complaint where it refuses."""
    library, program = _library(), ctypes.c_void_p()
    with _LOCK:  # one at a time: the library is not documented to be safe for more
        created = library.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"kernel.cu", 0, None, None)
        _check(created, "nvrtcCreateProgram")
        try:
            given = [f"--gpu-architecture={architecture}", *OPTIONS]
            options = (ctypes.c_char_p * len(given))(*(option.encode() for option in given))
            status = library.nvrtcCompileProgram(program, len(given), options)
            log = _text(program, "ProgramLog").rstrip(b"\0").decode(errors="replace")
            if status:
                complaint = next((line for line in log.splitlines() if "error" in line), log.strip() or str(status))
                raise CompileError(f"NVRTC {version()} refuses a kernel for {architecture}", why=complaint)
            return DeviceCode(_text(program, "CUBIN"), _text(program, "PTX").rstrip(b"\0"), usage_of(log))
        finally:
            library.nvrtcDestroyProgram(ctypes.byref(program))


def usage_of(log: str) -> dict[str, Usage]:
    """What the assembler's log says of each kernel."""
    found: dict[str, Usage] = {}
    name, spills = "", (0, 0)
    for line in log.splitlines():
        if entry := _ENTRY.search(line):
            name, spills = entry[1], (0, 0)
        elif spilt := _SPILLS.search(line):
            spills = int(spilt[2]), int(spilt[3])
        elif name and (used := _USAGE.search(line)):
            shared = _SHARED.search(used[2])
            found[name] = Usage(int(used[1]), int(shared[1]) if shared else 0, *spills)
    return found


def _text(program: ctypes.c_void_p, what: str) -> bytes:
    size = ctypes.c_size_t()
    _check(getattr(_library(), f"nvrtcGet{what}Size")(program, ctypes.byref(size)), f"nvrtcGet{what}Size")
    content = ctypes.create_string_buffer(size.value)
    _check(getattr(_library(), f"nvrtcGet{what}")(program, content), f"nvrtcGet{what}")
    return content.raw


def _check(status: int, call: str) -> None:
    if status:
        raise CompileError(f"NVRTC failed: {call} returned {status}")


@cache
def _library() -> ctypes.CDLL:
    for folder in _folders():
        for file in sorted(folder.glob("libnvrtc.so*"), reverse=True):
            try:
                for part in sorted(folder.glob("libnvrtc-builtins.so*")):  # which the library asks for by its bare name
                    ctypes.CDLL(str(part), mode=ctypes.RTLD_GLOBAL)
                return ctypes.CDLL(str(file))
            except OSError:
                continue
    raise CompileError("code for GPUs needs NVRTC, which is not installed", help=INSTALL)


def _folders() -> Iterator[Path]:
    """Where wheels put it."""
    spec = importlib.util.find_spec("nvidia")
    for place in (spec.submodule_search_locations or ()) if spec else ():
        yield from sorted(Path(place).glob("*/lib"), reverse=True)
