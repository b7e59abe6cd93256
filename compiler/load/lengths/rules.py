"""What becomes of open lengths in a call, operator by operator, and what a call must not see.

A rule returns the lengths of the result. Where the elements behind the last valid one would count, as in a sum, it puts
in their place what changes nothing; where they would lie between valid ones, it moves them to the end.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch._ops import OpOverload
from torch.fx import Node

from lvc.compiler.ir.dialect import OPS, Family, aten
from lvc.compiler.ir.graph import insert_call, spec
from lvc.compiler.ir.layers import CONTRACTIONS, contraction
from lvc.compiler.ir.operators import heatmaps, ordering, regions
from lvc.compiler.load.lengths.call import Call, Lengths, highest, lowest

Rule = Callable[[Call], Lengths]


def elementwise(call: Call) -> Lengths:
    return call.joined([_broadcast(call, operand) for operand in call.node.all_input_nodes])


def _broadcast(call: Call, operand: Node) -> Lengths:
    """The lengths of an operand, by the dimensions of the result."""
    shape = spec(operand).shape
    shift = call.rank - len(shape)
    for dim in call.lengths(operand):
        if shape[dim] != call.shape[dim + shift]:
            raise call.refuse(f"it repeats '{operand.name}', which has at most one element there")
    return {dim + shift: count for dim, count in call.lengths(operand).items()}


def unmoved(call: Call) -> Lengths:
    """The first operand, changed place by place; the others are no lists."""
    first = next(iter(call.args))
    call.only(first)
    return call.lengths(first)


def outer(kept: int) -> Rule:
    """The first operand, whose last ``kept`` dimensions are worked on together."""

    def rule(call: Call) -> Lengths:
        lengths, first = unmoved(call), next(iter(call.args))
        if any(dim >= len(call.shape_of(first)) - kept for dim in lengths):
            raise call.refuse("it works across that dimension")
        return lengths

    return rule


def images(call: Call) -> Lengths:
    """The first operand, image by image."""
    lengths = unmoved(call)
    if any(lengths):
        raise call.refuse("it works across that dimension")
    return lengths


def layer(call: Call) -> Lengths:
    data = contraction(call.node).data
    call.only(data)
    inner = len(call.shape_of(data)) - (1 if not contraction(call.node).is_convolution else 0)
    for dim in call.lengths(data):
        if dim >= inner or (contraction(call.node).is_convolution and dim):
            raise call.refuse("it sums over that dimension")
    return call.lengths(data)


def product(call: Call) -> Lengths:
    """Rows of the left matrix and columns of the right one stay."""
    left, right = (call.args[name] for name in ("self", "other"))
    if min(len(spec(value).shape) for value in (left, right)) < 2:
        raise call.refuse("it is a product with a vector")
    found = []
    for value, summed in ((left, -1), (right, -2)):
        rank = len(spec(value).shape)
        if rank + summed in call.lengths(value):
            raise call.refuse("it sums over that dimension")
        found.append({dim + call.rank - rank: count for dim, count in call.lengths(value).items()})
    return call.joined(found)


def reduction(neutral: Callable[[torch.dtype], float]) -> Rule:
    """A reduction to which elements of one number add nothing."""

    def rule(call: Call) -> Lengths:
        dims = call.dims(call.args["dim"], len(call.shape_of("self")))
        if call.args["dim"] is None and any(call.lengths("self")):
            raise call.refuse("it counts elements across that dimension")
        call.fill("self", dims, neutral(spec(call.args["self"]).dtype))
        return _left(call, dims)

    return rule


def _left(call: Call, dims: list[int]) -> Lengths:
    """The lengths along dimensions that are not reduced."""
    stay = {dim: count for dim, count in call.lengths("self").items() if dim not in dims}
    if call.args.get("keepdim"):
        return stay
    return {dim - sum(reduced < dim for reduced in dims): count for dim, count in stay.items()}


def mean(call: Call) -> Lengths:
    """The sum of what is valid over how much that is."""
    rank = len(call.shape_of("self"))
    dims = call.dims(call.args["dim"], rank)
    lengths = call.lengths("self")
    if not any(dim in lengths for dim in dims):
        return _left(call, dims)
    dtype, after = spec(call.node).dtype, call.node.next
    fixed = math.prod(size for dim, size in enumerate(call.shape_of("self")) if dim in dims and dim not in lengths)
    whole = math.prod(size for dim, size in enumerate(call.shape_of("self")) if dim in dims)
    call.fill("self", dims, 0.0)
    result = total = insert_call(after, aten.mul.Tensor, call.node, whole / fixed)
    for dim in dims:
        if dim in lengths:
            count = call.scalars.once(lengths[dim].next, aten.to.dtype, lengths[dim], dtype)
            result = insert_call(after, aten.div.Tensor, result, count)
    call.instead(result, total)
    return _left(call, dims)


def running(call: Call) -> Lengths:
    """What follows the last valid element changes nothing before it."""
    return unmoved(call)


def softmax(call: Call) -> Lengths:
    call.fill("self", call.dims(call.args["dim"], call.rank), lowest(spec(call.args["self"]).dtype))
    return call.lengths("self")


def layer_norm(call: Call) -> Lengths:
    return outer(len(call.args["normalized_shape"]))(call)


def argsort(call: Call) -> Lengths:
    """What is not valid comes last, behind its equals: beyond NaN in ascending order."""
    dtype = spec(call.args["x"]).dtype
    last = torch.nan if dtype.is_floating_point else highest(dtype)
    call.fill("x", [call.rank - 1], lowest(dtype) if call.args["descending"] else last)
    return _first(call, "x", call.rank - 1)


def nms(call: Call) -> Lengths:
    """What is not valid neither stays nor strikes out."""
    call.only("boxes", "valid", *(["groups"] if call.args["groups"] is not None else []))
    found = [call.lengths("valid")]
    found += [call.lengths(name) for name in ("boxes", "groups") if call.args[name] is not None]
    lengths = call.joined(found)
    if call.rank in lengths:
        raise call.refuse("its boxes have no fixed number of corners")
    mask = call.args["valid"]
    if call.rank - 1 in lengths:
        before_end = call.valid(call.rank - 1, call.shape, lengths[call.rank - 1])
        valid = insert_call(call.node, aten.logical_and.default, mask, before_end)
        arguments = [valid if name == "valid" else value for name, value in call.args.items()]
        call.node.args, call.node.kwargs = tuple(arguments), {}
    return lengths


def roi_align(call: Call) -> Lengths:
    """As many as there are regions; each image and map is whole."""
    call.only("rois", "level")
    lengths = call.joined([call.lengths("level"), call.lengths("rois")])
    if any(lengths):
        raise call.refuse("its regions have no fixed number of corners")
    return lengths


def reshape(call: Call) -> Lengths:
    """A list stays one where nothing joins it; rows of fixed length joined to it make it longer, or shorter again."""
    old, new = call.shape_of("self"), call.shape
    return dict(_reshaped(call, old, new, dim, count) for dim, count in call.lengths("self").items())


def _reshaped(call: Call, old: tuple[int, ...], new: tuple[int, ...], dim: int, count: Node) -> tuple[int, Node]:
    before, size = math.prod(old[:dim]), old[dim]
    begins = [d for d in range(len(new)) if math.prod(new[:d]) == before]
    same = [d for d in begins if new[d] == size]
    if len(same) == 1:
        return same[0], count
    for d in begins if not same else ():
        if new[d] > size and new[d] % size == 0:
            made = call.scalars.once(count.next, aten.mul.Tensor, count, new[d] // size)
            call.scalars.factors[made] = (count, new[d] // size)
            return d, made
        base, factor = call.scalars.factors.get(count, (count, 0))
        if factor and new[d] * factor == size:
            return d, base
    raise call.refuse(f"a list of at most {size} elements is torn apart")


def permute(call: Call) -> Lengths:
    dims = call.dims(call.args["dims"], call.rank)
    return {dims.index(dim): count for dim, count in call.lengths("self").items()}


def expand(call: Call) -> Lengths:
    return _broadcast(call, call.args["self"])


def repeat(call: Call) -> Lengths:
    lengths = {dim + call.rank - len(call.shape_of("self")): count for dim, count in call.lengths("self").items()}
    if any(call.args["repeats"][dim] != 1 for dim in lengths):
        raise call.refuse("it repeats it")
    return lengths


def cat(call: Call) -> Lengths:
    """Behind one another what is valid of each: the rest is moved to the end."""
    dim = call.dims(call.args["dim"], call.rank)[0]
    parts = call.args["tensors"]
    others = [{d: count for d, count in call.lengths(part).items() if d != dim} for part in parts]
    lengths = dict(call.joined(others))
    if not any(dim in call.lengths(part) for part in parts):
        return lengths
    total: Node | None = None
    before, fixed, masks = call.node, 0, []
    for part in parts:
        size, count = spec(part).shape[dim], call.lengths(part).get(dim)
        if count is None:
            fixed += size
            masks.append(call.scalars.stored(call.module, torch.ones(size, dtype=torch.bool)))
            continue
        total = count if total is None else call.scalars.once(before, aten.add.Tensor, total, count)
        masks.append(call.valid(0, (size,), count))
    assert total is not None
    lengths[dim] = call.scalars.once(before, aten.add.Tensor, total, fixed) if fixed else total
    if any(dim in call.lengths(part) for part in parts[:-1]):
        valid = call.scalars.once(before, aten.cat.default, masks, 0)
        order = call.scalars.once(before, ordering.argsort, valid, True)
        picked = insert_call(call.node.next, aten.index_select.default, call.node, dim, order)
        call.instead(picked, picked)
    return lengths


def part(call: Call) -> Lengths:
    dim = call.dims(call.args["dim"], call.rank)[0]
    if dim in call.lengths("self") and (call.args["start"] or call.args["step"] not in (None, 1)):
        raise call.refuse("it takes a part that does not begin with the first element")
    return _first(call, "self", dim)


def _first(call: Call, operand: str, dim: int) -> Lengths:
    """The lengths of the first elements of an operand along a dimension, as many as the result has there."""
    lengths, size = dict(call.lengths(operand)), call.shape[dim]
    if dim in lengths and size < call.shape_of(operand)[dim]:
        most = call.scalars.number(call.module, size, torch.int64)
        lengths[dim] = call.scalars.once(call.node, aten.minimum.default, lengths[dim], most)
    return lengths


def fixed_there(name: str) -> Rule:
    """A movement along dimensions that must not be open."""

    def rule(call: Call) -> Lengths:
        lengths = unmoved(call)
        if name == "pad":
            rank, pad = call.rank, call.args["pad"]
            moved = [rank - 1 - place // 2 for place, count in enumerate(pad) if count]
        else:
            moved = call.dims(call.args["dims"], call.rank)
        if any(dim in lengths for dim in moved):
            raise call.refuse("it moves elements along that dimension")
        return lengths

    return rule


def index_select(call: Call) -> Lengths:
    """Indices of valid elements are valid ones; an open list of indices makes an open list."""
    dim = call.dims(call.args["dim"], len(call.shape_of("self")))[0]
    others = {d: count for d, count in call.lengths("self").items() if d != dim}
    return call.joined([others, {d + dim: count for d, count in call.lengths("index").items()}])


def gather(call: Call) -> Lengths:
    dim = call.dims(call.args["dim"], call.rank)[0]
    return call.joined([{d: c for d, c in call.lengths("self").items() if d != dim}, call.lengths("index")])


def embedding(call: Call) -> Lengths:
    call.only("indices")
    return call.lengths("indices")


def scatter(call: Call) -> Lengths:
    """Updates that are not valid go to a place behind the last, which is cut off.

    A stored tensor that is as long as the list whose places they go to can be was made for it, and has its length: so
    torchvision merges what it pools from the levels of a pyramid.
    """
    rows = [{d: c for d, c in call.lengths(name).items() if d != call.rank - 1} for name in ("x", "index", "updates")]
    lengths = call.joined([*rows, {d: c for d, c in call.lengths("x").items() if d == call.rank - 1}])
    last = call.rank - 1
    counted = call.joined([{d: c for d, c in call.lengths(n).items() if d == last} for n in ("index", "updates")])
    if last not in counted:
        return lengths
    x, index, size = call.args["x"], call.args["index"], call.shape[-1]
    counts_in = call.places.get(index)
    if x.op == "get_attr" and counts_in is not None and counts_in.most == size:
        lengths = {**lengths, last: counts_in.count}
    valid = call.valid(last, spec(index).shape, counted[last])
    behind = call.scalars.number(call.module, size, torch.int64)
    index = insert_call(call.node, aten.where.self, valid, index, behind)
    longer = insert_call(call.node, aten.constant_pad_nd.default, x, [0, 1])
    made = insert_call(call.node, ordering.scatter, longer, index, call.args["updates"], call.args["reduce"])
    result = insert_call(call.node, aten.slice.Tensor, made, last, 0, size, 1)
    call.node.replace_all_uses_with(result)
    call.made.append(result)
    return lengths


def peaks(call: Call) -> Lengths:
    """Maps that are not valid are not searched: they get the least size."""
    call.fill("sizes", [0], 1)
    lengths = call.joined([call.lengths("maps"), call.lengths("sizes")])
    if any(dim > 1 for dim in call.lengths("maps")) or 1 in call.lengths("sizes"):
        raise call.refuse("it searches across that dimension")
    return lengths


_BY_FAMILY: dict[Family, Rule] = {
    Family.ELEMENTWISE: elementwise,
    Family.POOLING: outer(2),
    Family.RESAMPLING: outer(2),
    Family.QUANTISATION: unmoved,
}
RULES: dict[OpOverload, Rule] = {
    **{overload: _BY_FAMILY[op.family] for overload, op in OPS.items() if op.family in _BY_FAMILY},
    **dict.fromkeys(CONTRACTIONS, layer),
    aten.matmul.default: product,
    aten.reshape.default: reshape,
    aten.permute.default: permute,
    aten.expand.default: expand,
    aten.repeat.default: repeat,
    aten.cat.default: cat,
    aten.slice.Tensor: part,
    aten.roll.default: fixed_there("dims"),
    aten.flip.default: fixed_there("dims"),
    aten.constant_pad_nd.default: fixed_there("pad"),
    aten.pad.default: fixed_there("pad"),
    aten.index_select.default: index_select,
    aten.gather.default: gather,
    aten.embedding.default: embedding,
    aten.pixel_shuffle.default: outer(3),
    aten.pixel_unshuffle.default: outer(3),
    aten.sum.dim_IntList: reduction(lambda _: 0),
    aten.prod.dim_int: reduction(lambda _: 1),
    aten.amax.default: reduction(lowest),
    aten.amin.default: reduction(highest),
    aten.argmax.default: reduction(lowest),
    aten.argmin.default: reduction(highest),
    aten.linalg_vector_norm.default: reduction(lambda _: 0),
    aten.mean.dim: mean,
    aten.cumsum.default: running,
    aten.softmax.int: softmax,
    aten.log_softmax.int: softmax,
    **dict.fromkeys((aten.batch_norm.default, aten.group_norm.default, aten.instance_norm.default), images),
    aten.layer_norm.default: layer_norm,
    ordering.argsort: argsort,
    ordering.nms: nms,
    regions.roi_align: roi_align,
    ordering.scatter: scatter,
    heatmaps.peaks: peaks,
}
