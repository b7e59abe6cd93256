"""Graphs made by hand, and their comparison with PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch._ops import OpOverload
from torch.fx import Graph, GraphModule, Node

from lvc.backends.tvm import BACKEND
from lvc.compiler.ir.graph import infer_spec, store
from lvc.compiler.ir.model import Model
from lvc.compiler.ir.spec import TensorSpec
from lvc.compiler.pipeline.workspace import Workspace

aten = torch.ops.aten


class Sketch:
    """A graph under construction."""

    def __init__(self) -> None:
        self.module = GraphModule(torch.nn.Module(), Graph())
        self.graph = self.module.graph
        self.count = 0

    def input(self, *shape: int, dtype: torch.dtype = torch.float32) -> Node:
        node = self.graph.placeholder(f"input{self._next()}")
        node.meta["spec"] = TensorSpec(shape, dtype)
        return node

    def stored(self, value: torch.Tensor) -> Node:
        name = f"stored{self._next()}"
        store(self.module, name, value)
        node = self.graph.create_node("get_attr", name)
        node.meta["spec"] = TensorSpec.of(value)
        return node

    def call(self, overload: OpOverload, *args: Any, group: str = "", **kwargs: Any) -> Node:
        node = self.graph.call_function(overload, args, kwargs)
        node.meta["spec"] = infer_spec(node)
        node.meta["origin"] = "sketch"
        if group:
            node.meta["group"] = group
        return node

    def conv(self, data: Node, out: int, kernel: int = 1, stride: int = 1, *, groups: int = 1, group: str = "") -> Node:
        """A convolution that keeps the size at stride 1, with a bias; its result is blocked."""
        channels = data.meta["spec"].shape[1]
        weight = torch.randn(out, channels // groups, kernel, kernel) / (channels // groups * kernel**2) ** 0.5
        pair = [stride, stride], [kernel // 2] * 2, [1, 1]
        bias = self.stored(torch.randn(out))
        return self.call(aten.conv2d.default, data, self.stored(weight), bias, *pair, groups, group=group)

    def model(self, *outputs: Node) -> Model:
        self.graph.output(tuple(outputs))
        self.module.recompile()
        return Model(self.module, "sketch", tuple(f"out{i}" for i in range(len(outputs))))

    def _next(self) -> int:
        self.count += 1
        return self.count


def check(model: Model, *inputs: np.ndarray, tolerance: float = 2e-5, threads: int = 1) -> None:
    """Build a model, run it, and compare every output with PyTorch's."""
    target = BACKEND.parse_target("native")
    assert target is not None
    executable = BACKEND.load(BACKEND.build(model, target, Workspace(threads=2)), threads)
    compare(executable(*inputs), model(*inputs), tolerance)


def compare(found: Sequence[np.ndarray], expected: Sequence[np.ndarray], tolerance: float = 2e-5) -> None:
    assert len(found) == len(expected)
    for number, (ours, theirs) in enumerate(zip(found, expected, strict=True)):
        assert ours.shape == theirs.shape
        assert ours.dtype == theirs.dtype
        np.testing.assert_allclose(
            ours, theirs, rtol=tolerance, atol=tolerance, err_msg=f"output {number}", equal_nan=True
        )


def numbers(*shape: int, seed: int = 0, low: float = -3, high: float = 3) -> np.ndarray:
    """Uniform random numbers."""
    return np.random.default_rng(seed).uniform(low, high, shape).astype(np.float32)
