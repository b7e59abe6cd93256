"""Targets: ``cuda``, ``cuda:sm_80`` by the capability, ``cuda:a100`` by the chip."""

from __future__ import annotations

from lvc.backends.tvm.gpu.driver import found_gpu
from lvc.backends.tvm.gpu.gpus import CAPABILITIES, CHIPS, GPUS, USUAL, Gpu
from lvc.compiler.backend import Target
from lvc.compiler.errors import CompileError, UsageError, did_you_mean

KIND, NATIVE = "cuda", "native-gpu"


def target_texts() -> dict[str, str]:
    """Every target text that this device takes, with one line about it."""
    usual = {
        NATIVE: "the NVIDIA GPU of this machine",
        KIND: f"any NVIDIA GPU of capability {USUAL / 10:.1f} or newer",
    }
    levels = {
        f"{KIND}:{level.architecture}": f"NVIDIA GPUs of capability {level.number / 10:.1f} or newer"
        for level in CAPABILITIES.values()
    }
    return usual | levels | {f"{KIND}:{name}": chip.line for name, chip in CHIPS.items()}


def parse_target(text: str) -> Target | None:
    """Return the target of a text, or None; `UsageError` for a GPU that is not known."""
    if text == NATIVE:
        return _target(text, _native())
    kind, colon, name = text.partition(":")
    if kind != KIND:
        return None
    name = name if colon else CAPABILITIES[USUAL].architecture
    if name not in GPUS:
        help = f"{did_you_mean(name, list(GPUS))}it may be {', '.join(GPUS)}"
        why = f"they are of capability {min(CAPABILITIES) / 10:.1f} and newer"
        raise UsageError(f"no GPU is called '{name}'", why=why, help=help)
    return _target(text, name)


def spelling(target: Target) -> str:
    """A text that names a target on any machine."""
    return f"{KIND}:{target.cpu}" if target.text == NATIVE else target.text


def _target(text: str, name: str) -> Target:
    return Target(text, "tvm", KIND, name, frozenset({GPUS[name].capability.architecture}))


def _native() -> str:
    """The name of this machine's GPU: the chip if it is a known one, else the best capability that it has."""
    found = found_gpu()
    if found is None:
        raise UsageError(
            "this machine has no NVIDIA GPU", why="no driver shows one", help="name one, such as cuda:sm_80"
        )
    words = found.name.lower().replace(" ", "").replace("-", "")
    chips = [name for name, chip in CHIPS.items() if name in words and chip.capability.number == found.capability]
    levels = [level for number, level in CAPABILITIES.items() if number <= found.capability]
    if not levels:
        why = f"the {found.name} has capability {found.capability / 10:.1f}"
        raise UsageError("this machine's GPU is not supported as a target", why=why)
    return chips[0] if chips else max(levels, key=lambda level: level.number).architecture


def gpu_of(target: Target) -> Gpu:
    """What is known of a target's GPU; `CompileError` for a name that only a damaged artefact can have."""
    if target.cpu not in GPUS:
        raise CompileError(f"no GPU is called '{target.cpu}'", help="it may be " + ", ".join(GPUS))
    return GPUS[target.cpu]
