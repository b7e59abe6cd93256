"""What a rewritten model computes, and how far from it code may be: the bound where passes are lossy.

As for a description (see `oracle`), but on the graph itself, in single precision. Rounding to short numbers and to
whole ones turns the least noise into a step: behind floating-point arithmetic such a node may give the neighbouring
step anywhere. Where only whole-number operators and those that round nothing come before an output, it is exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.fx.node import map_arg

from fuzzing.oracle import BLUNT, EXACT, FLOOR, NOISE, RUNS, SLACK, Expected, distance
from fuzzing.rounding import absolute, largest, rounded_size
from lvc.compiler.ir.graph import arguments, op_name, spec

if TYPE_CHECKING:
    from torch.fx import Node

    from lvc.compiler.ir.model import Model

WHOLE = frozenset(
    [
        "lvc.conv2d",
        "lvc.linear",
        "lvc.matmul",
        "lvc.quantise",
        "lvc.dequantise",
        "lvc.rescale",
        "lvc.requantise",
        "lvc.add",
        "lvc.mul",
        "lvc.table",
        "lvc.sigmoid",
        "lvc.silu",
        "lvc.hardsigmoid",
        "lvc.hardswish",
        "lvc.tanh",
        "lvc.gelu",
        "lvc.elu",
        "lvc.mish",
        "lvc.decode",
        "lvc.sum_pool2d",
    ]
)
"""Whole-number operators, whose every bit is defined."""

FAKE = frozenset(["fake_quantize_per_tensor_affine", "fake_quantize_per_channel_affine", "lvc.fake_quantize_codebook"])
WINOGRAD_NOISE = 3e-5
SHORT_WINOGRAD_NOISE = 1e-2  # where what is multiplied is rounded to a shorter type


class Noisy(torch.fx.Interpreter):
    """Runs a graph with noise behind every operator that rounds, and steps behind everything that quantises it."""

    def __init__(self, model: Model, seed: int, exact: set[Node], simulated: bool) -> None:
        super().__init__(model.module)
        self.exact, self.simulated = exact, simulated
        self.generator = torch.Generator().manual_seed(seed)

    def run_node(self, n: Node) -> Any:
        value = super().run_node(n)
        if n.op != "call_function" or n in self.exact or op_name(n) in EXACT - {"to"}:
            return value
        name = op_name(n)
        if name in FAKE:
            return value + self._uniform(value).sign() * self._rare(value) * self._step(n)
        if name in ("lvc.quantise", "lvc.quantise_rows"):
            moved = value.to(torch.int64) + (self._uniform(value).sign() * self._rare(value)).to(torch.int64)
            info = torch.iinfo(value.dtype)
            return moved.clamp(int(arguments(n).get("low", info.min)), int(arguments(n).get("high", info.max))).to(
                value.dtype
            )
        if name in WHOLE or not value.is_floating_point():
            return value
        return (value + self._uniform(value) * self._size(n, value)).to(value.dtype)

    def _uniform(self, value: torch.Tensor) -> torch.Tensor:
        return 2 * torch.rand(value.shape, generator=self.generator) - 1

    def _rare(self, value: torch.Tensor) -> torch.Tensor:
        """Where a step is taken: anywhere in a simulation by another runtime, else at a few elements."""
        return (torch.rand(value.shape, generator=self.generator) < (1.0 if self.simulated else 0.1)).float()

    def _step(self, n: Node) -> torch.Tensor | float:
        scale = self.env[n.args[1]] if isinstance(n.args[1], torch.fx.Node) else n.args[1]
        return float(scale.max()) if isinstance(scale, torch.Tensor) else float(scale)  # type: ignore[arg-type]

    def _size(self, n: Node, value: torch.Tensor) -> torch.Tensor | float:
        if value.dtype is torch.bfloat16:
            return value.abs().float() * 2.0**-7
        before = spec(n.all_input_nodes[0]).shape
        given = {name: map_arg(argument, lambda read: self.env[read]) for name, argument in arguments(n).items()}
        size = NOISE * rounded_size(op_name(n), given, before, value, lambda: self._magnitudes(n))
        filtering = SHORT_WINOGRAD_NOISE if "to" in map(op_name, n.all_input_nodes[:2]) else WINOGRAD_NOISE
        return max(size, filtering * largest(value) if "winograd" in n.meta else 0.0)

    def _magnitudes(self, n: Node) -> Any:
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        return n.target(*map(absolute, args), **{key: absolute(value) for key, value in kwargs.items()})  # type: ignore[operator]


def exact_nodes(model: Model) -> set[Node]:
    """The nodes before which nothing is rounded in floating point."""
    exact: set[Node] = set()
    for node in model.module.graph.nodes:
        if node.op in ("placeholder", "get_attr") or (
            node.op == "call_function" and op_name(node) in EXACT | WHOLE and exact.issuperset(node.all_input_nodes)
        ):
            exact.add(node)
    return exact


def expected_of(model: Model, inputs: Sequence[np.ndarray], *, simulated: bool = False) -> list[Expected]:
    """The outputs of a rewritten model; ``simulated`` if another runtime computes it in floating point."""
    exact = set() if simulated else exact_nodes(model)
    want = model(*inputs)
    tensors = [torch.from_numpy(array) for array in inputs]
    with torch.inference_mode():
        runs = [Noisy(model, seed, exact, simulated).run(*tensors) for seed in range(RUNS)]
    return [
        Expected(value, value.astype(np.float64), _bound(node, value, [run[i].detach().numpy() for run in runs], exact))
        for i, (node, value) in enumerate(zip(model.output_nodes, want, strict=True))
    ]


def _bound(node: Node, value: np.ndarray, runs: list[np.ndarray], exact: set[Node]) -> float | None:
    if node in exact:
        return 0.0
    moved = max(distance(run, value) for run in runs)
    if not spec(node).dtype.is_floating_point:
        return None if moved else 0.0
    size = float(np.abs(value[np.isfinite(value)]).max(initial=0.0))
    bound = SLACK * moved + FLOOR * size
    return None if bound > 50 * BLUNT * size else bound
