"""The structure of lvc in figures: files and functions by length, imports against the order of the rooms, circles.

    python tools/structure.py

Rooms are ordered from what knows least to what knows most; an import of a later room is against the order. Imports
count where they stand: those at the head of a module make circles, those inside a function only wait for its call.
"""

from __future__ import annotations

import ast
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = {"lvc.compiler": "compiler", "lvc.passes": "passes", "lvc.backends": "backends"}
ORDER = (
    "lvc.compiler.errors",
    "lvc.compiler.text",
    "lvc.compiler.files",
    "lvc.compiler.ir",
    "lvc.compiler.data",
    "lvc.compiler.pipeline",
    "lvc.compiler.artefact",
    "lvc.compiler.backend",
    "lvc.compiler.running",
    "lvc.compiler.measure",
    "lvc.compiler.verification",
    "lvc.compiler.load",
    "lvc.compiler.driver",
    "lvc.compiler.bench",
    "lvc.compiler.cli",
    "lvc.backends.tvm",
    "lvc.backends.tvm.cpu",
    "lvc.backends.tvm.gpu",
)
"""Rooms and files, what knows least first; those that are not named have no place in it."""


@dataclass(frozen=True)
class Import:
    """One module reads another; ``is_late`` if only when a function runs, or for a type checker."""

    reader: str
    read: str
    is_late: bool


@dataclass(frozen=True)
class Structure:
    """What was counted."""

    files: int
    median: float
    longest: tuple[int, str]
    functions: int
    function_median: float
    against: tuple[Import, ...]
    circles: tuple[tuple[str, ...], ...]


def modules() -> dict[str, Path]:
    """Every module by its name."""
    found = {}
    for package, folder in PACKAGES.items():
        for file in sorted((ROOT / folder).rglob("*.py")):
            parts = file.relative_to(ROOT / folder).with_suffix("").parts
            if parts[0] != "lvc":
                found[".".join([package, *(part for part in parts if part != "__init__")])] = file
    return found


def imports(name: str, tree: ast.Module, known: dict[str, Path]) -> Iterator[Import]:
    """The modules of lvc that a module imports."""
    late = {id(node) for scope in ast.walk(tree) if _waits(scope) for node in ast.walk(scope)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            reads = [
                inner if (inner := f"{node.module}.{alias.name}") in known else node.module for alias in node.names
            ]
            yield from (Import(name, read, id(node) in late) for read in reads if read in known)
        elif isinstance(node, ast.Import):
            yield from (Import(name, alias.name, id(node) in late) for alias in node.names if alias.name in known)


def _waits(node: ast.AST) -> bool:
    is_for_types = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    return is_for_types or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)


def _place(name: str) -> int | None:
    rooms = [at for at, room in enumerate(ORDER) if f"{name}.".startswith(f"{room}.")]
    return max(rooms, key=lambda at: len(ORDER[at]), default=None)


def circles(edges: Sequence[Import]) -> list[tuple[str, ...]]:
    """Modules that import each other when they are loaded: the strongly connected components of more than one."""
    following: dict[str, set[str]] = {}
    for edge in edges:
        if not edge.is_late and edge.reader != edge.read:
            following.setdefault(edge.reader, set()).add(edge.read)
    reached = {name: _reachable(name, following) for name in following}
    together = {
        tuple(sorted(other for other in known if name in reached.get(other, ())))
        for name, known in reached.items()
        if name in known
    }
    return sorted(together)


def _reachable(start: str, following: dict[str, set[str]]) -> set[str]:
    found: set[str] = set()
    waiting = list(following.get(start, ()))
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting.extend(following.get(name, ()))
    return found


def measure() -> Structure:
    """Count everything."""
    known = modules()
    trees = {name: ast.parse(file.read_text()) for name, file in known.items()}
    lengths = {name: len(file.read_text().splitlines()) for name, file in known.items()}
    whole = [length for length in lengths.values() if length > 1]
    functions = [
        (node.end_lineno or node.lineno) - node.lineno + 1
        for tree in trees.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    edges = [edge for name, tree in trees.items() for edge in imports(name, tree, known)]
    placed = [(edge, _place(edge.reader), _place(edge.read)) for edge in edges]
    return Structure(
        files=len(known),
        median=statistics.median(whole),
        longest=max((length, name) for name, length in lengths.items()),
        functions=len(functions),
        function_median=statistics.median(functions),
        against=tuple(
            edge for edge, reader, read in placed if reader is not None and read is not None and reader < read
        ),
        circles=tuple(circles(edges)),
    )


def main() -> None:
    found = measure()
    length, name = found.longest
    print(f"files             {found.files}, median {found.median:g} lines, longest {length} ({name})")
    print(f"functions         {found.functions}, median {found.function_median:g} lines")
    late = [edge for edge in found.against if edge.is_late]
    print(f"against the order {len(found.against)} imports, {len(late)} of them inside functions or for types")
    for edge in found.against:
        print(f"  {edge.reader} -> {edge.read}{' (late)' if edge.is_late else ''}")
    print(f"circles           {len(found.circles)}")
    for circle in found.circles:
        print(f"  {', '.join(circle)}")


if __name__ == "__main__":
    main()
