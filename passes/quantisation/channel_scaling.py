"""What scaling the channels of a value is worth: the noise of 8-bit quantisation in what the layers make that read it.

Ranges are taken from every other input, and judged on values of the rest. A channel that reaches no further than a
limit on the images that were seen may do so on others, and what the scale lifts beyond the limit is cut off there.
With rounding errors of their own at each place, a reader's weights ``w[o,i]`` and values ``x[i]`` make::

    sum_i mean(dx[i]^2) sum_o w[o,i]^2  +  sum_i mean(x[i]^2) sum_o dw[o,i]^2
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import partial

import torch
from torch.fx import GraphModule, Node

from lvc.compiler.ir.graph import spec
from lvc.compiler.ir.model import Model
from lvc.compiler.running.run import Run
from lvc.passes.analysis.affine import scale_inputs
from lvc.passes.quantisation.chains import Chain
from lvc.passes.quantisation.operands import stored_operand
from lvc.passes.quantisation.quantisation_parameters import QuantisationScheme
from lvc.passes.quantisation.weight_parameters import weight_parameters

_ROWS = 32  # of an input
_WEIGHT = QuantisationScheme(axis=0, symmetric=True, stored=True)


class Channels:
    """Looks at some values of a model: the greatest magnitude in each channel, and rows of every other input."""

    def __init__(self, model: Model, values: Iterable[Node]) -> None:
        self.most = {value: torch.zeros(2, spec(value).shape[1]) for value in values}
        self.rows: dict[Node, list[torch.Tensor]] = {value: [] for value in self.most}
        self._seen = dict.fromkeys(self.most, 0)
        self.run = Run(model, {value: partial(self._look, value) for value in self.most}, frozen=True)

    @property
    def inputs(self) -> int:
        """How many inputs of the signature's size were looked at."""
        return max(self._seen.values(), default=0)

    def _look(self, value: Node, parts: Sequence[torch.Tensor]) -> None:
        for part in parts:
            self._seen[value] += 1
            most, rows = self.most[value][self._seen[value] % 2], part.movedim(1, -1).flatten(0, -2)
            torch.maximum(most, rows.abs().amax(0), out=most)
            if not self._seen[value] % 2:
                self.rows[value].append(rows[:: -(-len(rows) // _ROWS)].clone())

    def ranges(self, value: Node) -> torch.Tensor:
        """Return the greatest magnitude in each channel on all inputs, ``f64``."""
        return self.most[value].amax(0).double()

    def ranges_seen(self, value: Node) -> torch.Tensor:
        """Return the same without the inputs by which scales are judged."""
        return self.most[value][1].double()


def noise(module: GraphModule, chain: Chain, looked: Channels, scale: torch.Tensor) -> float:
    """Return the power of the noise behind a chain whose channels have a scale, on the inputs kept for judging."""
    rows, most = torch.cat(looked.rows[chain.value]).double(), float((looked.ranges_seen(chain.value) * scale).max())
    scaled = (rows * scale).clamp(max=math.inf if chain.limit is None else chain.limit)
    low = -most if bool((rows < 0).any()) else 0.0
    found = (
        QuantisationScheme().parameters(torch.tensor(low), torch.tensor(most)).round(scaled.float()).double() / scale
    )
    lost, power = (found - rows).square().mean(0), rows.square().mean(0)
    total = 0.0
    for reader in chain.readers:
        weight = stored_operand(module, reader, "weight")
        given = scale_inputs(reader, weight, 1 / scale).float()
        rounded = scale_inputs(reader, weight_parameters(_WEIGHT, given, least_error=False).round(given), scale)
        total += float((lost * by_input(weight, len(scale)).square().sum(1)).sum())
        total += float((power * by_input(rounded - weight, len(scale)).square().sum(1)).sum())
    return total


def by_input(weight: torch.Tensor, channels: int) -> torch.Tensor:
    """Return the weights that multiply each input channel, ``[channels, n]``."""
    grouped = weight.reshape(channels // weight.shape[1], -1, *weight.shape[1:])
    return grouped.transpose(1, 2).flatten(0, 1).flatten(1)
