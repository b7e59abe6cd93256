"""A layer as a matrix product: one row for each output position, holding what the weights of that position multiply.

For a convolution the row is the patch under the kernel, channels first, zeros where it pads; for a linear layer it is
the input itself. Rows are drawn at random, for neighbouring positions say the same twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch.fx import Node
from torch.nn import functional

from lvc.compiler.ir.graph import arguments, spec
from lvc.compiler.ir.layers import contraction, group_count

_MOST_BYTES = 8 << 20


def positions(output: torch.Tensor, layer: Node, most: int, generator: torch.Generator) -> torch.Tensor:
    """Draw at most so many positions of an output with the channels left out, each once, ``i64[rows]``, flat."""
    places = output.select(contraction(layer).axis, 0)
    count = places.numel()
    return torch.arange(count) if count <= most else torch.randperm(count, generator=generator)[:most]


def output_rows(outputs: Sequence[torch.Tensor], layer: Node, at: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return the output channels at some positions of each of several outputs, ``[rows, channels]``."""
    found = []
    for output, here in _joined(outputs, at, _places(layer, outputs[0].shape)):
        if contraction(layer).is_convolution:
            images, pixels = _split(here, output.shape[2:])
            found.append(output.flatten(2)[images, :, pixels])
        else:
            found.append(output.reshape(-1, output.shape[-1])[here])
    return torch.cat(found)


def input_rows(
    operands: Sequence[torch.Tensor], layer: Node, size: Sequence[int], at: Sequence[torch.Tensor]
) -> torch.Tensor:
    """Return what the weights multiply at some positions of each of several outputs, ``[rows, channels * kernel]``.

    ``operands`` are what the layer reads for each; ``size`` is the shape of an output, in which the positions count.
    """
    rows = _patches if contraction(layer).is_convolution else _vectors
    return torch.cat(
        [rows(operand, layer, size, here) for operand, here in _joined(operands, at, _places(layer, size))]
    )


def _vectors(operand: torch.Tensor, layer: Node, size: Sequence[int], at: torch.Tensor) -> torch.Tensor:
    return operand.reshape(-1, operand.shape[-1])[at]


def _patches(operand: torch.Tensor, layer: Node, size: Sequence[int], at: torch.Tensor) -> torch.Tensor:
    args = arguments(layer)
    kernel = args["weight"].meta["spec"].shape[2:]
    height, width = args["padding"]
    padded = functional.pad(operand, (width, width, height, height))
    images, pixels = _split(at, size[2:])
    rows, columns = _split(pixels, size[3:])
    down = rows[:, None] * args["stride"][0] + torch.arange(kernel[0]) * args["dilation"][0]
    right = columns[:, None] * args["stride"][1] + torch.arange(kernel[1]) * args["dilation"][1]
    patches = padded[images[:, None, None], :, down[:, :, None], right[:, None, :]]
    return patches.movedim(3, 1).flatten(1)


def _joined(
    values: Sequence[torch.Tensor], at: Sequence[torch.Tensor], places: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield several values in one, as many as a cache likes, with their positions, of which each has so many."""
    many = max(1, _MOST_BYTES // max(1, values[0].nbytes))
    for start in range(0, len(values), many):
        some = values[start : start + many]
        here = [drawn + place * places for place, drawn in enumerate(at[start : start + many])]
        yield (
            (torch.cat([value if value.ndim > 1 else value[None] for value in some]), torch.cat(here))
            if len(some) > 1
            else (some[0], here[0])
        )


def _places(layer: Node, size: Sequence[int]) -> int:
    """How many positions an output has."""
    return torch.Size(size).numel() // size[contraction(layer).axis]


def in_groups(rows: torch.Tensor, layer: Node) -> torch.Tensor:
    """Return rows of inputs or outputs with those of each group of channels apart, ``[groups, rows, columns]``."""
    return rows.reshape(len(rows), group_count(layer), -1).movedim(1, 0)


def rows_wanted(layer: Node, inputs: int) -> int:
    """Return how many rows of each input are enough to know a layer's second moments."""
    weight = spec(arguments(layer)["weight"])
    return -(-(16384 + 4 * weight.elements // weight.shape[0]) // inputs)


def _split(at: torch.Tensor, inner: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
    size = torch.Size(inner).numel()
    return at // size, at % size
