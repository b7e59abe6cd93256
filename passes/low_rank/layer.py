"""The layers of a model that may be factored: as kernels, with what they run on."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch.fx import GraphModule, Node

from lvc.compiler.ir.graph import arguments, origin, spec, tensor
from lvc.compiler.ir.layers import LAYERS, contraction, factors, group_count
from lvc.passes.low_rank.kernel import Kernel, Pair


@dataclass(frozen=True, eq=False)
class Layer:
    """A node that calls a layer, its kernel, how many images or rows it runs on, and of which size (1x1 for rows).

    ``itemsize`` is that of its weights in bytes, and ``has_bias`` tells of a bias that is its own: what it was when it
    was found, whatever becomes of the node.
    """

    node: Node
    kernel: Kernel
    count: int
    size: Pair
    itemsize: int
    has_bias: bool

    @property
    def name(self) -> str:
        """As tables show it."""
        return origin(self.node)

    @property
    def is_convolution(self) -> bool:
        return contraction(self.node).is_convolution

    def images(self, data: torch.Tensor) -> torch.Tensor:
        """What it reads or gives as images; rows are images of one pixel each."""
        return data if self.is_convolution else data.reshape(-1, data.shape[-1], 1, 1)

    def like(self, images: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """Images in the shape of one of its values."""
        return images.reshape(value.shape)


def refusal(module: GraphModule, node: Node) -> str | None:
    """Why a layer is no kernel and bias by themselves; None if it is."""
    weight, bias = factors(node)[1], arguments(node)["bias"]
    if bias is not None and bias.op != "get_attr":
        return "its bias is computed in the graph"
    if weight.op != "get_attr":
        return "its weight is computed in the graph"
    if len(weight.users) > 1:
        return f"its weight is shared by {len(weight.users)} layers"
    if not spec(weight).dtype.is_floating_point:
        return f"its weight is {spec(weight).dtype}"
    stored = tensor(module, weight)
    if stored is None or not bool(stored.isfinite().all()):
        return "its weight is not finite"
    return "its weight is empty" if not stored.numel() else None


def layer_of(module: GraphModule, node: Node) -> Layer:
    """A call of one of `LAYERS` whose weight is stored."""
    assert node.target in LAYERS
    data, weight = factors(node)
    stored = tensor(module, weight)
    assert stored is not None
    values, shape = stored.detach().double(), spec(data).shape
    bias = arguments(node)["bias"]
    about = spec(weight).dtype.itemsize, bias is not None and len(bias.users) == 1
    if not contraction(node).is_convolution:
        return Layer(node, Kernel(values[:, :, None, None]), math.prod(shape[:-1]), (1, 1), *about)
    given, groups = arguments(node), group_count(node)
    window: tuple[Pair, Pair, Pair] = tuple((given[name][0], given[name][1]) for name in _WINDOW)  # type: ignore[assignment]
    size, count = (shape[-2], shape[-1]), math.prod(shape[:-3])
    if contraction(node).is_matrix_product:
        return Layer(node, Kernel(values, *window, groups), count, size, *about)
    parts = values.reshape(groups, values.shape[0] // groups, *values.shape[1:]).transpose(1, 2)
    padding = given["output_padding"]
    kernel = Kernel(parts.flatten(0, 1), *window, groups, (padding[0], padding[1]))
    return Layer(node, kernel, count, size, *about)


_WINDOW = ("stride", "padding", "dilation")
