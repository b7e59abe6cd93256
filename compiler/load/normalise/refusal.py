"""The one error that lists every operator which cannot be brought to the dialect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lvc.compiler.errors import CompileError

_SHOWN = 4


def unknown_operators(found: Mapping[str, Sequence[str]]) -> CompileError:
    """Name operators, each with the places in the user's model where it stands."""
    count = f"{len(found)} operator{'s' * (len(found) > 1)}"
    return CompileError(
        f"the model uses {count} that lvc cannot express",
        where="\n".join(f"{name}: {_join(origins)}" for name, origins in found.items()),
        help="replace them in the model by operators that 'lvc.compiler.dialect' lists",
    )


def _join(origins: Sequence[str]) -> str:
    distinct = list(dict.fromkeys(origins))
    more = f" and {len(distinct) - _SHOWN} more" if len(distinct) > _SHOWN else ""
    return ", ".join(distinct[:_SHOWN]) + more
