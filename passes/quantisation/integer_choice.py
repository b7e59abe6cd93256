"""Which layers run in integers for a model to be as fast as wanted, at the least that its outputs move by.

The seconds of each layer are measured twice, in a model all of whose layers are in floating point and in one where all
run in integers; each layer alone is also simulated in integers, to see what that does to the outputs. A path from all
in floating point to all in integers takes the layers that cost least for the time that they save first. Where on it the
budget lies is guessed by the sum of the seconds, measured on the target, and mended: what lies between layers in
integers and others takes time that no layer alone shows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch.fx import Node

from lvc.compiler.ir.graph import arguments, calls, origin, tensor
from lvc.compiler.ir.layers import FLOATING
from lvc.compiler.ir.model import Model
from lvc.compiler.ir.operators.uncalibrated import UNCALIBRATED
from lvc.compiler.pipeline.passes import Table
from lvc.compiler.pipeline.workspace import Stopwatch, Workspace
from lvc.compiler.running.compute import Values
from lvc.compiler.running.rerun import Rerun
from lvc.compiler.text import title
from lvc.passes.budget.language import out_of_reach
from lvc.passes.quantisation.bias_overflow import prevent_bias_overflow
from lvc.passes.quantisation.bit_choice import FLOAT, Assignment, Choice, Choices, Point, path
from lvc.passes.quantisation.divergence import divergence
from lvc.passes.quantisation.insertion import Schemes, insert_places
from lvc.passes.quantisation.placement import Placement, refused_layers
from lvc.passes.quantisation.quantisation_parameters import QuantisationScheme
from lvc.passes.quantisation.weight_parameters import weight_parameters

INTEGER = 8
"""Stands for a layer that runs in integers, whatever the bits of its weights."""

_NEAR = 0.03
_TRIES = 6


@dataclass(frozen=True)
class Found:
    """What was chosen, and the share of today's latency that is left: by the sum over layers, and measured."""

    point: Point
    estimated: float
    measured: float


@dataclass(frozen=True)
class Latency:
    """A model whose layers are to be divided into those in integers and the rest."""

    model: Model
    layers: Sequence[Node]
    weight_bits: int
    workspace: Workspace
    stopwatch: Stopwatch

    def place(self, model: Model, bits: Assignment) -> None:
        """Place the fake quantisation that makes some layers of a model run in integers."""
        chosen = tuple(name for name, number in bits.items() if number == INTEGER)
        if chosen:
            graph = model.module.graph
            layers = frozenset(set(calls(graph, *FLOATING)) - set(refused_layers(graph, chosen, ())))
            insert_places(graph, Placement(graph, layers), Schemes(weight_bits=self.weight_bits))

    def measure(self, bits: Assignment) -> float:
        """Return the share of today's latency that is left when some layers run in integers."""
        return self.stopwatch.compare(self._runnable(bits), self.model).share

    def choices(self, costs: Mapping[str, float]) -> tuple[Choices, float]:
        """Return what each layer can be, its nanoseconds in the place of bytes, and the nanoseconds of all kernels."""
        floating = self.stopwatch.layers(self.model)
        integers = self.stopwatch.layers(self._runnable({layer.name: INTEGER for layer in self.layers}))
        share = Counter(origin(layer) for layer in self.layers)
        found: dict[str, list[Choice]] = {}
        for layer in self.layers:
            place = origin(layer)
            before, after = (int(1e9 * times.get(place, 0.0) / share[place]) for times in (floating, integers))
            found[layer.name] = [Choice(FLOAT, before, 0.0)]
            if after:  # else it has no integer kernel of its own
                found[layer.name].append(Choice(INTEGER, after, costs[layer.name]))
        return found, 1e9 * sum(floating.values())

    def _runnable(self, bits: Assignment) -> Model:
        """Return the model with ranges that fit no data: kernels take as long on any."""
        model = self.model.copy()
        self.place(model, bits)
        for node in list(calls(model.module.graph, UNCALIBRATED)):
            scheme, stored = QuantisationScheme.of(node), tensor(model.module, node.args[0])
            ends = torch.tensor(-1.0), torch.tensor(1.0)
            parameters = (
                scheme.parameters(*ends) if stored is None else weight_parameters(scheme, stored, least_error=False)
            )
            parameters.replace(model.module, node)
        prevent_bias_overflow(model.module)
        model.module.recompile()
        return model


