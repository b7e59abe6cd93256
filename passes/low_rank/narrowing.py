"""Attention with narrower heads: layers in another basis of each head, of which some dimensions are left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.fx import Node

from lvc.compiler.data.seeded import seeded_inputs
from lvc.compiler.errors import CheckError
from lvc.compiler.ir.graph import (
    add_tensor,
    arguments,
    erase_left,
    infer_spec,
    insert_call,
    replace,
    store,
    tensor,
)
from lvc.compiler.ir.layers import factors
from lvc.compiler.ir.model import Model
from lvc.compiler.ir.spec import TensorSpec
from lvc.compiler.verification.closeness import Comparison
from lvc.passes.analysis.attention import Kind, Product, products
from lvc.passes.analysis.readings import Handing, Reading, ends, read

Basis = torch.Tensor
"""The dimensions of each head that are left, in those that there were: ``f64[heads, width, rank]``."""

Place = tuple[str, Kind]
"""A product by the name of its node."""


@dataclass(frozen=True, eq=False)
class Narrow:
    """The bases in which both sides of a product shall be."""

    first: Basis
    second: Basis

    def leading(self, rank: int) -> Narrow:
        """The same with so many dimensions."""
        return Narrow(self.first[..., :rank], self.second[..., :rank])

    def zeroed(self, rank: int) -> Narrow:
        """The same with all but so many dimensions zero instead of gone."""
        keep = (torch.arange(self.first.shape[-1]) < rank).double()
        return Narrow(self.first * keep, self.second * keep)


def place_of(product: Product) -> Place:
    return product.node.name, product.kind


def narrow(model: Model, wanted: Mapping[Place, Narrow]) -> None:
    """Let the layers of products have heads in other bases; a layer that makes channels of several falls apart."""
    found = [one for one in products(model.module.graph) if isinstance(one, Product) and place_of(one) in wanted]
    sides: dict[Node, list[tuple[Reading, Basis, str]]] = {}
    for one in found:
        bases = wanted[place_of(one)]
        name = "query" if one.kind is Kind.SCORES else "value"
        sides.setdefault(one.first.layer, []).append((one.first, bases.first, name))
        if isinstance(one.second, Reading):
            sides.setdefault(one.second.layer, []).append((one.second, bases.second, "key"))
    for layer, changed in sides.items():
        _narrow_layer(model, layer, changed)
    for one in found:
        one.node.meta["spec"] = infer_spec(one.node)
        if isinstance(one.second, Handing):
            _narrow_reader(model, one.node, one.second, wanted[place_of(one)].second)
    model.module.recompile()


def _narrow_layer(model: Model, layer: Node, changed: Sequence[tuple[Reading, Basis, str]]) -> None:
    """Put a layer for each set of channels that is read of a layer in its place."""
    known = {reading.value: (reading, basis, name) for reading, basis, name in changed}
    parts = [known.get(value) or _whole(value) for value in dict(ends(layer))]
    rows = [(reading.scale, tuple(reading.rows.flatten().tolist())) for reading, _, _ in parts]
    made: dict[tuple[float, tuple[int, ...]], Node] = {}
    for key, (reading, basis, name) in zip(rows, parts, strict=True):
        if key not in made:
            made[key] = _part(model, reading, basis, name, is_all=len(set(rows)) == 1)
        value = reading.arrangement.insert(reading.value, made[key], {reading.narrow: basis.shape[-1]})
        operands = reading.value.all_input_nodes
        replace(reading.value, value)
        erase_left(model.module, operands)


def _whole(value: Node) -> tuple[Reading, Basis, str]:
    """A value whose channels stay as they are."""
    reading = read(value)
    assert isinstance(reading, Reading)
    heads, width = reading.rows.shape
    return reading, torch.eye(width, dtype=torch.float64).expand(heads, width, width), "rest"


def _part(model: Model, reading: Reading, basis: Basis, name: str, *, is_all: bool) -> Node:
    """Insert a layer that makes some channels in another basis; it keeps its tensors' names if it ``is_all``."""
    given = arguments(reading.layer)
    for operand in ("weight", "bias"):
        node = given[operand]
        if node is None:
            continue
        stored = tensor(model.module, node)
        assert stored is not None
        rows = stored.detach().double()[reading.rows] * reading.scale
        value = torch.einsum("hdr,hd...->hr...", basis, rows).flatten(0, 1).to(stored.dtype)
        if is_all and len(node.users) == 1:
            _store(model, node, value)
        else:
            hint = str(node.target).removesuffix(operand) + (operand if is_all else f"{name}.{operand}")
            given[operand] = add_tensor(model.module, reading.layer, hint, value)
    return insert_call(reading.layer, reading.layer.target, *given.values())  # type: ignore[arg-type]


def _narrow_reader(model: Model, product: Node, handing: Handing, basis: Basis) -> None:
    """Let a layer read what a product gives in another basis."""
    layer = handing.layer
    weight = factors(layer)[1]
    stored = tensor(model.module, weight)
    assert stored is not None
    columns = stored.detach().double()[:, handing.columns] * handing.scale
    value = torch.einsum("hdr,ohd...->ohr...", basis, columns).flatten(1, 2)
    _store(model, weight, value.to(stored.dtype))
    data = handing.arrangement.insert(layer, product, {handing.narrow: basis.shape[-1]})
    layer.replace_input_with(handing.value, data)
    layer.meta["spec"] = infer_spec(layer)
    if handing.value is not product:
        erase_left(model.module, [handing.value])


def _store(model: Model, node: Node, value: torch.Tensor) -> None:
    store(model.module, str(node.target), value)
    node.meta["spec"] = TensorSpec.of(value)


def check_narrowing(before: Model, wanted: Mapping[Place, Narrow], ranks: Mapping[Place, int], seed: int = 0) -> float:
    """Return how far outputs are apart, relatively, on seeded inputs: of the model in full bases from the model as it
    was, and with dimensions removed from the same set to zero.

    ``wanted`` has the full bases. `CheckError` beyond what rounding explains.
    """
    inputs = seeded_inputs(before.inputs, seed)
    turned, zeroed, removed = (before.copy(share_tensors=True) for _ in range(3))
    narrow(turned, wanted)
    narrow(zeroed, {place: one.zeroed(ranks[place]) for place, one in wanted.items()})
    narrow(removed, {place: one.leading(ranks[place]) for place, one in wanted.items()})
    return max(
        _apart(before, turned, inputs, "in another basis of each head the model gives other outputs"),
        _apart(zeroed, removed, inputs, "removed dimensions of heads are not the same as dimensions of zeros"),
    )


def _apart(wanted: Model, found: Model, inputs: Sequence[np.ndarray], told: str) -> float:
    compared = Comparison(wanted, inputs, wanted(*inputs), found(*inputs))
    if (wanted.inputs, wanted.outputs) != (found.inputs, found.outputs) or not compared.agrees:
        raise CheckError(
            f"{told}: {compared.difference:.2e} apart, relative",
            why="both are exact, so that only rounding may be seen",
            help="a defect of lvc: leave layers out with skip= to find which",
        )
    return compared.difference
