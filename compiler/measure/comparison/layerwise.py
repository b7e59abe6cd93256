"""Both models on the same data, layer by layer: what error arrives at a layer, what it adds, what leaves it.

``adds`` is the error of the quantised layer, its input quantised, on the values that the floating-point layer
reads. So it holds nothing of the layers before, and the layers that hurt are those where it is worst.

An integer layer gives sums in a unit that its model does not write down: it is known up to one factor, for which the
one that serves best is taken. What such a layer adds cannot be told apart.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch.fx import GraphModule, Node
from torch.fx.node import map_arg

from lvc.compiler.ir.batching.batching import Calls
from lvc.compiler.ir.dialect import Family, aten
from lvc.compiler.ir.graph import arguments, family, is_call, origin, spec, tensor
from lvc.compiler.ir.model import Model
from lvc.compiler.ir.operators import integer
from lvc.compiler.measure.comparison.pairs import Pair
from lvc.compiler.measure.comparison.signal import Signal
from lvc.compiler.running.compute import Values, compute
from lvc.compiler.running.constants import constants
from lvc.compiler.running.run import Run
from lvc.compiler.text import title


@dataclass
class LayerError:
    """One pair of layers over the data. SQNRs are in dB; ``adds`` is None where it cannot be told."""

    pair: Pair
    arriving: list[Signal] = field(default_factory=list)
    adding: Signal | None = None
    leaving: Signal = field(default_factory=Signal)

    @property
    def name(self) -> str:
        return self.pair.floating.name

    @property
    def origin(self) -> str:
        return origin(self.pair.floating)

    @property
    def title(self) -> str:
        return title(self.origin)

    @property
    def is_integer(self) -> bool:
        """Whether the unit of the layer's values had to be fitted."""
        return not spec(self.pair.quantised).dtype.is_floating_point

    @property
    def arrives(self) -> float | None:
        """The SQNR of the worst operand."""
        return min(((m.best_sqnr if self.is_integer else m.sqnr) for m in self.arriving), default=None)

    @property
    def adds(self) -> float | None:
        return None if self.adding is None else self.adding.sqnr

    @property
    def leaves(self) -> float:
        return self.leaving.best_sqnr if self.is_integer else self.leaving.sqnr

    @property
    def cosine(self) -> float:
        return self.leaving.cosine


class FloatingRun:
    """Runs the floating-point model and keeps what its paired layers read and give."""

    def __init__(self, model: Model, pairs: Iterable[Pair]) -> None:
        layers = [pair.floating for pair in pairs]
        wanted = {*layers, *(operand for layer in layers for operand in layer.all_input_nodes)}
        self.values: dict[Node, torch.Tensor] = {}
        self.run = Run(model, {node: partial(self._keep, node) for node in wanted})

    def _keep(self, node: Node, parts: Sequence[torch.Tensor]) -> None:
        (self.values[node],) = parts


class QuantisedRun:
    """Runs the quantised model and measures its paired layers against ``wanted``, which is set before each run."""

    def __init__(self, model: Model, pairs: Iterable[Pair]) -> None:
        self.errors = {pair.quantised: LayerError(pair) for pair in pairs}
        self.wanted: Values = {}
        self.run = Run(model, instead=dict.fromkeys(self.errors, self._measured))
        self._module = model.module
        self._stored = constants(model.module.graph)

    def _measured(self, layer: Node, values: Values, calls: Calls | None) -> torch.Tensor:
        result = compute(layer, values, calls)
        self._measure(self.errors[layer], layer, values, result)
        return result

    def _measure(self, error: LayerError, layer: Node, values: Values, result: torch.Tensor) -> None:
        wanted = self.wanted[error.pair.floating]
        error.leaving.add(wanted, _real(self._module, layer, result))
        operands = [node for node in layer.all_input_nodes if node not in self._stored]
        theirs: dict[Any, Any] = dict(zip(layer.args, error.pair.floating.args, strict=False))
        known = {node: self.wanted[theirs[node]] for node in operands if theirs.get(node) in self.wanted}
        matched = {node: value for node, value in known.items() if value.shape == spec(node).shape}
        if len(matched) < len(operands):
            return
        error.arriving = error.arriving or [Signal() for _ in operands]
        zero_point = arguments(layer).get("zero_point", 0)
        for moments, node in zip(error.arriving, operands, strict=True):
            found = values[node]
            moments.add(matched[node], found if found.is_floating_point() else found.int() - zero_point)
        if not error.is_integer:
            error.adding = error.adding or Signal()
            rounded = {node: self._round(node, value) for node, value in matched.items()}
            error.adding.add(wanted, compute(layer, ChainMap(rounded, dict(values))))

    def _round(self, node: Node, value: torch.Tensor) -> torch.Tensor:
        """Quantise as an operand was: moving values, or taking the largest, changes no scale."""
        while family(node) is Family.MOVEMENT or is_call(node, aten.max_pool2d.default):
            node = node.all_input_nodes[0]
        if family(node) is not Family.QUANTISATION:
            return value
        _, *parameters = map_arg(node.args, lambda n: tensor(self._module, n))
        rounded: torch.Tensor = node.target(value, *parameters)  # type: ignore[operator]
        return rounded


def _real(module: GraphModule, layer: Node, values: torch.Tensor) -> torch.Tensor:
    """What a layer's values stand for, up to one factor if they are sums of integers."""
    for user in layer.users:
        if is_call(user, integer.rescale, integer.requantise):
            args = arguments(user)
            scale = tensor(module, args["scale" if is_call(user, integer.rescale) else "multiplier"])
            if scale is not None:
                shape = [1] * values.ndim
                shape[args["axis"]] = -1
                return values.double() * scale.reshape(shape)
    return values
