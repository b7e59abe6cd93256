"""What may be saved: multiply-accumulates, parameters, bytes of weights, or seconds on the target."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lvc.compiler.ir.graph import arguments, spec
from lvc.compiler.ir.model import Model
from lvc.compiler.measure.counts import total_macs
from lvc.passes.low_rank import kernel as kernels_of
from lvc.passes.low_rank.kernel import Kernel
from lvc.passes.low_rank.layer import Layer


@dataclass(frozen=True)
class Cost:
    """A cost by its name in sentences: of kernels in the place of a layer, and of a whole model."""

    name: str
    of_kernels: Callable[[Layer, Sequence[Kernel]], float]
    of_model: Callable[[Model], float]

    def of_layer(self, layer: Layer) -> float:
        return self.of_kernels(layer, [layer.kernel])


def _macs(layer: Layer, kernels: Sequence[Kernel]) -> float:
    return layer.count * kernels_of.macs(kernels, layer.size)


def _parameters(layer: Layer, kernels: Sequence[Kernel]) -> float:
    return kernels_of.parameters(kernels) + _new_biases(layer, kernels)


def _new_biases(layer: Layer, kernels: Sequence[Kernel]) -> int:
    """The numbers of the bias that factors get when they are fitted, where the layer has none of its own."""
    bias = arguments(layer.node)["bias"]
    return layer.kernel.outputs if len(kernels) > 1 and (bias is None or len(bias.users) > 1) else 0


def _bytes(layer: Layer, kernels: Sequence[Kernel]) -> float:
    return _parameters(layer, kernels) * spec(arguments(layer.node)["weight"]).dtype.itemsize


MACS = Cost("MACs", _macs, lambda model: total_macs(model.module.graph))
COSTS = {
    "macs": MACS,
    "params": Cost("parameters", _parameters, lambda model: model.parameters),
    "bytes": Cost("bytes", _bytes, lambda model: model.bytes),
}
"""Those that follow from shapes alone, by the option that limits them."""
