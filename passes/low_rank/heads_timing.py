"""Attention with heads of several widths side by side in one small model, whose kernels are timed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.fx import Graph, GraphModule, Node

from lvc.compiler.ir.dialect import aten
from lvc.compiler.ir.graph import add_tensor, arguments, calls, insert_call, spec
from lvc.compiler.ir.layers import factors
from lvc.compiler.ir.model import Model
from lvc.passes.analysis.readings import Handing, Reading
from lvc.passes.low_rank.heads import Heads


def heads_side_by_side(heads: Heads, widths: Sequence[int]) -> Model:
    """A model that does what makes and reads heads of each width, and their product, on inputs of its own; the origin
    of its nodes is the place of the width."""
    module = GraphModule(torch.nn.Module(), Graph())
    output = module.graph.output(())
    results, known = [], set[Node]()
    for place, width in enumerate(widths):
        results.append(_insert(module, output, heads, width, place))
        made = [node for node in calls(module.graph) if node not in known]
        known.update(made)
        for node in made:
            node.meta["origin"] = str(place)
    output.args = (tuple(results),)
    module.recompile()
    return Model(module, "heads", tuple(f"output{place}" for place in range(len(widths))))


def _insert(module: GraphModule, output: Node, heads: Heads, width: int, place: int) -> Node:
    product = heads.product
    operands = dict[Node, Node]()
    for side in (product.first, product.second):
        if isinstance(side, Reading):
            data = _input(output, factors(side.layer)[0], f"data{len(operands)}_{place}")
            made = _layer(module, data, side.layer, 0, product.heads * width)
            operands[side.value] = side.arrangement.insert(output, made, {side.narrow: width})
    pair = [operands.get(one) or _input(output, one, f"weights{place}") for one in factors(product.node)]
    result = insert_call(output, aten.matmul.default, *pair)
    if not isinstance(product.second, Handing):
        return result
    read = product.second.arrangement.insert(output, result, {product.second.narrow: width})
    return _layer(module, read, product.second.layer, 1, product.heads * width)


def _layer(module: GraphModule, data: Node, layer: Node, dim: int, channels: int) -> Node:
    """Insert a layer with so many channels along a dimension of its weight."""
    output, generator, given = module.graph.output_node(), torch.Generator().manual_seed(0), arguments(layer)
    shape = list(spec(given["weight"]).shape)
    shape[dim] = channels
    weight = add_tensor(module, output, "weight", torch.randn(shape, generator=generator))
    bias = None if given["bias"] is None else add_tensor(module, output, "bias", torch.zeros(shape[0]))
    replaced = {factors(layer)[0]: data}
    operands = [replaced.get(one, one) if isinstance(one, Node) else one for one in given.values()]
    operands[1:3] = [weight, bias]
    return insert_call(output, layer.target, *operands)  # type: ignore[arg-type]


def _input(output: Node, like: Node, name: str) -> Node:
    with output.graph.inserting_before(next(iter(output.graph.nodes))):
        node = output.graph.placeholder(name)
    node.meta.update(spec=spec(like), origin=name)
    return node
