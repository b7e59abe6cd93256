"""Outputs whose length depends on the data: computed at a length that is never exceeded, with a count beside them.

A graph is static, so a list of boxes has a fixed number of rows. Another output, of rank 0, says how many of them are
valid; the rows behind are zero. Whoever runs a model for somebody cuts them off. Imports nothing heavy.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lvc.compiler.errors import UsageError

if TYPE_CHECKING:
    import numpy as np

    from lvc.compiler.ir.signature import Value


@dataclass(frozen=True)
class Count:
    """The name of the output, ``i64[]``, that says how many elements along ``axis`` are valid."""

    name: str
    axis: int


Counts = Mapping[str, Count]
"""The counts of outputs by the names of these; an output of fixed length has none."""


def visible(outputs: Iterable[Value], counts: Counts) -> tuple[Value, ...]:
    """The outputs that a caller gets: all but the counts, at their largest lengths."""
    hidden = {count.name for count in counts.values()}
    return tuple(value for value in outputs if value.name not in hidden)


def cut(outputs: Sequence[Value], counts: Counts, arrays: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
    """What a caller gets of all outputs: each cut to its count, and no counts."""
    if not counts:
        return tuple(arrays)
    by_name = {value.name: array for value, array in zip(outputs, arrays, strict=True)}
    return tuple(_valid(by_name, value.name, counts.get(value.name)) for value in visible(outputs, counts))


def _valid(arrays: Mapping[str, np.ndarray], name: str, count: Count | None) -> np.ndarray:
    if count is None:
        return arrays[name]
    return arrays[name][(*[slice(None)] * count.axis, slice(int(arrays[count.name])))]


def padded(outputs: Sequence[Value], counts: Counts, arrays: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
    """All outputs as a graph has them, of what a caller gets; what does not fit stays as it is, for others to judge,
    and so does what has the counts already."""
    if not counts or len(arrays) == len(outputs):
        return tuple(arrays)
    import numpy as np

    known: dict[str, np.ndarray] = {}
    for value, array in zip(visible(outputs, counts), arrays, strict=False):
        count = counts.get(value.name)
        known[value.name] = array
        if count is None or array.ndim != len(value.spec.shape):
            continue
        found, bound = array.shape[count.axis], value.spec.shape[count.axis]
        known.setdefault(count.name, np.asarray(found, np.int64))
        known[value.name] = np.pad(array, [(0, max(0, bound - found) * (d == count.axis)) for d in range(array.ndim)])
    return tuple(known[value.name] for value in outputs if value.name in known) + tuple(arrays[len(known) :])


def to_plain(counts: Counts) -> dict[str, list[Any]]:
    """Counts as plain data, ``{"boxes": ["boxes_count", 0]}``."""
    return {name: [count.name, count.axis] for name, count in counts.items()}


def from_plain(plain: object, outputs: Sequence[Value]) -> dict[str, Count]:
    """Read counts that stand in a file; `UsageError` where they do not fit the outputs."""
    if not plain:
        return {}
    if not isinstance(plain, Mapping):
        raise UsageError("the counts of outputs are no table")
    ranks = {value.name: len(value.spec.shape) for value in outputs}
    counts = {}
    for name, told in plain.items():
        if not isinstance(told, list) or len(told) != 2:
            raise UsageError(f"the count of output '{name}' is not a name and an axis")
        count, axis = told
        is_whole = isinstance(axis, int) and not isinstance(axis, bool)
        if ranks.get(count) != 0 or not is_whole or not 0 <= axis < ranks.get(name, 0):
            raise UsageError(f"the count of output '{name}' does not fit it")
        counts[str(name)] = Count(str(count), axis)
    return counts
