"""Move the scale of channels that stand out from what linear layers read into their weights.

In transformers a few channels behind a layer normalisation are far larger than all others, and one scale for the whole
tensor leaves the others few steps. For a positive ``s`` for each channel::

    W (g n + b) = (W s) (g/s n + b/s)        s[j] = max |x[j]|^strength / max |W[:, j]|^(1 - strength)

with ``n`` what was normalised, ``g`` and ``b`` the stored weight and bias, and ``x = g n + b``. Weights have a scale
for each output channel, which bears it better. Where the layers that read gain little by it, as far as a part of the
data tells, nothing is changed.

Source: Xiao et al. 2023, "SmoothQuant: accurate and efficient post-training quantization for large language models",
section 4.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import ClassVar

import torch
from torch.fx import GraphModule, Node

from lvc.compiler.errors import UsageError
from lvc.compiler.ir.dialect import aten
from lvc.compiler.ir.graph import arguments, calls, is_call, op_name, spec
from lvc.compiler.ir.model import Model
from lvc.compiler.measure.comparison.signal import sqnr
from lvc.compiler.pipeline.passes import Effect, Outcome, Pass, option
from lvc.compiler.pipeline.workspace import Workspace
from lvc.compiler.running.images import stream
from lvc.compiler.running.run import Run
from lvc.passes.quantisation.operands import rewrite, stored_operand
from lvc.passes.quantisation.quantisation_parameters import QuantisationScheme
from lvc.passes.quantisation.weight_parameters import weight_parameters

_LARGEST = 1e4
_LEAST_GAIN = 1.0  # dB; other images may take back less
_ROWS = 512


@dataclass(frozen=True)
class Smoothing:
    """A layer normalisation, and the linear layers that read all of what it gives."""

    norm: Node
    readers: tuple[Node, ...]


@dataclass(frozen=True, kw_only=True)
class SmoothActivations(Pass):
    """Move the scale of outlying channels from layer normalisations into weights; before fake quantisation."""

    name: ClassVar[str] = "smooth-activations"
    effect: ClassVar[Effect] = Effect.ROUNDING
    idempotent: ClassVar[bool] = False

    strength: float = option(0.5, "how much of the scale moves: 1 makes activations even, 0 weights")
    data: str = option("calib", "the data set, as named by --data NAME=PATH; labels are not needed")
    images: int = option(16, "look at no more than so many images")

    def __post_init__(self) -> None:
        if not 0 <= self.strength <= 1:
            raise UsageError(f"strength must be from 0 to 1, not {self.strength}")
        if self.images < 1:
            raise UsageError(f"images must be at least 1, not {self.images}")

    def apply(self, model: Model, workspace: Workspace) -> Outcome:
        outcome, found = Outcome(), list[Smoothing]()
        for norm in calls(model.module.graph, aten.layer_norm.default):
            item = match(norm)
            if isinstance(item, Smoothing):
                found.append(item)
            else:
                outcome.skip(norm, item)
        if not found:
            return outcome
        looking = _Channels(model, {item.norm for item in found})
        for batch in stream(model, workspace, self.data, self.images, "looking at channels"):
            looking.run(batch)
        before, after = [], []
        for item in found:
            weights = [stored_operand(model.module, reader, "weight") for reader in item.readers]
            factor = scale(looking.most[item.norm], weights, self.strength)
            rows = looking.rows[item.norm]
            as_it_is, smoothed = error(rows, weights), error(rows / factor, [weight * factor for weight in weights])
            if smoothed < as_it_is + _LEAST_GAIN:
                outcome.skip(item.norm, f"the layers that read it would gain less than {_LEAST_GAIN:g} dB")
                continue
            rescale(model.module, item, factor)
            outcome.change(item.norm)
            before.append(as_it_is)
            after.append(smoothed)
        if before:
            outcome.notes.append(
                f"median over the layers behind {len(before)} normalisations, in 8 bits: {median(before):.1f} dB "
                f"before, {median(after):.1f} dB now"
            )
        return outcome


class _Channels:
    """Looks at some values of a model: the greatest magnitude of each channel, and some rows of the first input."""

    def __init__(self, model: Model, values: Iterable[Node]) -> None:
        self.most = {value: torch.zeros(spec(value).shape[-1], dtype=torch.float64) for value in values}
        self.rows: dict[Node, torch.Tensor] = {}
        self.run = Run(model, {value: partial(self._look, value) for value in self.most}, frozen=True)

    def _look(self, value: Node, parts: Sequence[torch.Tensor]) -> None:
        for part in parts:
            rows = part.flatten(0, -2).double()
            self.most[value] = self.most[value].maximum(rows.abs().amax(0))
            self.rows.setdefault(value, rows[:: -(-len(rows) // _ROWS)])


def match(norm: Node) -> Smoothing | str:
    """Return what a layer normalisation feeds, or why its scale cannot move."""
    args = arguments(norm)
    if len(args["normalized_shape"]) != 1 or len(spec(norm).shape) < 2:
        return "it normalises over more than the last dimension"
    for name in ("weight", "bias"):
        if not isinstance(args[name], Node) or args[name].op != "get_attr":
            return f"its {name} is missing, or computed"
    readers, values = list[Node](), [norm]
    while values:
        for user in values.pop().users:
            if is_call(user, aten.linear.default):
                readers.append(user)
            elif keeps_channels(user):
                values.append(user)
            else:
                return f"'{user.name}' ({op_name(user)}) reads it, which is no linear layer"
    for reader in readers:
        if arguments(reader)["weight"].op != "get_attr":
            return f"the weight of '{reader.name}' is computed"
    return Smoothing(norm, tuple(readers)) if readers else "nothing reads it"


def keeps_channels(node: Node) -> bool:
    """Whether a call only moves the values of each channel, the last dimension, among themselves."""
    if is_call(node, aten.reshape.default):
        return spec(node).shape[-1:] == spec(node.args[0]).shape[-1:]  # type: ignore[arg-type]
    if is_call(node, aten.permute.default):
        rank = len(spec(node).shape)
        return bool(arguments(node)["dims"][-1] % rank == rank - 1)
    return False


def scale(most: torch.Tensor, weights: Sequence[torch.Tensor], strength: float) -> torch.Tensor:
    """Return the factor of each channel, ``f64[channels]``; 1 where it or its weights are always zero."""
    largest = torch.stack([weight.abs().amax(0) for weight in weights]).amax(0)
    factor = most**strength / largest ** (1 - strength)
    return torch.where((most > 0) & (largest > 0), factor.clamp(1 / _LARGEST, _LARGEST), torch.ones_like(factor))


def error(rows: torch.Tensor, weights: Sequence[torch.Tensor]) -> float:
    """Return the SQNR in dB of what layers make of some rows, with both in 8 bits; infinite if all is zero."""
    read = QuantisationScheme().parameters(rows.amin(), rows.amax()).round(rows.float()).double()
    scheme, wanted, noise = QuantisationScheme(axis=0, symmetric=True, stored=True), [], []
    for weight in weights:
        rounded = weight_parameters(scheme, weight.float(), least_error=False).round(weight.float()).double()
        wanted.append(rows @ weight.T)
        noise.append(read @ rounded.T - wanted[-1])
    return sqnr(torch.cat(wanted, 1), torch.cat(noise, 1)) if wanted else math.inf


def rescale(module: GraphModule, item: Smoothing, factor: torch.Tensor) -> None:
    """Divide what the normalisation gives by the factor of each channel, and multiply in the weights that read it."""
    for name in ("weight", "bias"):
        rewrite(module, item.norm, name, lambda value: value / factor)
    for reader in item.readers:
        rewrite(module, reader, "weight", lambda value: value * factor)
