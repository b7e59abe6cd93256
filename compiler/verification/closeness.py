"""Whether two ways to compute a model agree: to a bound, or as far as rounding alone moves the model's own outputs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch

from lvc.compiler.ir.counts import cut, visible
from lvc.compiler.ir.dialect import Family, aten
from lvc.compiler.ir.graph import WINOGRAD, calls, family, spec
from lvc.compiler.ir.marks import TF32
from lvc.compiler.ir.model import Model
from lvc.compiler.ir.operators import integer
from lvc.compiler.measure.precision import (
    exact_outputs,
    filtered_outputs,
    filters_short,
    jittered_outputs,
    summed_outputs,
    sums_halves,
    tf32_outputs,
)
from lvc.compiler.pipeline.observers import relative_difference
from lvc.compiler.verification.row_order import in_order_of, orders_rows

Arrays = Sequence[np.ndarray]

BOUND = 1e-4
"""Largest difference, relative to an output's largest value, that needs no explanation."""

ROUNDING_SLACK = 2.0
"""How many times further from double precision than PyTorch code may be where rounding exceeds the bound."""

WINOGRAD_SLACK = 16.0
"""The same with convolutions by Winograd's algorithm, which may round some ten times as coarsely as plain sums do."""

MOST_STEPS = 0.1
"""The most that values near the middle between two quantised steps may move outputs."""

_PLACES = 0.02
_NUDGE = 1e-6
_JUMPS = (
    *(aten.argmax.default, aten.argmin.default, aten.remainder.Tensor, aten.fmod.Tensor),
    *(aten.round.default, aten.floor.default, aten.ceil.default, aten.sign.default),
    *(aten.gt.Tensor, aten.ge.Tensor, aten.lt.Tensor, aten.le.Tensor, aten.eq.Tensor, aten.ne.Tensor),
)


def differences(found: Arrays, wanted: Arrays) -> list[float]:
    """How far each output is from what it should be: `relative_difference`, of integers the share that differs.

    Infinite where there is another number of outputs, or another shape.
    """
    if len(found) != len(wanted):
        return [float("inf")] * max(1, len(wanted))
    return [_difference(ours, theirs) for ours, theirs in zip(found, wanted, strict=True)]


def _difference(found: np.ndarray, wanted: np.ndarray) -> float:
    if np.issubdtype(wanted.dtype, np.floating) or found.shape != wanted.shape:
        return relative_difference(found, wanted)
    return float(np.mean(found != wanted)) if wanted.size else 0.0


