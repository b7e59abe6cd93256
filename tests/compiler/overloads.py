"""For every ATen overload that the PyTorch importer takes, a way to draw a call: all of its arguments, by name."""

from __future__ import annotations

from typing import Any

from drawing import Arguments, Drawn
from drawn_arithmetic import ACTIVATION, ARITHMETIC
from drawn_composites import RECURRENT, SAMPLED, SEPARABLE
from drawn_layers import CONTRACTION, NORMALISATION, POOLING, RESAMPLING
from drawn_movement import MOVEMENT
from drawn_ordering import ORDERING
from drawn_reductions import CREATION, INDEXING, REDUCTION
from torch._ops import OpOverload

OVERLOADS: dict[OpOverload, Drawn] = {
    **MOVEMENT,
    **ARITHMETIC,
    **ACTIVATION,
    **CONTRACTION,
    **POOLING,
    **NORMALISATION,
    **RESAMPLING,
    **SEPARABLE,
    **SAMPLED,
    **RECURRENT,
    **REDUCTION,
    **INDEXING,
    **ORDERING,
    **CREATION,
}


def as_dispatched(overload: OpOverload, given: Arguments) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments as a trace holds them: positional up to the last that is no default, keyword-only ones by name."""
    schema = overload._schema.arguments
    whole = {a.name: given.get(a.name, a.default_value) for a in schema}
    told = [a.name for a in schema if a.name in given and not _is_default(a, given[a.name])]
    places = [a.name for a in schema if not a.kwarg_only]
    last = max((i for i, name in enumerate(places) if name in told or not schema[i].has_default_value()), default=-1)
    named = {a.name: whole[a.name] for a in schema if a.kwarg_only and a.name in told}
    return tuple(whole[name] for name in places[: last + 1]), named


def _is_default(argument: Any, value: Any) -> bool:
    default = argument.default_value
    return argument.has_default_value() and type(default) is type(value) and bool(default == value)
