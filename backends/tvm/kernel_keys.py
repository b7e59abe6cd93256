"""Names for kernels, equal exactly when their code is: what the cache of compiled kernels knows them by."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import tvm

import lvc
from lvc.backends.tvm.program import Step

KEY_LENGTH = 20


def kernel_keys(steps: Sequence[Step], fingerprint: str) -> list[str]:
    """A name for each step's kernel; ``fingerprint`` is that of the code generator."""
    known = (fingerprint, tvm.__version__, _sources())
    functions = {id(step.function): step.function for step in steps}
    texts = {number: function.script() for number, function in functions.items()}

    def key(step: Step) -> str:
        parts = (texts[id(step.function)], str(step.schedule), *known)
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:KEY_LENGTH]

    return list(map(key, steps))


def structure_key(function: Any, structure: str) -> str:
    """A name for a kernel that is the same in whichever of its ways it is made; ``function`` is by its rule."""
    return hashlib.sha256(f"{function.script()}\0{structure}".encode()).hexdigest()[:KEY_LENGTH]


def code_version() -> str:
    """What tells this code from any other that would make kernels otherwise."""
    return f"{lvc.__version__}-{_sources()[:8]}"


@cache
def _sources() -> str:
    """A digest of this backend's own code, so that a cached object never outlives the code that made it."""
    digest = hashlib.sha256()
    for file in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()