@dataclass(frozen=True)
class Comparison:
    """A model's ``own`` outputs beside what somebody else made of the same inputs.

    Beyond the ``bound`` they agree where rounding explains it: the others are at most ``slack`` times as far from
    double precision; or saturating functions that are off by an ulp of one move the outputs as far, or sums of one term
    after another, or Winograd's algorithm on short numbers, or factors in TF32 where they may be; or, if the model
    quantises or decides by comparisons, few places fell to the other side, or a nudge of the inputs moves them as much.
    Lists are compared whatever their order, and so are the rows of a model that puts some in order: they are brought to
    that of its own (``is_ordered``).
    """

    model: Model
    inputs: Arrays
    own: Arrays
    other: Arrays
    bound: float = BOUND
    slack: float = ROUNDING_SLACK
    is_ordered: bool = False

    @cached_property
    def differences(self) -> list[float]:
        return differences(self.other, self.own)

    @property
    def worst(self) -> int:
        """The output that differs most."""
        return max(range(len(self.differences)), key=self.differences.__getitem__)

    @property
    def finds_nothing(self) -> bool:
        """Whether the model has lists, and on these inputs all are empty."""
        counts = {count.name for count in self.model.counts.values()}
        given = dict(zip(self.model.output_names, self.own, strict=True))
        return bool(counts) and not any(int(given[name]) for name in counts)

    @property
    def difference(self) -> float:
        return max(self.differences)

    @property
    def agrees(self) -> bool:
        return self.explanation is not None

    @cached_property
    def explanation(self) -> str | None:
        """What explains the difference: empty for one within the bound, None where nothing does."""
        if self.difference <= self.bound:
            return ""
        if not math.isfinite(self.difference):
            return None
        if self.is_ordered or not orders_rows(self.model):
            return self._explained()
        ordered = replace(self, other=in_order_of(self.own, self.other), is_ordered=True)
        return ordered.explanation if ordered.difference > self.bound else "rows in another order"

    def _explained(self) -> str | None:
        if self._is_rounding():
            return "rounding in single precision"
        if self._is_saturation():
            return "saturated functions rounded to a place of one"
        if self._is_as_far(self._summed):
            halves = any(map(sums_halves, calls(self.model.module.graph)))
            return f"sums in {'half' if halves else 'single'} precision, one term after another"
        if any(map(filters_short, calls(self.model.module.graph))) and self._is_as_far(self._filtered, ROUNDING_SLACK):
            return "what Winograd's algorithm multiplies rounded once more"
        if self._allows_tf32 and self._is_as_far(self._in_tf32, ROUNDING_SLACK):
            return "factors rounded to TF32"
        if (self.is_ordered or jumps(self.model)) and (self._differs_in_few_places() or self._moves_as_much()):
            return "values between two steps"
        if self.model.counts and self._few_of_a_list_differ():
            return "elements of a list on the other side of a threshold, or in another order"
        return None

    def _is_rounding(self) -> bool:
        computed = exact_outputs(self.model, tuple(self.inputs))
        if computed is None:
            return False
        exact = self._as_own(computed)
        allowed = [max(self.bound, self.slack * apart) for apart in differences(self.own, exact)]
        return all(apart <= most for apart, most in zip(differences(self.other, exact), allowed, strict=True))

    def _is_saturation(self) -> bool:
        moved = differences(self._as_own(jittered_outputs(self.model, tuple(self.inputs))), self.own)
        return all(a <= max(self.bound, self.slack * most) for a, most in zip(self.differences, moved, strict=True))

    @cached_property
    def _summed(self) -> Arrays:
        return self._as_own(summed_outputs(self.model, tuple(self.inputs)))

    @cached_property
    def _filtered(self) -> Arrays:
        return self._as_own(filtered_outputs(self.model, tuple(self.inputs)))

    @property
    def _allows_tf32(self) -> bool:
        return any(TF32 in node.meta for node in calls(self.model.module.graph))

    @cached_property
    def _in_tf32(self) -> Arrays:
        return self._as_own(tf32_outputs(self.model, tuple(self.inputs)))

    def _differs_in_few_places(self) -> bool:
        shares = (_share_apart(*pair, self.bound) for pair in zip(self.own, self.other, strict=True))
        return max(shares) <= _PLACES

    def _few_of_a_list_differ(self) -> bool:
        """Whether lists hold the same but for few elements, whatever their order, and all else is within the bound.

        An element is the same within the bound, or ``slack`` times as far as rounded sums move what a list holds. Where
        the model quantises, one of a list may stand at a threshold however short the list is.
        """
        fixed = [place for place, name in enumerate(self.model.output_names) if not self._is_of_a_list(name)]
        if any(self.differences[place] > self.bound for place in fixed):
            return False
        ours, theirs, summed = (
            _rows_of_lists(self.model, part, self.own, self.bound) for part in (self.own, self.other, self._summed)
        )
        most, spared = MOST_STEPS / self.bound, int(quantises(self.model))
        for name in ours:
            near = min(most, max(1.0, self.slack * _moved(ours[name], summed[name])))
            if _share_without_partner(ours[name] / near, theirs[name] / near, spared) > _PLACES:
                return False
        return True

    def _is_of_a_list(self, name: str) -> bool:
        counts = self.model.counts
        return name in counts or any(count.name == name for count in counts.values())

    def _moves_as_much(self) -> bool:
        """Whether a nudge of the inputs moves the outputs as far, in the mean square and up to `MOST_STEPS`."""
        random = np.random.default_rng(0)
        return self._is_as_far(self._as_own(self.model(*(_nudged(array, random) for array in self.inputs))))

    def _as_own(self, arrays: Arrays) -> Arrays:
        """Outputs with their rows as the model's own lie, if they are compared so."""
        return in_order_of(self.own, arrays) if self.is_ordered else arrays

    def _is_as_far(self, moved: Arrays, slack: float = 0.0) -> bool:
        """Whether the outputs are no further than those of a moved model, in the mean square and up to `MOST_STEPS`."""
        slack = slack or self.slack
        allowed = [min(MOST_STEPS, slack * _distance(*pair)) for pair in zip(self.own, moved, strict=True)]
        apart = [_distance(*pair) for pair in zip(self.own, self.other, strict=True)]
        return all(a <= most for a, most in zip(apart, allowed, strict=True))


def with_infinities(found: Arrays, own: Arrays) -> list[np.ndarray]:
    """What was ``found``, infinite where a model's ``own`` output is and the number found is the last finite one.

    ONNX Runtime begins a maximum at the lowest number and PyTorch at minus infinity: so they differ where a window of
    a pooling lies in the padding alone.
    """
    return [_ends_at_infinity(*pair) for pair in zip(found, own, strict=True)] if len(found) == len(own) else [*found]


