"""What scaling the channels of a value is worth: the noise of 8-bit quantisation in what the layers make that read it.

Ranges are taken from every other batch, and judged on values of the rest. A channel that reaches no further than a
limit on the images that were seen may do so on others, and what the scale lifts beyond the limit is cut off there.
With rounding errors of their own at each place, a reader's weights ``w[o,i]`` and values ``x[i]`` make::

    sum_i mean(dx[i]^2) sum_o w[o,i]^2  +  sum_i mean(x[i]^2) sum_o dw[o,i]^2
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch.fx import GraphModule, Interpreter, Node

from lvc.compiler.ir.graph import spec
from lvc.passes.analysis.affine import scale_inputs
from lvc.passes.quantisation.chains import Chain
from lvc.passes.quantisation.operands import stored_operand
from lvc.passes.quantisation.quantisation_parameters import QuantisationScheme
from lvc.passes.quantisation.weight_parameters import weight_parameters

_ROWS = 32  # of a batch
_WEIGHT = QuantisationScheme(axis=0, symmetric=True, stored=True)


class Channels(Interpreter):
    """Runs a model and keeps, of some values, the greatest magnitude in each channel, and rows of every other batch."""

    def __init__(self, module: GraphModule, values: Iterable[Node]) -> None:
        super().__init__(module)
        self.batches = 0
        self.most = {value: torch.zeros(2, spec(value).shape[1]) for value in values}
        self.rows: dict[Node, list[torch.Tensor]] = {value: [] for value in self.most}

    def run(self, *inputs: Any, **options: Any) -> Any:
        self.batches += 1
        with torch.inference_mode():
            return super().run(*inputs, **options)

    def run_node(self, n: Node) -> Any:
        result = super().run_node(n)
        if n in self.most:
            most, rows = self.most[n][self.batches % 2], result.movedim(1, -1).flatten(0, -2)
            torch.maximum(most, rows.abs().amax(0), out=most)
            if not self.batches % 2:
                self.rows[n].append(rows[:: -(-len(rows) // _ROWS)].clone())
        return result

    def ranges(self, value: Node) -> torch.Tensor:
        """Return the greatest magnitude in each channel on all batches, ``f64``."""
        return self.most[value].amax(0).double()

    def ranges_seen(self, value: Node) -> torch.Tensor:
        """Return the same without the batches by which scales are judged."""
        return self.most[value][1].double()


def noise(module: GraphModule, chain: Chain, looked: Channels, scale: torch.Tensor) -> float:
    """Return the power of the noise behind a chain whose channels have a scale, on the batches kept for judging."""
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
