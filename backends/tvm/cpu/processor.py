"""What is known of a processor, and what all processors of an architecture have in common. Imports nothing heavy:
loading a model needs their instruction sets."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from lvc.backends.tvm.cpu.isa.instruction_set import InstructionSet
from lvc.backends.tvm.cpu.machine import GENERIC, Machine

Info = Mapping[str, str]  # what Linux says of a processor in /proc/cpuinfo


@dataclass(frozen=True)
class Architecture:
    """Processors that run each other's code as far as they have its instruction sets.

    ``kind`` is what targets and plans call it, ``triple`` what LLVM does, ``machines`` what operating systems do;
    ``options`` is what LLVM must be told beside.
    ``vectors`` are its instruction sets for vectors, the widest first, the last one in every processor; ``halves`` is
    that for models which compute in half precision. ``levels`` are
    the processors that stand for any with their instruction sets, the best first. Linux lists the latter under
    ``flags``, some by other ``names`` than LLVM; ``name_of`` gives LLVM's name of a processor, empty where uncertain.
    ``system`` is what the code runs under, and ``mangled`` what stands before names of C in its object files. Artefacts
    hold libraries for Linux; for others code is emitted, to be linked there.
    ``parts`` are the instruction sets that a target's text may add to a processor, by the names that texts have for
    LLVM's, and ``assembly`` tells an assembler of them all. ``emulator`` is the program of QEMU that runs its code
    elsewhere, if one is of use, and ``emulated`` are the processors that it has for all with no more than their
    instruction sets, the least first.
    """

    kind: str
    triple: str
    machines: tuple[str, ...]
    vectors: tuple[type[InstructionSet], ...]
    levels: tuple[str, ...]
    flags: str
    names: Mapping[str, str]
    name_of: Callable[[Info], str]
    parts: Mapping[str, str] = field(default_factory=dict)
    assembly: str = ""
    halves: type[InstructionSet] | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    system: str = "Linux"
    mangled: str = ""
    emulator: str = ""
    emulated: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def widest(self, features: Collection[str]) -> InstructionSet:
        """The instruction set with the widest vectors of those that a processor has."""
        known = next((vector for vector in self.vectors if vector.feature in features), self.vectors[-1])
        return known.of(features)

    @property
    def has_library(self) -> bool:
        """Whether an artefact holds the code as a library."""
        return self.system == "Linux"

    def for_halves(self, features: Collection[str]) -> InstructionSet:
        """The instruction set for a model that computes in half precision."""
        return self.halves.of(features) if self.halves else self.widest(features)

    def parts_that_multiply(self, element: str) -> list[str]:
        """The parts of instruction sets with an instruction that multiplies and adds elements of a type, as texts have
        them."""
        texts = {name: text for text, name in self.parts.items()}
        named = [vector.dot_features[element] for vector in self.vectors if element in vector.dot_features]
        return [texts.get(name, name) for name in named]

    def features_of(self, info: Info) -> frozenset[str]:
        """The instruction sets that Linux reports, by LLVM's names."""
        return frozenset(self.names.get(flag, flag) for flag in info.get(self.flags, "").split())

    def flags_of(self, features: Collection[str]) -> list[str]:
        """What Linux calls instruction sets that have LLVM's names."""
        words = {name: flag for flag, name in self.names.items()}
        return sorted(words.get(feature, feature) for feature in features)


@dataclass(frozen=True)
class Processor:
    """One line about a processor, the instruction sets that generated code may use, what cost models know of it, its
    architecture, and LLVM's name of it where that is another."""

    line: str
    features: frozenset[str]
    machine: Machine = GENERIC
    architecture: Architecture = field(kw_only=True)
    llvm: str = field(default="", kw_only=True)

    @property
    def kind(self) -> str:
        """What targets and plans call its kind."""
        return self.architecture.kind
