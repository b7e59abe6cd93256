"""Labels through operators that only move elements: they are run on the labels.

The atoms of a dimension are spread over the shape of the operand, the operator's own ATen call moves them, and the
result is read back as atoms of one dimension. Where it varies along several (a reshape that splits channels into heads,
say), removal must leave a box, so one of them is kept, that which leaves the most units, and the rest are tied.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.fx import Node

from lvc.compiler.ir.dialect import aten
from lvc.compiler.ir.graph import arguments, spec
from lvc.compiler.ir.operators import heatmaps, ordering
from lvc.passes.analysis.channels.flow import Dim, Flow, rule
from lvc.passes.analysis.channels.heads import head_dimension
from lvc.passes.analysis.channels.partition import Partition

UNMOVED = "they lie along positions, not channels"
TIED = "they share the channels that go together"


def spread(atoms: torch.Tensor, dim: int, shape: Sequence[int]) -> torch.Tensor:
    """Return atoms of one dimension as a view of a whole tensor's shape."""
    return atoms.view(*(len(atoms) if place == dim else 1 for place in range(len(shape)))).expand(*shape)


def move(node: Node, atoms: torch.Tensor, dim: int) -> torch.Tensor:
    """Run a movement on the atoms of one dimension of its operand."""
    operand, *rest = node.args
    assert isinstance(operand, Node)
    moved = node.target(spread(atoms, dim, spec(operand).shape), *rest, **node.kwargs)  # type: ignore[operator]
    assert isinstance(moved, torch.Tensor)
    return moved


def varying(labels: torch.Tensor) -> list[int]:
    """Return the dimensions along which a tensor of labels is not constant."""
    return [
        dim
        for dim, size in enumerate(labels.shape)
        if size > 1 and labels.stride(dim) and not bool((labels == labels.narrow(dim, 0, 1)).all())
    ]


@rule(
    aten.reshape.default,
    aten.permute.default,
    aten.repeat.default,
    aten.roll.default,
    aten.flip.default,
    aten.pixel_unshuffle.default,
)
def carry(flow: Flow, node: Node) -> Sequence[Dim]:
    result: list[Dim] = [UNMOVED] * len(spec(node).shape)
    for dim, label in enumerate(flow.of(node.args[0])):
        if isinstance(label, str) or len(label) == 1:
            continue
        moved = move(node, flow.partition.find(label), dim)
        if not (dims := varying(moved)):
            flow.fix(label, "they all hang together")
            continue
        place = _carrier(flow, node, moved, dims)
        atoms = flow.tie(_rows(moved, dims, place))
        for tied in set(dims) - {place}:
            result[tied] = flow.fix(result[tied], TIED)
        taken = result[place]
        if not isinstance(taken, str):
            atoms, taken = sorted((atoms, taken), key=flow.partition.classes, reverse=True)
            flow.fix(taken, "they become one dimension with others")
        result[place] = atoms
    return result


def _carrier(flow: Flow, node: Node, moved: torch.Tensor, dims: Sequence[int]) -> int:
    """Return which of the dimensions along which moved labels vary carries them on."""
    if len(dims) == 1:
        return dims[0]
    heads = head_dimension(node, dims) if flow.heads else None
    return max(dims, key=lambda dim: _units(_rows(moved, dims, dim))) if heads is None else heads


def _rows(moved: torch.Tensor, dims: Sequence[int], place: int) -> torch.Tensor:
    """Return moved labels as one row for each index of a dimension, constant dimensions left out."""
    for dim in set(range(moved.dim())) - set(dims):
        moved = moved.narrow(dim, 0, 1)
    return moved.movedim(place, 0).reshape(moved.shape[place], -1)


def _units(rows: torch.Tensor) -> int:
    """Return how many classes are left when the labels of each row are united."""
    labels = rows.reshape(-1).tolist()
    numbers = {label: number for number, label in enumerate(dict.fromkeys(labels))}
    trial = Partition()
    atoms = trial.fresh(len(numbers))[[numbers[label] for label in labels]].view(rows.shape)
    trial.unite(atoms[:, :1], atoms)
    return trial.classes(atoms)


