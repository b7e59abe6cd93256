"""Open sizes of an exported program: numbers once the inputs have shapes. No expression in a file is evaluated.

A program reads the sizes of its tensors (``aten.sym_size.int``) and computes with them by Python's operators; both are
done here on numbers, while tensors without data tell the shape of every value.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.fx import Node

from lvc.compiler.errors import CompileError, UsageError
from lvc.compiler.load.normalise.builder import call_on_meta
from lvc.compiler.load.normalise.open_lengths import is_open, largest
from lvc.compiler.load.normalise.trace import substitute

_Number = int | float | bool

SIZE_OF = "torch.ops.aten.sym_size.int"
FUNCTIONS: dict[str, Callable[..., _Number]] = {
    **{f"_operator.{name}": getattr(operator, name) for name in ("add", "sub", "mul", "floordiv", "mod", "truediv")},
    **{f"_operator.{name}": getattr(operator, name) for name in ("neg", "eq", "ne", "lt", "le", "gt", "ge", "and_")},
    **{f"_operator.{name}": getattr(operator, name) for name in ("or_", "not_")},
    "torch.sym_max": max,
    "torch.sym_min": min,
    "torch.sym_float": float,
    "torch.sym_int": int,
    "torch.sym_not": operator.not_,
    "math.ceil": math.ceil,
    "math.floor": math.floor,
    "math.trunc": math.trunc,
}
CHECKS = ("torch.ops.aten._assert_scalar.default", "torch.ops.aten.sym_constrain_range_for_size.default")
_LARGEST = 1 << 53
_NAMES = ("as_sym_int", "as_sym_float", "as_sym_bool")


def is_about_sizes(call: Mapping[str, Any]) -> bool:
    """Whether a call computes with sizes, and with no tensor but for its shape."""
    return call["target"] == SIZE_OF or call["target"] in FUNCTIONS or call["target"] in CHECKS


class Sizes:
    """The numbers of a program's open sizes, by name, and the shapes of its values; ``ranges`` are those that open
    sizes may have, ``notes`` what a user should know of those that were chosen."""

    def __init__(self, ranges: Mapping[str, Mapping[str, Any]]) -> None:
        self.notes: list[str] = []
        self._ranges = ranges
        self.numbers: dict[str, _Number] = {}
        self.shapes: dict[Node, Any] = {}
        self.symbols: dict[str, int] = {}

    def number(self, argument: Mapping[str, Any]) -> _Number:
        """A number that stands in a call, or the open one that a name there means."""
        if "as_name" in argument:
            return self.numbers[argument["as_name"]]
        ((_, value),) = argument.items()
        return value  # type: ignore[no-any-return]

    def call(self, call: Mapping[str, Any], arguments: Sequence[Any]) -> None:
        """Do a call about sizes."""
        if call["target"] in CHECKS:
            return
        if call["target"] == SIZE_OF:
            tensor, dim = arguments
            result: _Number = self.shape(tensor)[dim]
        else:
            result = FUNCTIONS[call["target"]](*arguments)
        if abs(result) > _LARGEST:
            raise CompileError("the program computes a size that no tensor has", why=f"it is above {_LARGEST:,}")
        (output,) = call["outputs"]
        kind = next((kind for kind in _NAMES if kind in output), "")
        if not kind:
            raise CompileError("the program computes with sizes in a way that lvc does not know")
        self.numbers[output[kind]["as_name"]] = result

    def shape(self, node: Node) -> Sequence[int]:
        return self.value(node).shape  # type: ignore[no-any-return]

    def value(self, node: Node) -> Any:
        """A tensor without data in the place of a node; computed where it is first asked for."""
        waiting = [node]
        while waiting:
            last = waiting[-1]
            missing = [operand for operand in last.all_input_nodes if operand not in self.shapes]
            if missing and last not in self.shapes:
                waiting += missing
                continue
            waiting.pop()
            if last not in self.shapes:
                self.shapes[last] = self._run(last)
        return self.shapes[node]

    def _run(self, node: Node) -> Any:
        args, kwargs = substitute(node, self.shapes.__getitem__)
        if node.target is operator.getitem:
            return args[0][args[1]]
        if is_open(node.target, args):  # type: ignore[arg-type]
            return largest(node.target, args)  # type: ignore[arg-type]
        return call_on_meta(node.target, args, kwargs)  # type: ignore[arg-type]

    def keep(self, node: Node, shape: Sequence[int], dtype: torch.dtype) -> None:
        self.shapes[node] = torch.empty(tuple(shape), dtype=dtype, device="meta")

    def fix(self, name: str, sizes: Sequence[Mapping[str, Any]], given: Sequence[int] | None) -> tuple[int, ...]:
        """The shape of an input of which some sizes may be open; `UsageError` if the given one does not fit.

        Where none is given and only the number of images is open, it is the least that the program is for.
        """
        open_ = [d for d, size in enumerate(sizes) if "as_expr" in size]
        if given is None and open_ == [0]:
            given = [self._least(sizes[0]["as_expr"]["expr_str"]), *(size["as_int"] for size in sizes[1:])]
            self.notes.append(f"input '{name}': the open batch size was fixed to {given[0]}")
        if given is None and open_:
            raise UsageError(
                f"the shape of input '{name}' is open: {_text(sizes)}",
                why="lvc compiles for fixed shapes",
                help=f"--shape {name}={'x'.join(str(_hint(size)) for size in sizes)} fixes it as it was exported",
            )
        wanted = tuple(given) if given is not None else tuple(size["as_int"] for size in sizes)
        fits = len(wanted) == len(sizes) and all(
            d in open_ or wanted[d] == size["as_int"] for d, size in enumerate(sizes)
        )
        if not fits:
            raise UsageError(
                f"--shape: the shape of input '{name}' was fixed when the file was exported",
                why=f"it is {_text(sizes)}",
                help="export the model again, on examples of the wanted shape",
            )
        for d in open_:
            self._bind(name, sizes[d]["as_expr"]["expr_str"], wanted[d])
        return wanted

    def _bind(self, name: str, symbol: str, size: int) -> None:
        if self.symbols.setdefault(symbol, size) != size:
            why = f"a size of '{name}' is {size}, and {self.symbols[symbol]} elsewhere; the program takes them as equal"
            raise UsageError("--shape: the shapes of inputs do not go together", why=why)

    def _range(self, symbol: str) -> tuple[int | None, int | None]:
        """The least and the largest number that an open size may be, where the program says so."""
        within = next((value for key, value in self._ranges.items() if f"'{key}'" in symbol or key == symbol), {})
        return within.get("min_val"), within.get("max_val")

    def _least(self, symbol: str) -> int:
        """What an open size is if nobody says it: what it is elsewhere, or the least from 1 on."""
        return self.symbols.get(symbol) or max(1, self._range(symbol)[0] or 1)

    def check_ranges(self) -> None:
        """Raise `UsageError` for a size outside of what the program was exported for."""
        for symbol, size in self.symbols.items():
            least, most = self._range(symbol)
            if (least is not None and size < least) or (most is not None and size > most):
                upper = "" if most is None else f" to {most}"
                raise UsageError(f"--shape: the program was exported for sizes from {least or 0}{upper}, not {size}")


def _text(sizes: Sequence[Mapping[str, Any]]) -> str:
    return "x".join("?" if "as_expr" in size else str(size["as_int"]) for size in sizes)


def _hint(size: Mapping[str, Any]) -> int | str:
    if "as_int" in size:
        return int(size["as_int"])
    hint = (size["as_expr"].get("hint") or {}).get("as_int")
    return hint if isinstance(hint, int) else "N"
