"""Scale channels so that all of them use the range that they share, and scale them back in the weights that read them.

For a layer ``W1``, an activation ``f`` with ``f(s x) = s f(x)``, and the layers ``W2`` that read it, with a positive
``s`` for each channel between them::

    W2 f(W1 x + b) = (W2 / s) f((s W1) x + s b)

By weights: ``s = sqrt(r2 / r1)`` with the ranges of the weights of a channel on both sides, so that both become the
same (Nagel et al. 2019, "Data-free quantization through weight equalization and bias correction", section 4.1).

By activations: ``s = (m / m_i)^strength``, with the greatest magnitude ``m_i`` of channel i and ``m`` of all of them on
calibration data. Where weights have a scale for each output channel, as they do here unless told otherwise, it is the
activations that suffer from uneven channels. (Xiao et al. 2023, "SmoothQuant", section 4, for the balance of strength.)
A channel that is limited, as by ReLU6, is scaled up no further than to the limit, so what the data never reaches is
cut off where the range of this channel alone would end. Layers that read each channel on its own have a scale for it in
their weights, so there nothing has to be balanced, and the strength is 1.

What a scale gains is judged on every other batch, with the ranges of the rest: where the layers that read would lose
by it, a channel cut off on other images for one, the chain stays as it is (`lvc.passes.quantisation.channel_scaling`).

Where ``f`` does not scale with its input, as SiLU, a multiplication behind it does: ``W2 f(x) = (W2 / s) (s f(x))``. It
becomes a part of the kernel before it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal

import torch
from torch.fx import GraphModule, Node

from lvc.compiler.errors import UsageError
from lvc.compiler.ir.dialect import aten
from lvc.compiler.ir.graph import add_tensor, arguments, insert_call, origin, spec
from lvc.compiler.ir.model import Model
from lvc.compiler.measure.comparison.verdict import REMEDY
from lvc.compiler.pipeline.passes import Effect, Outcome, Pass, option
from lvc.compiler.pipeline.workspace import Workspace
from lvc.compiler.running.images import stream
from lvc.passes.analysis.affine import scale_inputs, scale_outputs
from lvc.passes.quantisation.chains import Chain, chains
from lvc.passes.quantisation.channel_scaling import Channels, by_input, noise
from lvc.passes.quantisation.operands import rewrite, stored_operand

_LARGEST = 64.0
_ROUNDS = 4


@dataclass(frozen=True, kw_only=True)
class EqualiseWeights(Pass):
    """Even out the ranges of channels between layers; put it before insert-fake-quant."""

    name: ClassVar[str] = "equalise-weights"
    effect: ClassVar[Effect] = Effect.LOSSY
    remedy: ClassVar[str] = REMEDY
    idempotent: ClassVar[bool] = False

    by: Literal["weights", "activations"] = option("activations", "whose ranges become even")
    strength: float = option(
        0.5, "by activations: 0 leaves them as they are, 1 makes them equal; 1 always where depthwise layers read them"
    )
    data: str = option("calib", "by activations: the data set, as named by --data NAME=PATH")
    images: int = option(64, "by activations: look at no more than so many images")
    always: bool = option(False, "by activations: also where other images speak against it")

    def __post_init__(self) -> None:
        if not 0 < self.strength <= 1:
            raise UsageError(f"strength must be above 0 and at most 1, not {self.strength}")
        if self.images < 1:
            raise UsageError(f"images must be at least 1, not {self.images}")

    def apply(self, model: Model, workspace: Workspace) -> Outcome:
        outcome = Outcome()
        found: list[Chain] = []
        for item in chains(model.module.graph):
            if isinstance(item, Chain):
                found.append(item)
            else:
                outcome.skip(*item)
        if self.by == "weights":
            self.by_weights(model.module, found, outcome)
        elif found:
            looked = self.look(model, workspace, found)
            ranges = {chain: looked.ranges(chain.value) for chain in found}
            before = unevenness(ranges)
            scales = {chain: self.activation_scale(chain, ranges[chain]) for chain in found}
            for chain in found:
                if self.is_worse(model.module, chain, looked):
                    outcome.skip(
                        chain.first, "on the images kept for judging, the layers that read it would lose by it"
                    )
                    scales[chain] = torch.ones_like(ranges[chain])
                    continue
                rescale(model.module, chain, scales[chain])
                outcome.change(chain.first)
            after = unevenness({chain: ranges[chain] * scales[chain] for chain in found})
            outcome.notes.append(
                f"the range of a tensor is {before:.1f} times that of its typical channel, now {after:.1f}"
            )
        return outcome

    def by_weights(self, module: GraphModule, found: list[Chain], outcome: Outcome) -> None:
        """Equalise all chains a few times over: one chain's second layer is the first of the next."""
        free = [chain for chain in found if chain.limit is None and not chain.is_curved]
        for chain in found:
            if chain.is_curved:
                outcome.skip(chain.first, "it does not scale with its input")
            elif chain.limit is not None:
                outcome.skip(chain.first, f"values after it are limited to {chain.limit:g}, which the scale would move")
        for _ in range(_ROUNDS):
            for chain in free:
                rescale(module, chain, weight_scale(module, chain))
        for chain in free:
            outcome.change(chain.first)

    def activation_scale(self, chain: Chain, ranges: torch.Tensor) -> torch.Tensor:
        most = float(ranges.max())
        if not most:
            return torch.ones_like(ranges)
        scale: torch.Tensor = most / ranges.clamp(min=most / _LARGEST)
        return scale if chain.is_depthwise else scale**self.strength

    def look(self, model: Model, workspace: Workspace, found: list[Chain]) -> Channels:
        """Run the data through the model."""
        looking = Channels(model, {chain.value for chain in found})
        for batch in stream(model, workspace, self.data, self.images, "looking at channels"):
            looking.run(batch)
        return looking

    def is_worse(self, module: GraphModule, chain: Chain, looked: Channels) -> bool:
        """Whether the scale by one half of the data does no good on the other."""
        if self.always or looked.inputs < 2:
            return False
        scale = self.activation_scale(chain, looked.ranges_seen(chain.value))
        return noise(module, chain, looked, scale) >= noise(module, chain, looked, torch.ones_like(scale))


