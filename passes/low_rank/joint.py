"""The ways in which attention's heads may be narrower: what they cost, and what they do to the outputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from lvc.compiler.ir.graph import arguments, calls, tensor
from lvc.compiler.ir.layers import LAYERS
from lvc.compiler.ir.model import Model
from lvc.compiler.measure.counts import macs
from lvc.compiler.pipeline.passes import Outcome
from lvc.passes.analysis.attention import Kind, Product, products
from lvc.passes.analysis.patterns import left_out
from lvc.passes.analysis.readings import Handing
from lvc.passes.budget.costs import Cost, Size
from lvc.passes.low_rank.costs import size_today, size_with
from lvc.passes.low_rank.heads import Bases, Heads
from lvc.passes.low_rank.kernel import Kernel, shape_of
from lvc.passes.low_rank.layer import Layer, layer_of, refusal
from lvc.passes.low_rank.narrowing import Narrow
from lvc.passes.low_rank.options import LEVELS, Option

METHOD = "attention"
"""The name of this way to factor."""


@dataclass(frozen=True, eq=False)
class HeadsOption(Option):
    """Narrower heads. The kernels, and the bias, are those of the layer that `Heads.judged` names: they give what it
    would give if the others were narrower."""

    bases: Bases | None = None

    @property
    def rank(self) -> int:
        return self.ranks[0]

    @property
    def whole(self) -> Narrow:
        """The bases with all dimensions."""
        assert self.bases is not None
        return Narrow(self.bases.first, self.bases.second)

    @property
    def narrow(self) -> Narrow:
        """The bases of the dimensions that are left."""
        return self.whole.leading(self.rank)


def find_heads(
    model: Model, known: Sequence[Layer], only: Sequence[str], skip: Sequence[str], outcome: Outcome
) -> list[Heads]:
    """The products of attention whose heads may be narrower; the outcome says of all others why not.

    ``known`` are layers that were found before. A product is left out with any of its layers that ``skip`` names, and
    comes in if ``only`` names it or both of its layers.
    """
    graph = model.module.graph
    found = list(products(graph))
    nodes = [*calls(graph, *LAYERS), *(one.node if isinstance(one, Product) else one[0] for one in found)]
    unwanted, beside = left_out(nodes, (), skip), left_out(nodes, only, ())
    layers, heads = {layer.node: layer for layer in known}, list[Heads]()
    readers = {one.node: one.second.layer for one in found if isinstance(one, Product) and one.kind is Kind.VALUES}
    for one in found:
        if not isinstance(one, Product):
            outcome.skip(*one)
            continue
        reasons = [unwanted.get(node) for node in (one.node, *one.layers)]
        if one.node in beside:
            reasons += [beside.get(node) for node in one.layers]
        reasons += [f"{one.kind.value}: {reason}" for node in one.layers if (reason := refusal(model.module, node))]
        if reason := next(filter(None, reasons), None):
            outcome.skip(one.node, reason)
            continue
        layers |= {node: layer_of(model.module, node) for node in one.layers if node not in layers}
        first, second = (layers[node] for node in one.layers)
        sizes = (_size(one, first, second, width) for width in range(one.width + 1))
        reader = readers.get(one.weighs if one.weighs else one.node)
        heads.append(Heads(one, first, second, tuple(sizes), reader))
    return heads


def _size(product: Product, first: Layer, second: Layer, width: int) -> Size:
    """The size of what makes and reads heads of a width, and of the product."""
    work, parameters, stored = macs(product.node) * width // product.width, 0, 0
    for side, layer in ((product.first, first), (product.second, second)):
        shape, is_reader = list(layer.kernel.weight.shape), isinstance(side, Handing)
        shape[1 if is_reader else 0] = product.heads * width
        size = size_with(layer, [layer.kernel.with_weight(shape_of(*shape))])
        has_any = arguments(layer.node)["bias"] is not None
        is_new = width < product.width and not layer.has_bias and (is_reader or has_any)
        biases = shape[0] if is_new or (layer.has_bias and not is_reader) else 0
        work += size.macs
        parameters += size.parameters + biases
        stored += size.bytes + biases * layer.itemsize
    return Size(work, parameters, stored)


def today(item: Layer | Heads) -> Size:
    """The size of a layer, or of heads, as they are."""
    return item.sizes[item.product.width] if isinstance(item, Heads) else size_today(item)


def size_of(item: Layer | Heads, chosen: Option) -> Size:
    """The size of an option in the place of a layer or of heads."""
    return item.sizes[chosen.ranks[0]] if isinstance(item, Heads) else size_with(item, chosen.kernels)


def ranks_at_levels(heads: Heads, multiple: int) -> list[int]:
    """The ranks to which heads may come down, largest last."""
    width = heads.product.width
    found = (int(level * width) // multiple * multiple for level in LEVELS)
    return sorted({rank for rank in found if rank} or {multiple} if multiple < width else set())


def heads_option(model: Model, heads: Heads, bases: Bases, rank: int, cost: Cost) -> HeadsOption:
    """Heads of a rank."""
    make = _mixed if isinstance(heads.product.second, Handing) else _scored
    kernels, bias = make(model, heads, bases, rank)
    price = cost.of(heads.sizes[rank])
    return HeadsOption(METHOD, (rank,), kernels, price, bases.lost(rank), bias=bias, bases=bases)


def _scored(model: Model, heads: Heads, bases: Bases, rank: int) -> tuple[tuple[Kernel, ...], torch.Tensor]:
    """A query layer without those of its dimensions that keys would not meet."""
    rows, kernel = heads.product.first.rows, heads.first.kernel
    first, second = bases.leading(rank)
    kept = second @ first.mT
    weight = kernel.weight.clone()
    weight[rows] = torch.einsum("hde,he...->hd...", kept, weight[rows])
    stored = tensor(model.module, arguments(heads.first.node)["bias"])
    bias = weight.new_zeros(kernel.outputs) if stored is None else stored.detach().double().clone()
    bias[rows] = torch.einsum("hde,he->hd", kept, bias[rows])
    return (kernel.with_weight(weight),), bias


def _mixed(model: Model, heads: Heads, bases: Bases, rank: int) -> tuple[tuple[Kernel, ...], None]:
    """Each head's dimensions in another basis, and an output layer that reads those."""
    handing, kernel = heads.product.second, heads.second.kernel
    assert isinstance(handing, Handing)
    first, second = bases.leading(rank)
    mix = kernel.weight.new_zeros(first.shape[0], rank, kernel.inputs)
    for head, columns in enumerate(handing.columns):
        mix[head][:, columns] = first[head].T
    weight = torch.einsum("hdr,ohd...->ohr...", second, kernel.weight[:, handing.columns])
    return (Kernel(mix.flatten(0, 1)[..., None, None]), kernel.with_weight(weight.flatten(1, 2))), None
