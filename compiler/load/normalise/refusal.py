"""The one error that lists every operator which cannot be brought to the dialect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lvc.compiler.errors import CompileError

_SHOWN = 4
_IN_PACKAGE = (
    "the line is in an installed package: write a factory that returns the part of the model in front of it, whose "
    "outputs are plain tensors (of a detector, the network without what selects boxes)"
)
_OF_COMPLEX = "takes complex numbers"
_ON_PARTS = (
    "of complex numbers Fourier transforms, sums, products of elements and movements are taken: write the others on "
    "their real and imaginary parts"
)


def unknown_operators(found: Mapping[str, Sequence[str]]) -> CompileError:
    """Name operators, each with the places in the user's model where it stands."""
    count = f"{len(found)} operator{'s' * (len(found) > 1)}"
    return CompileError(
        f"the model uses {count} that lvc cannot express",
        where="\n".join(f"{name}: {_join(origins)}" for name, origins in found.items()),
        help=_ON_PARTS
        if any(_OF_COMPLEX in name for name in found)
        else "replace them in the model by operators that 'lvc.compiler.ir.dialect' lists",
    )


def depends_on_data(where: str) -> CompileError:
    """The error of a model whose forward needs to know a value before it can go on."""
    installed = "-packages/" in where
    return CompileError(
        "the model's control flow or shapes depend on the values in a tensor",
        where=where,
        why="one graph must serve every input; this line needs a value that only a run can give",
        help=_IN_PACKAGE if installed else "decide by shapes, or compute both branches and choose with torch.where",
    )


def _join(origins: Sequence[str]) -> str:
    distinct = list(dict.fromkeys(origins))
    more = f" and {len(distinct) - _SHOWN} more" if len(distinct) > _SHOWN else ""
    return ", ".join(distinct[:_SHOWN]) + more