def _ends_at_infinity(found: np.ndarray, own: np.ndarray) -> np.ndarray:
    if found.shape != own.shape or not np.issubdtype(found.dtype, np.floating):
        return found
    is_last = np.isinf(own) & (np.abs(found) == np.finfo(found.dtype).max) & (np.sign(found) == np.sign(own))
    return np.where(is_last, own, found).astype(found.dtype)


def slack_of(model: Model) -> float:
    """How many times as far from double precision code for a model may be."""
    filters = any(WINOGRAD in node.meta and not filters_short(node) for node in calls(model.module.graph))
    return WINOGRAD_SLACK if filters else ROUNDING_SLACK


def jumps(model: Model) -> bool:
    """Whether a tiny change of a value can make a large one behind it: quantisation, comparisons, orders."""
    return quantises(model) or any(map(_is_jump, calls(model.module.graph)))


def _is_jump(node: torch.fx.Node) -> bool:
    to_whole = node.target is aten.to.dtype and not spec(node).dtype.is_floating_point
    return to_whole or node.target in _JUMPS


def quantises(model: Model) -> bool:
    """Whether activations are rounded to few values on the way: integers, or short floating-point ones."""
    return any(_is_rounding(node) for node in calls(model.module.graph))


def _is_rounding(node: torch.fx.Node) -> bool:
    is_fake = family(node) is Family.QUANTISATION
    return is_fake or node.target in integer.OPERATORS or spec(node).dtype in (torch.bfloat16, torch.float16)


def _share_apart(own: np.ndarray, other: np.ndarray, bound: float) -> float:
    """The share of places that differ by more than the bound."""
    if not own.size:
        return 0.0
    scale = float(np.abs(own[np.isfinite(own)]).max(initial=0.0)) or 1.0
    close = np.isclose(other.astype(np.float64), own.astype(np.float64), rtol=0, atol=bound * scale, equal_nan=True)
    return float(1 - close.mean())


def _rows_of_lists(model: Model, arrays: Arrays, own: Arrays, bound: float) -> dict[str, np.ndarray]:
    """What is valid of the outputs with one count, side by side, by the name of that: in units in which ``bound``,
    relative to the largest value of a model's ``own`` output, is one."""
    largest = {value.name: _largest(array) for value, array in zip(model.outputs, own, strict=True)}
    parts: dict[str, list[np.ndarray]] = {}
    shown = visible(model.outputs, model.counts)
    for value, array in zip(shown, cut(model.outputs, model.counts, arrays), strict=True):
        if value.name in model.counts:
            count = model.counts[value.name]
            rows = np.moveaxis(array.astype(np.float64), count.axis, 0)
            rows = rows.reshape(len(rows), math.prod(rows.shape[1:])) / (largest[value.name] * bound)
            parts.setdefault(count.name, []).append(rows)
    return {name: np.concatenate(found, 1) for name, found in parts.items()}


def _largest(array: np.ndarray) -> float:
    return float(np.abs(array[np.isfinite(array)], dtype=np.float64).max(initial=0.0)) or 1.0


def _share_without_partner(ours: np.ndarray, theirs: np.ndarray, spared: int = 0) -> float:
    """The share of rows of either that are not among the other's, each of which is the partner of one; so many of each
    are not counted."""
    if len(ours) == 0 or len(theirs) == 0:
        return float(abs(len(ours) - len(theirs)) > spared)
    free, alone = np.ones(len(theirs), bool), 0
    for row in ours:
        near = np.flatnonzero(free & (np.abs(theirs - row).max(1) <= 1))
        if len(near):
            free[near[0]] = False
        else:
            alone += 1
    return max(max(alone - spared, 0) / len(ours), max(int(free.sum()) - spared, 0) / len(theirs))


def _moved(rows: np.ndarray, moved: np.ndarray) -> float:
    """How far all rows but few have moved, each to the one that is nearest."""
    if len(rows) == 0 or len(moved) == 0:
        return 0.0
    return float(np.quantile([np.abs(moved - row).max(1).min() for row in rows], 1 - _PLACES))


def _nudged(array: np.ndarray, random: np.random.Generator) -> np.ndarray:
    if not np.issubdtype(array.dtype, np.floating):
        return array
    return np.asarray(array * (1 + _NUDGE * random.standard_normal(array.shape)), array.dtype)


def _distance(own: np.ndarray, other: np.ndarray) -> float:
    """The norm of the difference over the norm; infinite where finite and other numbers meet."""
    ours, theirs = own.astype(np.float64), other.astype(np.float64)
    finite = np.isfinite(ours)
    if not np.array_equal(finite, np.isfinite(theirs)):
        return float("inf")
    norm = float(np.linalg.norm(ours[finite])) or 1.0
    return float(np.linalg.norm(ours[finite] - theirs[finite])) / norm
