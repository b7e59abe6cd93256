"""Labels through element-wise operators, reductions, pooling and resampling."""

from __future__ import annotations

from collections.abc import Sequence

from torch._ops import OpOverload
from torch.fx import Node

from lvc.compiler.ir.dialect import OPS, Family, aten
from lvc.compiler.ir.graph import arguments, op_name, spec
from lvc.compiler.ir.operators import regions
from lvc.passes.analysis.channels.flow import RULES, Dim, Flow, Labels, rule

_SLID_OVER = (Family.POOLING, Family.RESAMPLING)


def broadcast(flow: Flow, *operands: tuple[Labels, tuple[int, ...]]) -> list[Dim]:
    """Join the dimensions of operands, given with their sizes, from the last on; a size of one ties nothing."""
    joined: list[Dim] = []
    for place in range(1, 1 + max(len(labels) for labels, _ in operands)):
        dims = [(labels[-place], sizes[-place]) for labels, sizes in operands if place <= len(labels)]
        wide = [dim for dim, size in dims if size > 1]
        joined.append(flow.join(*wide) if wide else dims[0][0])
    return joined[::-1]


def elementwise(flow: Flow, node: Node) -> Sequence[Dim]:
    return broadcast(flow, *((flow.of(operand), spec(operand).shape) for operand in node.all_input_nodes))


@rule(aten.prelu.default)
def prelu(flow: Flow, node: Node) -> Sequence[Dim]:
    operand, slopes = node.args[:2]
    x = list(flow.of(operand))
    if spec(slopes).elements > 1:  # type: ignore[arg-type]
        x[1] = flow.join(x[1], *flow.of(slopes))
    return x


@rule(aten.fake_quantize_per_tensor_affine.default)
def unary(flow: Flow, node: Node) -> Sequence[Dim]:
    return flow.of(node.args[0])


@rule(aten.fake_quantize_per_channel_affine.default)
def per_channel(flow: Flow, node: Node) -> Sequence[Dim]:
    args = arguments(node)
    x = list(flow.of(args["self"]))
    x[args["axis"]] = flow.join(x[args["axis"]], *flow.of(args["scale"]), *flow.of(args["zero_point"]))
    return x


def slide(flow: Flow, node: Node) -> Sequence[Dim]:
    """Pooling and resampling work on the last two dimensions."""
    x = flow.of(node.args[0])
    reason = "a window slides over them"
    return (*x[:-2], *(flow.fix(dim, reason) for dim in x[-2:]))


@rule(aten.grid_sampler_2d.default)
def sample(flow: Flow, node: Node) -> Sequence[Dim]:
    """An image's channels go through; the places that are read in it stay whole."""
    image, places = (flow.of(operand) for operand in node.args[:2])
    for dim in places:
        flow.fix(dim, "they say where an image is sampled")
    reason = "the image is sampled at computed places"
    batch, channels, *_ = image
    for dim in (batch, *image[2:]):
        flow.fix(dim, reason)
    return [reason, channels, reason, reason]


@rule(regions.roi_align)
def align(flow: Flow, node: Node) -> Sequence[Dim]:
    """The channels of all levels of a pyramid go together, and through; where regions lie stays whole."""
    args, reason = arguments(node), "regions of them are sampled"
    levels = [flow.of(level) for level in args["levels"]]
    for dim in (*flow.of(args["rois"]), *flow.of(args["level"]), *(dim for x in levels for dim in (x[0], *x[2:]))):
        flow.fix(dim, reason)
    return [reason, flow.join(*(x[1] for x in levels)), reason, reason]


def reduced_dims(node: Node) -> set[int]:
    """Return the dimensions, from 0, that a reduction reduces."""
    rank = len(spec(node.all_input_nodes[0]).shape)
    dims = arguments(node)["dim"]
    if dims is None or dims == []:
        return set(range(rank))
    return {dim % rank for dim in ([dims] if isinstance(dims, int) else dims)}


@rule(
    aten.mean.dim,
    aten.sum.dim_IntList,
    aten.prod.dim_int,
    aten.amax.default,
    aten.amin.default,
    aten.linalg_vector_norm.default,
)
def reduce(flow: Flow, node: Node) -> Sequence[Dim]:
    """What is reduced may shrink: the result is then that of the elements which remain."""
    gone = reduced_dims(node)
    keep = arguments(node)["keepdim"]
    labels = enumerate(flow.of(node.args[0]))
    return [f"{op_name(node)} leaves one" if dim in gone else label for dim, label in labels if keep or dim not in gone]


@rule(aten.argmax.default, aten.argmin.default)
def number(flow: Flow, node: Node) -> Sequence[Dim]:
    gone = reduced_dims(node)
    for dim in gone:
        flow.fix(flow.of(node.args[0])[dim], f"{op_name(node)} numbers them")
    return reduce(flow, node)


@rule(aten.cumsum.default, aten.softmax.int, aten.log_softmax.int)
def along(flow: Flow, node: Node) -> Sequence[Dim]:
    """Each result depends on others along the dimension; those which remain are taken together."""
    x = list(flow.of(node.args[0]))
    dim = arguments(node)["dim"]
    x[dim] = flow.fix(x[dim], f"{op_name(node)} goes along them")
    return x


def _reads_one_tensor(overload: OpOverload) -> bool:
    return sum("Tensor" in str(argument.type) for argument in overload._schema.arguments) == 1


for _overload, _op in OPS.items():
    if _overload.namespace != "aten":
        continue  # operators of ours may have factors along an axis
    if _op.family is Family.ELEMENTWISE:
        RULES.setdefault(_overload, elementwise)
    elif _op.family in _SLID_OVER and _reads_one_tensor(_overload):
        RULES.setdefault(_overload, slide)