@rule(aten.expand.default)
def expand(flow: Flow, node: Node) -> Sequence[Dim]:
    """Copies of one element are alike, so any of them may go."""
    operand = node.args[0]
    assert isinstance(operand, Node)
    sizes, old = spec(node).shape, spec(operand).shape
    lead = len(sizes) - len(old)
    return [
        flow.partition.fresh(size) if place < lead or old[place - lead] < size else flow.of(operand)[place - lead]
        for place, size in enumerate(sizes)
    ]


@rule(aten.slice.Tensor)
def slice_(flow: Flow, node: Node) -> Sequence[Dim]:
    """A slice with steps takes one of each block of as many elements: blocks go as a whole."""
    args = arguments(node)
    labels, dim, step = list(flow.of(args["self"])), args["dim"], args["step"]
    atoms = labels[dim]
    if not isinstance(atoms, str):
        flow.partition.unite(atoms[torch.arange(len(atoms)) // step * step], atoms)
        labels[dim] = atoms[args["start"] : args["end"] : step]
    return labels


@rule(aten.pixel_shuffle.default)
def pixel_shuffle(flow: Flow, node: Node) -> Sequence[Dim]:
    """The channels that become the pixels of one go together."""
    args = arguments(node)
    *batch, channels, height, width = flow.of(args["self"])
    if not isinstance(channels, str):
        channels = flow.tie(channels.view(-1, args["upscale_factor"] ** 2))
    return (*batch, channels, *(flow.fix(dim, UNMOVED) for dim in (height, width)))


@rule(aten.cat.default)
def cat(flow: Flow, node: Node) -> Sequence[Dim]:
    parts, along = node.args[0], arguments(node)["dim"]
    labels = [flow.of(part) for part in parts]  # type: ignore[union-attr]
    result = [flow.join(*dims) if dim != along else "" for dim, dims in enumerate(zip(*labels, strict=True))]
    sizes = [spec(part).shape[along] for part in parts]  # type: ignore[union-attr, arg-type]
    result[along] = _concatenated(flow, [part[along] for part in labels], sizes)
    return result


def _concatenated(flow: Flow, dims: Sequence[Dim], sizes: Sequence[int]) -> Dim:
    if all(isinstance(dim, str) for dim in dims):
        return dims[0]
    atoms = []
    for dim, size in zip(dims, sizes, strict=True):
        if isinstance(dim, str):
            reason, dim = dim, flow.partition.fresh(size)
            flow.fix(dim, reason)
        atoms.append(dim)
    return torch.cat(atoms)


@rule(aten.constant_pad_nd.default)
def constant_pad(flow: Flow, node: Node) -> Sequence[Dim]:
    """Padding channels with a constant makes channels that may go; padding anything else leaves it as it is."""
    labels = list(flow.of(node.args[0]))
    for dim, (before, after) in pad_amounts(node).items():
        atoms = labels[dim]
        if isinstance(atoms, str):
            continue
        fresh = flow.partition.fresh
        inner = atoms[max(0, -before) : len(atoms) - max(0, -after)]
        labels[dim] = torch.cat([fresh(max(0, before)), inner, fresh(max(0, after))])
    return labels


def pad_amounts(node: Node) -> dict[int, tuple[int, int]]:
    """Return what a padding adds before and after, by dimension; negative where it cuts."""
    amounts = arguments(node)["pad"]
    last = len(spec(node).shape) - 1
    return {last - place: (amounts[2 * place], amounts[2 * place + 1]) for place in range(len(amounts) // 2)}


@rule(aten.pad.default)
def mirror(flow: Flow, node: Node) -> Sequence[Dim]:
    labels = list(flow.of(node.args[0]))
    for dim in pad_amounts(node):
        labels[dim] = flow.fix(labels[dim], "they are mirrored at the border")
    return labels


@rule(aten.index_select.default)
def index_select(flow: Flow, node: Node) -> Sequence[Dim]:
    args = arguments(node)
    labels = list(flow.of(args["self"]))
    labels[args["dim"]] = flow.fix(labels[args["dim"]], "they are picked by number")
    return labels


@rule(aten.gather.default, *ordering.OPERATORS, *heatmaps.OPERATORS)
def gather(flow: Flow, node: Node) -> Sequence[Dim]:
    for operand in node.all_input_nodes:
        for dim in flow.of(operand):
            flow.fix(dim, "they are picked by number")
    return [UNMOVED] * len(spec(node).shape)
