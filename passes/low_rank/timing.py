"""How long kernels take on the target: those in question side by side in one small model, whose kernels are timed."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch.fx import Graph, GraphModule, Node

from lvc.compiler.ir.graph import calls, origin
from lvc.compiler.ir.layers import LAYERS
from lvc.compiler.ir.model import Model
from lvc.compiler.ir.spec import TensorSpec
from lvc.compiler.pipeline.workspace import Stopwatch
from lvc.passes.low_rank.heads import Heads
from lvc.passes.low_rank.heads_timing import heads_side_by_side
from lvc.passes.low_rank.kernel import Kernel
from lvc.passes.low_rank.layer import Layer
from lvc.passes.low_rank.placing import insert_kernels


class KernelTimes:
    """Seconds of kernels on the target in the place of a layer; those of equal shapes are measured once.

    By themselves kernels find their weights in the caches, among others they do not. So what is measured of a layer's
    kernels side by side counts in proportion to what the layer takes in the whole model.
    """

    def __init__(self, stopwatch: Stopwatch, model: Model) -> None:
        self.stopwatch = stopwatch
        self._whole = stopwatch.layers(model)
        self._sharing = Counter(origin(node) for node in calls(model.module.graph, *LAYERS))
        self._known: dict[object, float] = {}

    @property
    def whole(self) -> float:
        """Seconds of all kernels of the model."""
        return sum(self._whole.values())

    def measure(self, layer: Layer, choices: Sequence[Sequence[Kernel]]) -> list[float]:
        """What each choice of kernels would take in the place of a layer."""
        (alone,) = self._alone(layer, [[layer.kernel]])
        place = origin(layer.node)
        within = self._whole.get(place, 0.0) if self._sharing[place] == 1 else 0.0
        slower = within / alone if within and alone else 1.0
        return [slower * seconds for seconds in self._alone(layer, choices)]

    def of_heads(self, heads: Heads, widths: Sequence[int]) -> list[float]:
        """What makes and reads heads of each width, and their product, would take."""
        keys = [(heads, width) for width in widths]
        unknown = [width for key, width in zip(keys, widths, strict=True) if key not in self._known]
        if unknown:
            seconds = self.stopwatch.layers(heads_side_by_side(heads, unknown))
            found = {(heads, width): seconds.get(str(place), math.inf) for place, width in enumerate(unknown)}
            self._known |= found
        return [self._known[key] for key in keys]

    def today(self, item: Layer | Heads) -> float:
        """What a layer, or heads, take as they are."""
        if isinstance(item, Heads):
            return self.of_heads(item, [item.product.width])[0]
        return self.measure(item, [[item.kernel]])[0]

    def _alone(self, layer: Layer, choices: Sequence[Sequence[Kernel]]) -> list[float]:
        keys = [_shape(layer, kernels) for kernels in choices]
        unknown = {key: kernels for key, kernels in zip(keys, choices, strict=True) if key not in self._known}
        if unknown:
            seconds = self.stopwatch.layers(side_by_side(layer, list(unknown.values())))
            self._known |= {key: seconds.get(str(place), math.inf) for place, key in enumerate(unknown)}
        return [self._known[key] for key in keys]


def _shape(layer: Layer, kernels: Sequence[Kernel]) -> object:
    """All that the time of kernels depends on."""
    parts = [(tuple(k.weight.shape), k.stride, k.padding, k.dilation, k.groups, k.output_padding) for k in kernels]
    return layer.is_convolution, layer.count, layer.size, tuple(parts)


def side_by_side(layer: Layer, choices: Sequence[Sequence[Kernel]]) -> Model:
    """A model that does each choice on an input of its own; the origin of its nodes is the place of the choice."""
    module, generator = GraphModule(torch.nn.Module(), Graph()), torch.Generator().manual_seed(0)
    shape = (layer.count, layer.kernel.inputs, *(layer.size if layer.is_convolution else ()))
    inputs = [_input(module.graph, f"input{place}", shape) for place in range(len(choices))]
    output = module.graph.output(())
    results = []
    for place, (data, kernels) in enumerate(zip(inputs, choices, strict=True)):
        drawn = [replace(k, weight=torch.randn(k.weight.shape, generator=generator)) for k in kernels]
        prefix, is_linear = f"weight{place}.", not layer.is_convolution
        made = insert_kernels(module, output, data, drawn, prefix, is_linear=is_linear)
        for node in made:
            node.meta["origin"] = str(place)
        results.append(made[-1])
    output.args = (tuple(results),)
    module.recompile()
    return Model(module, "kernels", tuple(f"output{place}" for place in range(len(choices))))


def _input(graph: Graph, name: str, shape: tuple[int, ...]) -> Node:
    node = graph.placeholder(name)
    node.meta.update(spec=TensorSpec(shape, torch.float32), origin=name)
    return node
