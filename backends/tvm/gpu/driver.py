"""The GPU that the driver of this machine shows first. Imports nothing heavy."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from functools import cache

LIBRARY = "libcuda.so.1"
_MAJOR, _MINOR = 75, 76  # attributes of a device, as the driver's interface numbers them
_NAME_BYTES = 256


@dataclass(frozen=True)
class Found:
    """A GPU: what it calls itself, and its compute capability, such as 80; ``driver`` is the CUDA of the driver."""

    name: str
    capability: int
    driver: str


@cache
def found_gpu() -> Found | None:
    """The first GPU that the driver shows, on which models run; None without a driver or a GPU."""
    try:
        library = ctypes.CDLL(LIBRARY)
        return _first(library)
    except (OSError, AttributeError):
        return None


def _first(library: ctypes.CDLL) -> Found | None:
    version, device, values = ctypes.c_int(), ctypes.c_int(), [ctypes.c_int(), ctypes.c_int()]
    name = ctypes.create_string_buffer(_NAME_BYTES)
    asked = [
        library.cuInit(0),
        library.cuDriverGetVersion(ctypes.byref(version)),
        library.cuDeviceGet(ctypes.byref(device), 0),
        library.cuDeviceGetName(name, _NAME_BYTES, device),
        *(
            library.cuDeviceGetAttribute(ctypes.byref(value), attribute, device)
            for value, attribute in zip(values, (_MAJOR, _MINOR), strict=True)
        ),
    ]
    if any(asked):
        return None
    major, minor = (value.value for value in values)
    text = name.value.decode(errors="replace")
    return Found(text, 10 * major + minor, f"{version.value // 1000}.{version.value % 1000 // 10}")
