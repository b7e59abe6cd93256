"""Where the batch goes in a call, operator by operator; an operator without a rule, or a call that mixes images, is
refused with the reason."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torch._ops import OpOverload
from torch.fx import Node

from lvc.compiler.ir.batching import movement
from lvc.compiler.ir.batching.axis import BatchAxis
from lvc.compiler.ir.batching.broadcasting import broadcast, spread_to
from lvc.compiler.ir.batching.call import Call, Refusal, Step
from lvc.compiler.ir.batching.movement import Rule
from lvc.compiler.ir.dialect import OPS, Family, aten
from lvc.compiler.ir.graph import spec
from lvc.compiler.ir.layers import CONTRACTIONS, contraction, factors
from lvc.compiler.ir.operators import dynamic, heatmaps, integer, ordering, regions
from lvc.compiler.ir.operators.codebook import FAKE_QUANTIZE_CODEBOOK
from lvc.compiler.ir.operators.coded_weights import DECODE
from lvc.compiler.ir.operators.uncalibrated import UNCALIBRATED


def elementwise(call: Call) -> Iterator[Step]:
    yield broadcast(call, call.node.all_input_nodes)


def of_no_image(call: Call) -> Iterator[Step]:
    """Regions of all images are one list."""
    raise Refusal("its regions are a list for all images")
    yield


def along(name: str, vector: str) -> Rule:
    """The rule of an element-wise operator with a vector for the places of one dimension, 1 unless ``axis`` says it."""

    def rule(call: Call) -> Iterator[Step]:
        axis = call.only(name)
        dim = call.args.get("axis", 1) % call.rank()
        if spec(call.args[vector]).elements > 1 and dim == axis.dim:
            raise Refusal(f"its {vector} has a value for each image")
        yield Step(axis)

    return rule


def unmoved(call: Call) -> Iterator[Step]:
    """The first operand is changed place by place, by what is stored."""
    yield Step(call.only(str(next(iter(call.args)))))


def layer(call: Call) -> Iterator[Step]:
    """A convolution or a linear layer: images lie in none of the dimensions that it sums over."""
    data = contraction(call.node).data
    axis, rank = call.only(data), call.rank(data)
    first = 1 if contraction(call.node).is_convolution else rank - 1
    if axis.dim >= first or (contraction(call.node).is_convolution and rank != 4):
        raise Refusal("it sums over the dimension of the images")
    yield Step(axis)


def product(call: Call) -> Iterator[Step]:
    """A product of matrices: images are matrices apart, or rows of the one or columns of the other matrix."""
    left, right = factors(call.node)
    ranks = [len(spec(value).shape) for value in (left, right)]
    kept = (-2, -1)  # the dimension of a matrix that the result has
    axes: list[BatchAxis | None] = []
    for value, rank, place in zip((left, right), ranks, kept, strict=True):
        axis = call.axes[value]
        if axis is None:
            axes.append(None)
            continue
        if min(ranks) < 2 or axis.dim - rank == (-1 if place == -2 else -2):
            raise Refusal("it sums over the dimension of the images")
        axes.append(axis.at(axis.dim - rank + len(call.shape)))
    known = [axis for axis in axes if axis is not None]
    if len(set(known)) > 1:
        raise Refusal("its operands have the images in different dimensions")
    axis = known[0]
    if axis.dim >= len(call.shape) - 2:
        if len(known) > 1:
            raise Refusal("it multiplies each image with each")
        yield Step(axis)
        return
    if call.shape[axis.dim] != axis.size(call.batch):
        raise Refusal("it repeats the images")
    yield Step(axis, spread=spread_to(call, axis, [left, right]))


def pool(call: Call) -> Iterator[Step]:
    """Windows of the last two dimensions."""
    axis = call.only(str(next(iter(call.args))))
    if axis.dim >= call.rank() - 2:
        raise Refusal("its windows reach over images")
    yield Step(axis)


def sampling(call: Call) -> Iterator[Step]:
    """Images and the places that are read in each of them, or the size that each gets, all with the images first."""
    known = {axis for operand in call.node.all_input_nodes if (axis := call.axes[operand]) is not None}
    if any(axis.dim for axis in known):
        raise Refusal("the first dimension of an operand does not hold the images")
    if len(known) > 1:
        raise Refusal("its operands have the images at different places")
    (axis,) = known
    yield Step(axis, spread={n: axis for n in call.node.all_input_nodes if call.axes[n] is None})


def rows(call: Call) -> Iterator[Step]:
    """Each row is worked on alone; the images lie in a dimension before it, in the same one of every operand."""
    known = {axis for operand in call.node.all_input_nodes if (axis := call.axes[operand]) is not None}
    if len(known) > 1:
        raise Refusal("its operands have the images at different places")
    (axis,) = known
    if axis.dim >= len(call.shape) - 1:
        raise Refusal("it puts values of all images in one order")
    yield Step(axis, spread={n: axis for n in call.node.all_input_nodes if call.axes[n] is None})


def reduction(call: Call) -> Iterator[Step]:
    """A reduction of whole dimensions, which may leave them out of the result."""
    name = next(iter(call.args))
    axis, rank = call.only(name), call.rank(name)
    reduced = [rank - 1] if call.node.target is dynamic.row_scale else call.dims(call.args["dim"], rank)
    if axis.dim in reduced:
        raise Refusal("it reduces the dimension of the images, so that each depends on all")
    gone = 0 if len(call.shape) == rank else sum(dim < axis.dim for dim in reduced)
    yield Step(axis.at(axis.dim - gone))


def normalised_over(least: Callable[[Call], list[int]]) -> Rule:
    """The rule of a normalisation whose statistics are taken over some dimensions, or stored for them."""

    def rule(call: Call) -> Iterator[Step]:
        axis = call.only(str(next(iter(call.args))))
        if axis.dim in least(call):
            raise Refusal("it normalises over the dimension of the images, so that each depends on all")
        yield Step(axis)

    return rule


def _rows(call: Call) -> list[int]:
    return list(range(call.rank() - len(call.args["normalized_shape"]), call.rank()))


def _all_but_first(call: Call) -> list[int]:
    return list(range(1, call.rank()))


def _chosen(call: Call) -> list[int]:
    return call.dims(call.args["dim"], call.rank())


def fake_quantisation(call: Call) -> Iterator[Step]:
    """Simulated rounding: one scale for all values, or one for each place of a dimension."""
    axis = call.only(str(next(iter(call.args))))
    if call.args.get("axis") is not None and call.args["axis"] % call.rank() == axis.dim:
        raise Refusal("it has a scale for each image")
    yield Step(axis)


_BY_FAMILY: dict[Family, Rule] = {Family.ELEMENTWISE: elementwise, Family.REDUCTION: reduction, Family.POOLING: pool}
_SPECIAL: dict[OpOverload, Rule] = {
    **movement.RULES,
    **{operator: product if entry.bias is None else layer for operator, entry in CONTRACTIONS.items()},
    aten.prelu.default: along("self", "weight"),
    integer.rescale: along("sums", "scale"),
    integer.requantise: along("sums", "multiplier"),
    integer.table: unmoved,
    aten.batch_norm.default: normalised_over(_all_but_first),
    aten.group_norm.default: normalised_over(_all_but_first),
    aten.instance_norm.default: normalised_over(_all_but_first),
    aten.layer_norm.default: normalised_over(_rows),
    aten.softmax.int: normalised_over(_chosen),
    aten.log_softmax.int: normalised_over(_chosen),
    aten.upsample_nearest2d.vec: pool,
    aten.upsample_bilinear2d.vec: pool,
    aten.upsample_bicubic2d.vec: pool,
    aten.grid_sampler_2d.default: sampling,
    regions.roi_align: of_no_image,
    **dict.fromkeys(ordering.OPERATORS, rows),
    heatmaps.peaks: sampling,
    aten.fake_quantize_per_tensor_affine.default: fake_quantisation,
    aten.fake_quantize_per_channel_affine.default: fake_quantisation,
    UNCALIBRATED: fake_quantisation,
}
ONLY_STORED = (FAKE_QUANTIZE_CODEBOOK, DECODE)
"""Operators of stored weights, which hold no images."""

RULES: dict[OpOverload, Rule] = {
    **{overload: _BY_FAMILY[op.family] for overload, op in OPS.items() if op.family in _BY_FAMILY},
    **_SPECIAL,
}


def steps(node: Node, axes: dict[Node, BatchAxis | None], batch: int) -> Iterator[Step]:
    """Yield the ways to make a call for any batch, the likeliest first; `Refusal` if there is none."""
    if all(axes[operand] is None for operand in node.all_input_nodes):
        yield Step(None)
        return
    rule = RULES.get(node.target) if isinstance(node.target, OpOverload) else None
    if rule is None:
        raise Refusal("nothing is known of how it treats the images of a batch")
    yield from rule(Call(node, axes, batch))
