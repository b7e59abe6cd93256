"""What the kernels of a model for a GPU take and are estimated to do: the account that a backend gives in an artefact's
metadata. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from lvc.compiler.artefact import Artefact
from lvc.compiler.errors import CompileError
from lvc.compiler.text import duration, percent, si, table

HEADERS = (
    "kernel",
    "kind",
    "blocks",
    "threads",
    "registers",
    "shared",
    "spills",
    "resident",
    "warps",
    "limit",
    "MACs",
    "bytes",
    "bound",
    "estimate",
    "of roofline",
)
ALIGN = "llrrrrrrrlrrlrr"


@dataclass(frozen=True)
class LaunchAccount:
    """A launch. The compiler says how many ``registers`` a thread takes, ``shared`` bytes a block, and how many bytes
    go to and from memory for want of registers; a multiprocessor holds so many blocks and warps at once, for want of
    ``limit``. ``seconds`` are an estimate."""

    blocks: int
    threads: int
    registers: int
    shared: int
    spills: int
    resident: int
    warps: int
    most_warps: int
    limit: str
    seconds: float


@dataclass(frozen=True)
class KernelAccount:
    """The kernel of a step, which is one launch or several: its arithmetic, the bytes of its arguments, and the seconds
    that the GPU's arithmetic or its memory needs for them, whichever needs more."""

    name: str
    kind: str
    macs: int
    bytes: int
    roofline: float
    bound: str
    launches: tuple[LaunchAccount, ...]

    @property
    def seconds(self) -> float:
        return sum(launch.seconds for launch in self.launches)

    @property
    def spills(self) -> int:
        return sum(launch.spills for launch in self.launches)

    def row(self) -> tuple[object, ...]:
        """Its cells; what launches differ in is joined by +."""

        def each(*names: str) -> list[str]:
            return [" + ".join(str(getattr(launch, name)) for launch in self.launches) for name in names]

        share = percent(self.roofline / self.seconds) if self.seconds else ""
        return (
            self.name,
            self.kind,
            *each("blocks", "threads", "registers", "shared"),
            self.spills,
            *each("resident", "warps", "limit"),
            si(self.macs) if self.macs else "",
            si(self.bytes, "B"),
            self.bound,
            duration(self.seconds),
            share,
        )


@dataclass(frozen=True)
class KernelsAccount:
    """All kernels of a run in their order, for a GPU; ``launching`` are the seconds that launching takes."""

    gpu: str
    launching: float
    kernels: tuple[KernelAccount, ...]

    def titled(self, titles: Mapping[str, str]) -> KernelsAccount:
        """The same with the user's names of kernels where they are known."""
        return replace(self, kernels=tuple(replace(one, name=titles.get(one.name) or one.name) for one in self.kernels))

    def describe(self) -> str:
        """A table, and the sentences about a whole run."""
        rows = [kernel.row() for kernel in self.kernels]
        seconds = sum(kernel.seconds for kernel in self.kernels) + self.launching
        roofline = sum(kernel.roofline for kernel in self.kernels)
        spilling = sum(kernel.spills > 0 for kernel in self.kernels)
        return "\n".join(
            [
                table(HEADERS, rows, ALIGN),
                f"estimate, not measured: {duration(seconds)} a run on {self.gpu}, {duration(self.launching)} of it to "
                f"launch; roofline {duration(roofline)}",
                f"{spilling} of {len(self.kernels)} kernels spill",
            ]
        )

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: object) -> KernelsAccount:
        """Read what `to_json` made; `ValueError` for anything else."""
        read = _fields(cls, data)
        return cls(**{**read, "kernels": tuple(map(_kernel, read["kernels"]))})


def kernels_of(artefact: Artefact) -> KernelsAccount | None:
    """The account that an artefact gives; None if there is none, `CompileError` if it makes no sense."""
    stored = artefact.metadata.get("kernels")
    if stored is None:
        return None
    try:
        return KernelsAccount.from_json(stored)
    except ValueError as error:
        raise CompileError("the artefact's account of kernels is damaged", why=str(error)) from error


_TYPES = {"int": (int,), "float": (int, float), "str": (str,)}


def _fields(of: Any, data: object) -> dict[str, Any]:
    """The fields of a record, each of its type and no number below zero."""
    if not isinstance(data, Mapping):
        raise ValueError(f"{of.__name__} is no object")
    found = {}
    for field in fields(of):
        value, wanted = data.get(field.name), _TYPES.get(str(field.type), (list, tuple))
        if type(value) not in wanted or (isinstance(value, int | float) and not 0 <= value < float("inf")):
            raise ValueError(f"'{field.name}' of {of.__name__} is {type(value).__name__}")
        found[field.name] = value
    return found


def _kernel(data: object) -> KernelAccount:
    read = _fields(KernelAccount, data)
    launches = (LaunchAccount(**_fields(LaunchAccount, launch)) for launch in read["launches"])
    return KernelAccount(**{**read, "launches": tuple(launches)})
