"""What a program computes, and how far from it rounding may lead.

The truth is PyTorch in double precision. The bound comes from running that again with noise of a few units of single
precision on what each operator reads and gives: what the outputs move by is what rounding may do to them, in a chain
that magnifies it as in one that does not. Where noise changes a truth value or an integer, a comparison was near a
tie, and the model says nothing on these inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from fuzzing import composites
from fuzzing.program import Program, Step, bind, bind_all, draw_stored
from fuzzing.rounding import absolute, largest, rounded_size
from lvc.compiler.ir.dialect import BY_NAME, Family

NOISE = 2.0**-21
"""Four units in the last place of single precision, relative to the largest element of a tensor."""

RUNS = 3
SLACK = 3.0
FLOOR = 1e-6
BLUNT = 1e-2
"""A bound beyond this share of the largest element says nothing."""

EXACT = frozenset(
    [
        "relu",
        "clamp",
        "abs",
        "neg",
        "floor",
        "ceil",
        "round",
        "sign",
        "maximum",
        "minimum",
        "eq",
        "ne",
        "lt",
        "le",
        "gt",
        "ge",
        "logical_and",
        "logical_or",
        "logical_xor",
        "logical_not",
        "isnan",
        "isinf",
        "where",
        "dropout",
        "max_pool2d",
        "amax",
        "amin",
        "argmax",
        "argmin",
        "upsample_nearest2d",
        "to",
        "lvc.argsort",
        *composites.EXACT,
    ]
) | {name for name, op in BY_NAME.items() if op.family is Family.MOVEMENT}
"""Operators that round nothing."""

JUMPS = frozenset(
    ["floor", "ceil", "round", "sign", "remainder", "fmod", *composites.SAMPLES, "deform_conv2d", "lvc.peaks"]
)

Jitter = Callable[[str, torch.Tensor, float], torch.Tensor]


@dataclass(frozen=True)
class Expected:
    """One output: its value in single and in double precision, and the most by which another may differ from the
    latter; 0 where nothing is rounded, None where the bound would say nothing."""

    single: np.ndarray
    double: np.ndarray
    bound: float | None

    def error(self, found: np.ndarray) -> str:
        """What is wrong with a result; nothing if it is right, or if nothing can be said."""
        if found.shape != self.single.shape:
            return f"shape {list(found.shape)} for {list(self.single.shape)}"
        if found.dtype != self.single.dtype:
            return f"{found.dtype} for {self.single.dtype}"
        if self.bound is None:
            return ""
        if self.bound == 0.0:
            wrong = ~np.equal(found, self.single) & ~(_is_nan(found) & _is_nan(self.single))
            return f"{int(wrong.sum())} of {wrong.size} elements differ where nothing is rounded" if wrong.any() else ""
        difference = distance(found, self.double)
        return f"difference {difference:.3g}, {self.bound:.3g} allowed" if difference > self.bound else ""


def _is_nan(array: np.ndarray) -> np.ndarray:
    return np.isnan(array) if array.dtype.kind == "f" else np.zeros(array.shape, bool)


def distance(found: np.ndarray, wanted: np.ndarray) -> float:
    """The largest absolute difference; infinite if non-finite places differ."""
    found, wanted = found.astype(np.float64), wanted.astype(np.float64)
    finite = np.isfinite(wanted)
    if not np.array_equal(found[~finite], wanted[~finite], equal_nan=True):
        return float("inf")
    if not np.isfinite(found[finite]).all():
        return float("inf")
    return float(np.abs(found[finite] - wanted[finite]).max(initial=0.0))


def evaluate(
    program: Program, inputs: Sequence[np.ndarray], *, double: bool = False, jitter: Jitter | None = None
) -> dict[str, torch.Tensor]:
    """Run a program in PyTorch; every value by name."""
    known = draw_stored(program)
    known |= {name: torch.from_numpy(array) for name, array in zip(program.inputs, inputs, strict=True)}
    if double:
        known = {name: value.double() if value.is_floating_point() else value for name, value in known.items()}
    with torch.inference_mode():
        for step in program.steps:
            operands = known
            if jitter and step.op not in EXACT:
                operands = {**known, **{name: jitter("read", known[name], 1.0) for name in step.operands}}
            arguments = bind([list(step.args), list(step.kwargs.values())], operands)
            if double:
                arguments = [[_widened(value) for value in part] for part in arguments]
            result = _call(step, arguments)
            if jitter and step.op not in EXACT and result.is_floating_point():
                first = known[step.operands[0]].shape
                magnitudes = partial(_call, step, [[absolute(value) for value in part] for part in arguments])
                size = rounded_size(step.op, bind_all(step, known), first, result, magnitudes)
                result = jitter(step.op, result, size)
            known[step.name] = result
    return known


def _call(step: Step, arguments: Sequence[Sequence[Any]]) -> torch.Tensor:
    if step.op == "lvc.nms":  # of single precision alone
        arguments = [[value.float() if _is_double(value) else value for value in part] for part in arguments]
    return composites.function(step.op)(*arguments[0], **dict(zip(step.kwargs, arguments[1], strict=True)))


def _is_double(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.dtype is torch.float64


def _widened(value: Any) -> Any:
    return torch.float64 if value is torch.float32 else value


def expected(
    program: Program, inputs: Sequence[np.ndarray], noise: Mapping[str, float] | None = None
) -> list[Expected]:
    """The outputs of a program with their bounds; ``noise`` is that of single operators, else it is `NOISE`."""
    single = evaluate(program, inputs)
    double = evaluate(program, inputs, double=True)
    noisy = [evaluate(program, inputs, double=True, jitter=jitters(seed, noise or {})) for seed in range(RUNS)]
    tied = _tied(program, [single, *noisy], double)
    exact = exact_values(program)
    return [
        Expected(
            single[name].numpy(),
            double[name].numpy(),
            None if name in tied else 0.0 if name in exact else _bound(name, single, double, noisy),
        )
        for name in program.outputs
    ]


def jitters(seed: int, noise: Mapping[str, float]) -> Jitter:
    """Noise on floating-point tensors: relative to each element of what is read, to a size of what is given."""
    generator = torch.Generator().manual_seed(seed)

    def jitter(op: str, value: torch.Tensor, size: float) -> torch.Tensor:
        if not value.is_floating_point():
            return value
        random = 2 * torch.rand(value.shape, generator=generator, dtype=torch.float64) - 1
        if op == "read":
            return value * (1 + NOISE * random)
        own = noise[op] * largest(value) if op in noise else 0.0
        return value + (random * max(own, size * NOISE)).to(value.dtype)

    return jitter


def exact_values(program: Program) -> set[str]:
    """The values that no rounding operator comes before."""
    exact = {*program.inputs, *program.stored}
    for step in program.steps:
        if step.op in EXACT and exact.issuperset(step.operands):
            exact.add(step.name)
    return exact


def _tied(program: Program, others: list[dict[str, torch.Tensor]], double: dict[str, torch.Tensor]) -> set[str]:
    """The values that hang on a decision which noise turns."""
    tied: set[str] = set()
    for step in program.steps:
        value = double[step.name]
        decides = not value.is_floating_point() or step.op in JUMPS
        if not tied.isdisjoint(step.operands) or (
            decides and any(_moved(step.op, run[step.name], value) for run in others)
        ):
            tied.add(step.name)
    return tied


def _moved(op: str, found: torch.Tensor, wanted: torch.Tensor) -> bool:
    if not wanted.is_floating_point():
        return not torch.equal(found, wanted)
    size = float(wanted.abs().nan_to_num(0.0, 0.0, 0.0).max()) if wanted.numel() else 0.0
    return distance(found.numpy(), wanted.numpy()) > 1e-3 * size


def _bound(
    name: str, single: dict[str, torch.Tensor], double: dict[str, torch.Tensor], noisy: list[dict[str, torch.Tensor]]
) -> float | None:
    truth = double[name].numpy()
    size = float(np.abs(truth[np.isfinite(truth)]).max(initial=0.0))
    moved = max(distance(run[name].numpy(), truth) for run in noisy)
    bound = SLACK * moved + FLOOR * size
    if distance(single[name].numpy(), truth) > bound or bound > BLUNT * size:
        return None
    return bound
