"""Targets: ``cuda``, ``cuda:sm_80`` by the capability, ``cuda:a100`` by the chip."""

from __future__ import annotations

from lvc.backends.tvm.gpu.gpus import CAPABILITIES, CHIPS, GPUS, USUAL, Gpu
from lvc.compiler.backend import Target
from lvc.compiler.errors import CompileError, UsageError, did_you_mean

KIND = "cuda"
ONLY_SOURCE = "emits CUDA C and cubin, which lvc does not run yet"


def target_texts() -> dict[str, str]:
    """Every target text that this device takes, with one line about it."""
    usual = {KIND: f"any NVIDIA GPU of capability {USUAL / 10:.1f} or newer; {ONLY_SOURCE}"}
    levels = {
        f"{KIND}:{level.architecture}": f"NVIDIA GPUs of capability {level.number / 10:.1f}; {ONLY_SOURCE}"
        for level in CAPABILITIES.values()
    }
    return usual | levels | {f"{KIND}:{name}": f"{chip.line}; {ONLY_SOURCE}" for name, chip in CHIPS.items()}


def parse_target(text: str) -> Target | None:
    """Return the target of a text, or None; `UsageError` for a GPU that is not known."""
    kind, colon, name = text.partition(":")
    if kind != KIND:
        return None
    name = name if colon else CAPABILITIES[USUAL].architecture
    if name not in GPUS:
        help = f"{did_you_mean(name, list(GPUS))}it may be {', '.join(GPUS)}"
        raise UsageError(f"no GPU is called '{name}'", help=help)
    return Target(text, "tvm", KIND, name, frozenset({GPUS[name].capability.architecture}))


def gpu_of(target: Target) -> Gpu:
    """What is known of a target's GPU; `CompileError` for a name that only a damaged artefact can have."""
    if target.cpu not in GPUS:
        raise CompileError(f"no GPU is called '{target.cpu}'", help="it may be " + ", ".join(GPUS))
    return GPUS[target.cpu]
