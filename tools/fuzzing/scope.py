"""What a random program knows while it is written: its values, and how to add one."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from fuzzing.program import Ref, Step, infer
from lvc.compiler.ir.spec import TensorSpec

SIZES = (1, 1, 2, 3, 3, 4, 5, 6, 7, 8, 8, 11, 12, 13, 16, 16, 17, 19, 24, 31, 32, 33, 58, 64)


class Unfit(Exception):
    """What was drawn cannot be added here; something else is drawn."""


Move = Callable[["Scope"], None]


@dataclass
class Scope:
    """A program while it is written; ``can_spell`` says what its importer has words for."""

    random: random.Random
    can_spell: Callable[[Step, dict[str, TensorSpec]], bool]
    most: int = 40_000
    inputs: dict[str, TensorSpec] = field(default_factory=dict)
    stored: dict[str, TensorSpec] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)
    known: dict[str, TensorSpec] = field(default_factory=dict)

    def emit(self, op: str, *args: Any, hint: Mapping[str, Any] | None = None, **kwargs: Any) -> Ref:
        """Add a call; `Unfit` if it cannot be made, or its result is empty or too large."""
        step = Step(f"v{len(self.steps)}", op, args, kwargs, {"way": self.random.randrange(12), **(hint or {})})
        try:
            spec = infer(step, self.known)
        except (RuntimeError, IndexError, ValueError, TypeError, NotImplementedError, AssertionError) as error:
            raise Unfit(str(error)) from error
        if not 0 < spec.elements <= self.most or len(spec.shape) > 6:
            raise Unfit(f"{spec} is empty or too large")
        if not self.can_spell(step, {**{n: self.known[n] for n in step.operands}, step.name: spec}):
            raise Unfit(f"the importer cannot spell {op}")
        self.steps.append(step)
        self.known[step.name] = spec
        return Ref(step.name)

    def store(self, kind: str, *shape: int, dtype: torch.dtype = torch.float32) -> Ref:
        """A new stored tensor, or sometimes a known one of its kind and shape, or one of equal bytes."""
        spec = TensorSpec(tuple(shape), dtype)
        same = [name for name, other in self.stored.items() if name.startswith(f"{kind}_") and other == spec]
        if same and self.random.random() < 0.3:
            return Ref(self.random.choice(same))
        name = f"{kind}_{len(self.stored)}"
        if same and self.random.random() < 0.2 and f"twin_{same[0]}" not in self.stored:
            name = f"twin_{same[0]}"
        self.stored[name] = self.known[name] = spec
        return Ref(name)

    def input(self, *shape: int, dtype: torch.dtype = torch.float32) -> Ref:
        name = f"x{len(self.inputs)}"
        self.inputs[name] = self.known[name] = TensorSpec(tuple(shape), dtype)
        return Ref(name)

    def shape(self, value: Ref) -> tuple[int, ...]:
        return self.known[value.name].shape

    def values(self, fits: Callable[[TensorSpec], bool] = lambda spec: spec.dtype is torch.float32) -> list[Ref]:
        """The inputs and results that fit, in order."""
        names = [*self.inputs, *(step.name for step in self.steps)]
        return [Ref(name) for name in names if fits(self.known[name])]

    def pick(self, rank: int | None = None) -> Ref:
        """A float value, of a rank if one is given; mostly one of the last."""
        return self.choose(self.values(lambda s: s.dtype is torch.float32 and rank in (None, len(s.shape))))

    def choose(self, found: Sequence[Ref]) -> Ref:
        if not found:
            raise Unfit("no value fits")
        return found[-1 - min(int(self.random.expovariate(0.4)), len(found) - 1)]

    def image(self) -> Ref:
        """A value of four dimensions; one of another rank is brought to it if there is none."""
        if self.random.random() < 0.9 and self.values(lambda s: s.dtype is torch.float32 and len(s.shape) == 4):
            return self.pick(4)
        value = self.pick()
        shape = self.shape(value)
        if len(shape) > 4:
            shape = (*shape[:3], int(torch.Size(shape[3:]).numel()))
        return self.emit("reshape", value, [1] * (4 - len(shape)) + list(shape))

    def axis(self, value: Ref) -> int:
        rank = len(self.shape(value))
        if not rank:
            raise Unfit("no axis")
        return self.random.randrange(rank)

    def either(self, *choices: Any) -> Any:
        return self.random.choice(choices)

    def chance(self, share: float) -> bool:
        return self.random.random() < share