def weight_scale(module: GraphModule, chain: Chain) -> torch.Tensor:
    """Return the scale that makes the weights of each channel equally large before and behind it."""
    ones = torch.ones(spec(chain.first).shape[1], dtype=torch.float64)
    before = stored_operand(module, chain.first, "weight").flatten(1).abs().amax(1)
    weights = [stored_operand(module, reader, "weight") for reader in chain.readers]
    behind = torch.stack([by_input(weight, len(ones)).abs().amax(1) for weight in weights]).amax(0)
    scale = (behind / before).sqrt()
    return torch.where((before > 0) & (behind > 0), scale.clamp(1 / _LARGEST, _LARGEST), ones)


def rescale(module: GraphModule, chain: Chain, scale: torch.Tensor) -> None:
    """Multiply each channel where the chain begins by its scale, and divide in the layers that read it."""
    if chain.is_curved:
        multiply(module, chain.first, scale)
    else:
        rewrite(module, chain.first, "weight", lambda weight: scale_outputs(chain.first, weight, scale))
        if arguments(chain.first)["bias"] is not None:
            rewrite(module, chain.first, "bias", lambda bias: bias * scale)
    for reader in chain.readers:
        rewrite(module, reader, "weight", partial(scale_inputs, reader, scale=1 / scale))


def multiply(module: GraphModule, value: Node, scale: torch.Tensor) -> None:
    """Let all who read a value read it with each channel multiplied by its scale."""
    factor = scale.to(spec(value).dtype).reshape(1, -1, *[1] * (len(spec(value).shape) - 2))
    stored = add_tensor(module, value.next, f"{value.name}_factor", factor)
    scaled = insert_call(stored.next, aten.mul.Tensor, value, stored, origin=origin(value))
    value.replace_all_uses_with(scaled, lambda user: user is not scaled)


def unevenness(ranges: dict[Chain, torch.Tensor]) -> float:
    """Return how many times larger the greatest range of a value is than its median one, as a geometric mean."""
    shares = [r.max() / r.median() for r in ranges.values() if r.median() > 0]
    return float(torch.stack(shares).log().mean().exp()) if shares else 1.0
