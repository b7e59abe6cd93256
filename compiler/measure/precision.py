"""How far single precision itself is from the exact result: what a network's own conditioning makes of rounding."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.fx

from lvc.compiler.ir.bounds import FLOAT16_TERMS
from lvc.compiler.ir.dialect import Family, aten
from lvc.compiler.ir.graph import WINOGRAD, arguments, behind_widening, family, is_widening, spec
from lvc.compiler.ir.layers import factors
from lvc.compiler.ir.marks import TF32
from lvc.compiler.ir.model import Model
from lvc.compiler.ir.tf32 import to_tf32
from lvc.compiler.measure.counts import macs
from lvc.compiler.measure.filtering import convolved

_ULP = 2.0**-23
_HALF_ROUNDING = 2.0**-12  # a quarter of a unit in the last place of one, in half precision
_SINGLE_ROUNDING = 2.0**-25  # and in single precision
_SATURATING = (aten.sigmoid.default, aten.tanh.default, aten.erf.default, aten.softplus.default)
_GATED = (aten.silu.default, aten.gelu.default, aten.mish.default)


def exact_outputs(model: Model, inputs: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...] | None:
    """Run a model in double precision; None if it has parts that are tied to single precision."""
    twin = model.copy().module.double()
    tensors = [torch.from_numpy(array) for array in inputs]
    try:
        with torch.inference_mode():
            outputs = twin(*(tensor.double() if tensor.is_floating_point() else tensor for tensor in tensors))
    except RuntimeError:  # a cast to single precision inside the graph meets double weights
        return None
    return tuple(output.numpy() for output in outputs)


def jittered_outputs(model: Model, inputs: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
    """Run a model with every saturating function off by up to a unit in the last place of one, seeded.

    So far engines are from them, which approximate sigmoid, tanh, erf and softplus to an absolute error: near 0, where
    a sigmoid that says "no" everywhere ends, that is many times the rounding of its value.
    """
    with torch.inference_mode():
        found = _Jitter(model.module).run(*map(torch.from_numpy, inputs))
    return tuple(part.numpy() for part in found)


def summed_outputs(model: Model, inputs: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
    """Run a model with the sums of products as far off, seeded, as adding one term after another may make them.

    Kernels do so, where PyTorch adds partial sums. Each of n steps rounds a sum that has grown, at random signs, to at
    most the root of all its squares, by a quarter of a unit in the last place; so the errors of a part add up to the
    root of n times that, and of parts as squares. Products of halves are taken to be summed in half precision.
    """
    with torch.inference_mode():
        found = _RoundedSums(model.module).run(*map(torch.from_numpy, inputs))
    return tuple(part.numpy() for part in found)


def filtered_outputs(model: Model, inputs: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
    """Run a model with every convolution of short numbers that Winograd's algorithm is allowed for done by it, as a
    kernel does: what it multiplies is rounded once more. See `filters_short`."""
    with torch.inference_mode():
        found = _Filtered(model.module).run(*map(torch.from_numpy, inputs))
    return tuple(part.numpy() for part in found)


def tf32_outputs(model: Model, inputs: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
    """Run a model with both factors of every contraction that is marked for it rounded to TF32."""
    with torch.inference_mode():
        found = _Tf32(model.module).run(*map(torch.from_numpy, inputs))
    return tuple(part.numpy() for part in found)


def filters_short(node: torch.fx.Node) -> bool:
    """Whether Winograd's algorithm is allowed for a convolution that reads its factors from a shorter type."""
    is_allowed = WINOGRAD in node.meta and family(node) is Family.CONTRACTION
    return is_allowed and all(map(is_widening, factors(node)))


def sums_halves(node: torch.fx.Node) -> bool:
    """Whether a contraction reads both its factors from half precision."""
    if family(node) is not Family.CONTRACTION or not all(map(is_widening, factors(node))):
        return False
    return all(spec(behind_widening(factor)).dtype is torch.float16 for factor in factors(node))


class _RoundedSums(torch.fx.Interpreter):
    def __init__(self, module: torch.fx.GraphModule) -> None:
        super().__init__(module)
        self._random = torch.Generator().manual_seed(0)

    def run_node(self, node: torch.fx.Node) -> Any:
        result = super().run_node(node)
        if node.op != "call_function" or family(node) is not Family.CONTRACTION or not result.is_floating_point():
            return result
        terms, read = macs(node) / max(1, result.numel()), factors(node)
        squares = {factor: self.env[factor].square() for factor in read}
        given = {
            name: squares.get(value, value) if isinstance(value, torch.fx.Node) else value
            for name, value in arguments(node).items()
        }
        if "bias" in given:
            given["bias"] = None
        steps = min(terms, FLOAT16_TERMS) if sums_halves(node) else terms
        rounding = _HALF_ROUNDING if sums_halves(node) else _SINGLE_ROUNDING
        scale = node.target(**given).sqrt() * (steps**0.5 * rounding)  # type: ignore[operator]
        return result + scale * torch.randn(result.shape, generator=self._random).to(result.dtype)


class _Filtered(torch.fx.Interpreter):
    def run_node(self, node: torch.fx.Node) -> Any:
        if node.op != "call_function" or not filters_short(node):
            return super().run_node(node)
        given, dtype = arguments(node), spec(behind_widening(factors(node)[0])).dtype
        data, weight = (self.env[factor] for factor in factors(node))
        result = convolved(data, weight, (given["padding"][0], given["padding"][-1]), node.meta[WINOGRAD], dtype)
        return result if given["bias"] is None else result + self.env[given["bias"]][:, None, None]


class _Tf32(torch.fx.Interpreter):
    def run_node(self, node: torch.fx.Node) -> Any:
        if node.op != "call_function" or TF32 not in node.meta or family(node) is not Family.CONTRACTION:
            return super().run_node(node)
        rounded = {factor: to_tf32(self.env[factor]) for factor in factors(node)}
        given = {
            name: rounded.get(value, self.env.get(value)) if isinstance(value, torch.fx.Node) else value
            for name, value in arguments(node).items()
        }
        return node.target(**given)  # type: ignore[operator]


class _Jitter(torch.fx.Interpreter):
    def __init__(self, module: torch.fx.GraphModule) -> None:
        super().__init__(module)
        self._random = torch.Generator().manual_seed(0)

    def run_node(self, node: torch.fx.Node) -> Any:
        result = super().run_node(node)
        if node.target in _SATURATING:
            return result + self._noise(result)
        if node.target in _GATED:
            return result + self._noise(result) * self.env[node.all_input_nodes[0]]
        return result

    def _noise(self, like: torch.Tensor) -> torch.Tensor:
        return (2 * torch.rand(like.shape, generator=self._random) - 1).to(like.dtype) * _ULP
