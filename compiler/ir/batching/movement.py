"""Where the batch goes when values are moved, repeated or joined: the calls in which its size stands as a number."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torch._ops import OpOverload

from lvc.compiler.ir.batching.axis import BatchAxis, Times, sizes_of
from lvc.compiler.ir.batching.call import Call, Refusal, Step
from lvc.compiler.ir.dialect import aten
from lvc.compiler.ir.graph import spec

Rule = Callable[[Call], Iterator[Step]]


def reshape(call: Call) -> Iterator[Step]:
    old = spec(call.args["self"]).shape
    for axis in call.only("self").in_shape(old, call.shape, call.batch):
        yield Step(axis, {"shape": sizes_of(call.shape, axis)})
    raise Refusal("its shape holds the images at no place of their own")


def permute(call: Call) -> Iterator[Step]:
    axis = call.only("self")
    yield Step(axis.at(call.dims(call.args["dims"], call.rank()).index(axis.dim)))


def expand(call: Call) -> Iterator[Step]:
    axis = call.only("self")
    axis = axis.at(axis.dim + call.rank() - call.rank("self"))
    if call.shape[axis.dim] != axis.size(call.batch):
        raise Refusal("it repeats the images")
    yield Step(axis, {"size": sizes_of(call.shape, axis)})


def repeat(call: Call) -> Iterator[Step]:
    axis = call.only("self")
    axis = axis.at(axis.dim + call.rank() - call.rank("self"))
    yield Step(BatchAxis(axis.dim, axis.outer * call.args["repeats"][axis.dim], axis.inner))


def cat(call: Call) -> Iterator[Step]:
    operands, dim = list(call.args["tensors"]), call.args["dim"] % call.rank()
    known = [axis for operand in operands if (axis := call.axes[operand]) is not None]
    places = {(axis.dim, axis.inner) if axis.dim == dim else axis for axis in known}
    axis = known[0]
    if len(places) > 1:
        raise Refusal("what it joins has the images at different places")
    if axis.dim != dim:
        yield Step(axis, spread={operand: axis for operand in operands if call.axes[operand] is None})
        return
    each = axis.size(call.batch) // axis.outer
    if any(spec(operand).shape[dim] % each for operand in operands):
        raise Refusal("it joins along the dimension of the images")
    parts = {operand: BatchAxis(dim, spec(operand).shape[dim] // each, axis.inner) for operand in operands}
    missing = {operand: part for operand, part in parts.items() if call.axes[operand] is None}
    yield Step(BatchAxis(dim, call.shape[dim] // each, axis.inner), spread=missing)


def cut(call: Call) -> Iterator[Step]:
    axis, size = call.only("self"), spec(call.args["self"]).shape
    dim = call.args["dim"] % call.rank()
    if dim != axis.dim:
        yield Step(axis)
        return
    start, end, _ = slice(call.args["start"], call.args["end"]).indices(size[dim])
    each = axis.size(call.batch) // axis.outer
    if call.args["step"] != 1 or start % each or end % each or end <= start:
        raise Refusal("it takes some of the images")
    literals = {"start": Times(start // each * axis.inner), "end": Times(end // each * axis.inner)}
    yield Step(BatchAxis(dim, (end - start) // each, axis.inner), literals)


def within(name: str) -> Rule:
    """The rule of a call that moves values along dimensions that it names, none of them that of the images."""

    def rule(call: Call) -> Iterator[Step]:
        axis = call.only("self")
        if axis.dim in call.dims(call.args[name], call.rank()):
            raise Refusal("it moves values from image to image")
        yield Step(axis)

    return rule


def pad(call: Call) -> Iterator[Step]:
    axis, widths = call.only("self"), call.args["pad"]
    place = 2 * (call.rank() - 1 - axis.dim)
    if any(widths[place : place + 2]):
        raise Refusal("it pads the dimension of the images")
    yield Step(axis)


def select(call: Call) -> Iterator[Step]:
    dim = call.args["dim"] % call.rank()
    if call.axes[call.args["self"]] is None:
        yield Step(call.only("index").at(dim))
        return
    axis = call.only("self")
    if axis.dim == dim:
        raise Refusal("it takes some of the images")
    yield Step(axis)


def gather(call: Call) -> Iterator[Step]:
    operands = [call.args["self"], call.args["index"]]
    known = {axis for operand in operands if (axis := call.axes[operand]) is not None}
    if len(known) > 1:
        raise Refusal("its operands have the images at different places")
    (axis,) = known
    if axis.dim == call.args["dim"] % call.rank():
        raise Refusal("it takes values of some images for others")
    if any(spec(operand).shape[axis.dim] != axis.size(call.batch) for operand in operands):
        raise Refusal("it takes some of the images")
    yield Step(axis, spread={operand: axis for operand in operands if call.axes[operand] is None})


def embedding(call: Call) -> Iterator[Step]:
    yield Step(call.only("indices"))


def shuffle(call: Call) -> Iterator[Step]:
    axis = call.only("self")
    if axis.dim >= call.rank() - 3:
        raise Refusal("it moves values from image to image")
    yield Step(axis)


RULES: dict[OpOverload, Rule] = {
    aten.reshape.default: reshape,
    aten.permute.default: permute,
    aten.expand.default: expand,
    aten.repeat.default: repeat,
    aten.cat.default: cat,
    aten.slice.Tensor: cut,
    aten.roll.default: within("dims"),
    aten.flip.default: within("dims"),
    aten.constant_pad_nd.default: pad,
    aten.pad.default: pad,
    aten.index_select.default: select,
    aten.gather.default: gather,
    aten.embedding.default: embedding,
    aten.pixel_shuffle.default: shuffle,
    aten.pixel_unshuffle.default: shuffle,
}