def integer_costs(model: Model, layers: Sequence[Node], inputs: Sequence[torch.Tensor], bits: int) -> dict[str, float]:
    """Return how far the outputs move when a layer alone reads 8-bit values and multiplies weights of ``bits`` bits.

    The range of 8-bit values is that of one input of the signature's size, so inputs do not run at once.
    """
    rerun, total = Rerun(model), dict.fromkeys((layer.name for layer in layers), 0.0)
    for batch in inputs:
        values = rerun.run(batch)
        (wanted,) = rerun.outputs(values)
        for layer in layers:
            (found,) = rerun.again(values, layer, simulated(layer, values, bits))
            total[layer.name] += divergence(wanted, found) / len(inputs)
    return total


def simulated(layer: Node, values: Values, bits: int) -> torch.Tensor:
    """Return what a layer gives from its input and its weight, quantised from the least to the greatest value."""
    args = arguments(layer)
    value, weight = values[args["input"]], values[args["weight"]]
    with torch.inference_mode():
        args["input"] = QuantisationScheme().parameters(value.amin(), value.amax()).round(value)
        scheme = QuantisationScheme(bits=bits, axis=0, symmetric=True, stored=True)
        args["weight"] = weight_parameters(scheme, weight, least_error=True).round(weight)
        known = {key: values[item] if isinstance(item, Node) else item for key, item in args.items()}
        result: torch.Tensor = layer.target(**known)  # type: ignore[operator]
    return result


def until_fast(choices: Choices, total: float, share: float, measure: Callable[[Assignment], float]) -> Found:
    """Return the choice that moves the outputs least of those found that leave at most a share of today's latency.

    `UsageError` if not even all layers in integers are fast enough.
    """
    points = path(choices)

    def estimate(point: Point) -> float:
        return 1 - (points[0].bytes - point.bytes) / total

    best = Found(points[-1], estimate(points[-1]), measure(points[-1].bits))
    if best.measured > share:
        why = "every layer that gains time by it then runs in integers"
        raise out_of_reach(("latency", share), best.measured, "latency", why, ["or prune channels before"])
    slow = (1.0, 1.0)
    for _ in range(_TRIES):
        slope = (slow[0] - best.estimated) / max(1e-9, slow[1] - best.measured)
        guess = best.estimated + (share - best.measured) * slope
        point = next(point for point in points if estimate(point) <= max(guess, best.estimated))
        if point == best.point or best.measured >= share * (1 - _NEAR):
            break
        found = Found(point, estimate(point), measure(point.bits))
        if found.measured <= share:
            best = found
        elif (found.estimated, found.measured) == slow:
            break
        else:
            slow = (found.estimated, found.measured)
    return best


def seconds_table(layers: Sequence[Node], choices: Choices, point: Point) -> Table:
    """Show what each layer takes in floating point and in integers, what that costs, and what was chosen."""
    rows: tuple[tuple[str | int | float, ...], ...] = tuple(
        (
            title(origin(layer)),
            round(own[0].bytes / 1e3, 1),
            *((round(own[1].bytes / 1e3, 1), float(f"{own[1].cost:.3g}")) if len(own) > 1 else ("", "")),
            "float" if point.bits[layer.name] == FLOAT else "integers",
        )
        for layer in layers
        for own in [choices[layer.name]]
    )
    return Table("what each layer costs", ("layer", "us in float", "us in integers", "divergence", "chosen"), rows)
