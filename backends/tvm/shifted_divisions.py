"""Divisions of shifted indices, hidden from a pass of TVM that is unsound for them.

TVM 0.27 flattens the indices of a buffer through ``IterMapSimplify``. Where an index is divided after two different
shifts, as in ``(j // 16 + 14) % 16`` beside ``(j % 16 + 14) % 16``, that puts the larger shift in place of both
(``PadDividendToDivisor``) and reads other elements. Truncating division, which it does not look into, says the same of
numbers that are not negative, so `hide_shifted_divisions` writes such divisions that way first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tvm_ffi
from tvm import ir, sym, tirx

_UNBOUNDED = 1 << 30

_DIVISIONS = (tirx.FloorDiv, tirx.FloorMod)
_ACCESSES = (ir.TensorLoad, tirx.BufferStore)


def hide_shifted_divisions(function: Any, module: Any, context: Any) -> Any:
    """Write the divisions in each index that has differently shifted ones as truncating divisions."""
    analyzer = sym.Analyzer()
    shifted: list[Any] = []

    def bind(loop: Any) -> None:
        analyzer.bind(loop.loop_var, ir.Range.from_min_extent(loop.min, loop.extent))

    def look(division: Any) -> None:
        if _is_shifted(division.a):
            shifted.append(division)

    def rewrite(access: Any, mutator: Any) -> Any:
        access = mutator.default_mutate(access)
        if not _has_several_shifts(access.indices, analyzer):
            return access
        indices = [_truncating(index, analyzer) for index in access.indices]
        if isinstance(access, ir.TensorLoad):
            return tirx.BufferLoad(access.source, indices)
        return tirx.BufferStore(access.buffer, access.value, indices)

    tvm_ffi.structural_walk(function.body, [(tirx.For, bind), (_DIVISIONS, look)], order="pre")
    if not shifted:
        return function
    return function.with_body(tvm_ffi.structural_mutate(function.body, [(kind, rewrite) for kind in _ACCESSES]))


def _is_shifted(index: Any) -> bool:
    """Whether an index has a constant other than 0 among its summands."""
    if isinstance(index, tirx.Add | tirx.Sub):
        return _is_shifted(index.a) or _is_shifted(index.b)
    if isinstance(index, tirx.Mul):
        return any(isinstance(part, tirx.Add | tirx.Sub) and _is_shifted(part) for part in (index.a, index.b))
    return isinstance(index, tirx.IntImm) and int(index.value) != 0


def _has_several_shifts(indices: Sequence[Any], analyzer: Any) -> bool:
    """Whether a shifted dividend stands beside another divisor, or a dividend that differs modulo their divisor."""
    found: list[Any] = []
    for index in indices:
        tvm_ffi.structural_walk(index, [(_DIVISIONS, found.append)])
    return any(_is_shifted(division.a) for division in found) and not all(
        _agrees(division, found[0], analyzer) for division in found[1:]
    )


def _agrees(division: Any, other: Any, analyzer: Any) -> bool:
    if not isinstance(division.b, tirx.IntImm) or not tvm_ffi.structural_equal(division.b, other.b):
        return False
    apart = analyzer.simplify(division.a - other.a)
    return isinstance(apart, tirx.IntImm) and int(apart.value) % int(division.b.value) == 0


def _truncating(index: Any, analyzer: Any) -> Any:
    """The same index, with truncating divisions of what is not negative."""

    def quotient(division: Any, mutator: Any) -> Any:
        a, b, turns = mutator.mutate(division.a), division.b, _turns(division, analyzer)
        return tirx.FloorDiv(a, b) if turns is None else tirx.Div(a + turns * b, b) - turns

    def remainder(division: Any, mutator: Any) -> Any:
        a, b, turns = mutator.mutate(division.a), division.b, _turns(division, analyzer)
        return tirx.FloorMod(a, b) if turns is None else tirx.Mod(a + turns * b, b)

    return tvm_ffi.structural_mutate(index, [(tirx.FloorDiv, quotient), (tirx.FloorMod, remainder)])


def _turns(division: Any, analyzer: Any) -> int | None:
    """How many divisors make the dividend non-negative; None where that is not known."""
    if not isinstance(division.b, tirx.IntImm):
        return None
    least, divisor = int(analyzer.const_int_bound(division.a).min_value), int(division.b.value)
    return max(0, -(least // divisor)) if divisor > 0 and least > -_UNBOUNDED else None
