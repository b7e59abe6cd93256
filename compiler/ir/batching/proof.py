"""The proof that images do not mix: different ones in a batch give what each of them gives alone.

Fake quantisation is left out, for a sum that moves by a rounding error may fall to the next integer; its scales are the
same for all images wherever the rules let a batch pass. Other operators with jumps stay, and widen the bound.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch._ops import OpOverload
from torch.fx import Graph, Node
from torch.fx.node import map_arg

from lvc.compiler.ir.batching.axis import BatchAxis
from lvc.compiler.ir.batching.batching import HELP, BatchError, Batching, Calls
from lvc.compiler.ir.dialect import Family, aten
from lvc.compiler.ir.graph import family, origin, tensor
from lvc.compiler.ir.model import Model
from lvc.compiler.ir.operators import dynamic, integer
from lvc.compiler.ir.spec import TensorSpec

BOUND = 1e-4
"""The largest error of an image in a batch, by the root of its mean square, relative: rounding of sums."""

BOUND_WITH_JUMPS = 0.05
"""The same where a rounding error may become a step."""

_FEW = 4
_JUMPS = (
    *(aten.floor.default, aten.ceil.default, aten.round.default, aten.sign.default, aten.to.dtype),
    *(aten.remainder.Tensor, aten.fmod.Tensor, aten.argmax.default, aten.argmin.default),
    *(aten.eq.Tensor, aten.ne.Tensor, aten.lt.Tensor, aten.le.Tensor, aten.gt.Tensor, aten.ge.Tensor),
    *(integer.quantise, integer.requantise, integer.add, dynamic.quantise_rows),
)


def prove(model: Model, batching: Batching, images: int, twin: Model | None = None) -> None:
    """Raise `BatchError` unless each of so many random images gets in their batch what the model as it is gives it.

    The batch runs through the ``twin`` that was written for it, else through the calls of the model. Where there are
    many images, the first two, one in the middle and the last are run alone. Single precision is believed where it
    agrees; an output that is almost nothing, such as that of a layer which never fires, may be all rounding, so what
    differs is computed again in double precision.
    """
    try:
        _prove(model, batching, images, twin, torch.float32)
    except BatchError as error:
        try:
            _prove(model, batching, images, twin, torch.float64)
        except BatchError:
            raise error from None


def _prove(model: Model, batching: Batching, images: int, twin: Model | None, dtype: torch.dtype) -> None:
    inputs = [_different(TensorSpec((images, *value.spec.shape[1:]), value.spec.dtype)) for value in model.inputs]
    inputs = [_in(dtype, value) for value in inputs]
    together = evaluate(twin, inputs, dtype=dtype) if twin else evaluate(model, inputs, batching.calls(images), dtype)
    size = batching.images
    parts = range(-(-images // size))
    places = parts if len(parts) <= _FEW else sorted({0, 1, len(parts) // 2, len(parts) - 1})
    for place in places:
        rows = [row % images for row in range(place * size, (place + 1) * size)]
        alone = evaluate(model, [value[rows] for value in inputs], dtype=dtype)
        count = min(size, images - place * size)
        for name, node, ours, theirs in zip(model.output_names, model.output_nodes, together, alone, strict=True):
            axis = batching.axis(node) or (BatchAxis(0) if twin else None)
            if axis is not None:
                ours, theirs = axis.image(ours, place * size, count), axis.image(theirs, 0, count)
            if _error(ours, theirs) > _bound(model.module.graph):
                raise BatchError(
                    f"output '{name}' of an image depends on the others of its batch",
                    where=origin(node),
                    why=f"image {place * size} gives something else among {images} different ones than alone",
                    help=HELP,
                )


def evaluate(
    model: Model, inputs: Sequence[torch.Tensor], calls: Calls | None = None, dtype: torch.dtype = torch.float32
) -> list[torch.Tensor]:
    """Run a model without its fake quantisation; values are freed as soon as nothing reads them. Numbers in single
    precision are computed in ``dtype``.

    `BatchError` if a call cannot be computed.
    """
    given, values = iter(inputs), dict[Node, torch.Tensor]()
    order: Iterable[Node] = model.module.graph.nodes
    last = {operand: node for node in model.module.graph.nodes for operand in node.all_input_nodes}
    with torch.inference_mode():
        for node in order:
            if node.op == "output":
                break
            values[node] = next(given) if node.op == "placeholder" else _value(model, node, values, calls, dtype)
            for operand in {operand for operand in node.all_input_nodes if last[operand] is node}:
                del values[operand]
    return [values[node] for node in model.output_nodes]


def _value(
    model: Model, node: Node, values: dict[Node, torch.Tensor], calls: Calls | None, dtype: torch.dtype
) -> torch.Tensor:
    stored = tensor(model.module, node)
    if stored is not None:
        return _in(dtype, stored.detach())
    if family(node) is Family.QUANTISATION:
        return values[node.all_input_nodes[0]]
    assert isinstance(node.target, OpOverload)
    try:
        if calls:
            return calls.compute(node, values)
        result: torch.Tensor = node.target(
            *map_arg(node.args, values.__getitem__), **map_arg(node.kwargs, values.__getitem__)
        )
    except (IndexError, RuntimeError) as error:  # a table, for instance, has no place of an index out of random numbers
        raise BatchError(
            f"'{node.name}' cannot be computed on random inputs, so whether images stay apart is not known",
            where=origin(node),
            why=str(error).splitlines()[0],
            help=HELP,
        ) from error
    return result


def _different(wanted: TensorSpec) -> torch.Tensor:
    """Seeded inputs, different for each image: normal numbers, or zeros and ones."""
    generator = torch.Generator().manual_seed(0)
    if wanted.dtype.is_floating_point:
        return torch.randn(wanted.shape, generator=generator).to(wanted.dtype)
    return torch.randint(0, 2, wanted.shape, generator=generator).to(wanted.dtype)


def _in(dtype: torch.dtype, value: torch.Tensor) -> torch.Tensor:
    """A value as it is, or in another precision if it is in single precision."""
    return value.to(dtype) if value.dtype is torch.float32 else value


def _bound(graph: Graph) -> float:
    return BOUND_WITH_JUMPS if any(node.target in _JUMPS for node in graph.nodes) else BOUND


def rounding_bound(graph: Graph) -> float:
    """The largest error of an image in a batch when all is computed, fake quantisation as well."""
    is_simulated = any(node.op == "call_function" and family(node) is Family.QUANTISATION for node in graph.nodes)
    return BOUND_WITH_JUMPS if is_simulated else _bound(graph)


def _error(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """The root of the mean squared error, relative; infinite for other shapes, or where only one is not finite."""
    if found.shape != wanted.shape:
        return float("inf")
    found, wanted = found.double(), wanted.double()
    alike = (found == wanted) | (found.isnan() & wanted.isnan())
    error = (found - wanted).masked_fill(alike, 0.0).square().sum()
    power = wanted.masked_fill(~wanted.isfinite(), 0.0).square().sum()
    return float((error / power.clamp(min=1e-30)).sqrt()) if bool(error.isfinite()) else float("inf")
