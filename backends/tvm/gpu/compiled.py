"""A compiled kernel as bytes: its text, its device code, and how it is launched. Imports nothing heavy."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from lvc.backends.tvm.gpu.nvrtc import DeviceCode, Usage


@dataclass(frozen=True)
class Parameter:
    """A pointer that a kernel takes: to an argument of its step by its number, or behind them to a scratch buffer."""

    argument: int
    dtype: str
    elements: int
    is_written: bool


@dataclass(frozen=True)
class PlannedLaunch:
    """One launch of a step: the function, blocks, threads of a block, and what it is called with."""

    name: str
    blocks: int
    threads: int
    parameters: tuple[Parameter, ...]


@dataclass(frozen=True)
class CompiledKernel:
    """All launches of a step, their text, and the device code for one architecture."""

    text: str
    launches: tuple[PlannedLaunch, ...]
    code: DeviceCode

    def to_bytes(self) -> bytes:
        header = {
            "launches": [asdict(launch) for launch in self.launches],
            "usage": {name: asdict(usage) for name, usage in self.code.usage.items()},
            "bytes": [len(self.text.encode()), len(self.code.cubin), len(self.code.ptx)],
        }
        return b"\n".join([json.dumps(header).encode(), self.text.encode() + self.code.cubin + self.code.ptx])

    @classmethod
    def from_bytes(cls, content: bytes) -> CompiledKernel:
        """Read what `to_bytes` made, which the cache of kernels has proved to be whole."""
        first, _, rest = content.partition(b"\n")
        header = json.loads(first)
        text, cubin, _ = header["bytes"]
        usage = {name: Usage(**found) for name, found in header["usage"].items()}
        code = DeviceCode(rest[text : text + cubin], rest[text + cubin :], usage)
        return cls(rest[:text].decode(), tuple(map(_launch, header["launches"])), code)


def _launch(found: Mapping[str, Any]) -> PlannedLaunch:
    parameters = tuple(Parameter(**parameter) for parameter in found["parameters"])
    return PlannedLaunch(found["name"], found["blocks"], found["threads"], parameters)
