"""How parameters follow their gradients: the optimiser, its penalties and averages."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch

from lvc.passes.training.schedule import Schedule

Penalty = Callable[[], torch.Tensor]
"""Returns a term of the loss that depends on the parameters alone."""

OPTIMISERS = {"sgd": 0.01, "adamw": 1e-4}
"""The optimisers by name, and their learning rates unless one is given."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What says how parameters are changed; the options of `TrainingPass` say what each means."""

    optimiser: str
    rate: float
    momentum: float
    nesterov: bool
    weight_decay: float
    clip: float


@dataclass
class Optimisation:
    """An optimiser of parameters by name, whose learning rate follows a schedule."""

    parameters: Mapping[str, torch.nn.Parameter]
    settings: Settings
    schedule: Schedule
    penalties: Sequence[Penalty] = ()
    optimiser: torch.optim.Optimizer = field(init=False)

    def __post_init__(self) -> None:
        """Weights decay; biases, and scales and shifts of normalisations, which have one dimension, do not."""
        weights = [value for value in self.parameters.values() if value.ndim > 1]
        others = [value for value in self.parameters.values() if value.ndim <= 1]
        kept = [(weights, self.settings.weight_decay), (others, 0.0)]
        groups = [{"params": values, "weight_decay": decay} for values, decay in kept if values]
        if self.settings.optimiser == "sgd":
            nesterov = self.settings.nesterov and self.settings.momentum > 0
            self.optimiser = torch.optim.SGD(
                groups, lr=self.settings.rate, momentum=self.settings.momentum, nesterov=nesterov
            )
        else:
            self.optimiser = torch.optim.AdamW(groups, lr=self.settings.rate)

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        return self.settings.rate * self.schedule(step)

    def step(self, step: int) -> None:
        """Change the parameters by the gradients that they have, and clear these."""
        if self.penalties:
            torch.stack([penalty() for penalty in self.penalties]).sum().backward()  # type: ignore[no-untyped-call]
        if self.settings.clip:
            torch.nn.utils.clip_grad_norm_(list(self.parameters.values()), self.settings.clip)
        for group in self.optimiser.param_groups:
            group["lr"] = self.rate(step)
        self.optimiser.step()
        self.optimiser.zero_grad()

    def state(self) -> dict[str, torch.Tensor]:
        """What the optimiser remembers, by ``parameter/name``."""
        return {
            f"{name}/{key}": value
            for name, parameter in self.parameters.items()
            for key, value in self.optimiser.state[parameter].items()
            if isinstance(value, torch.Tensor)
        }

    def load(self, state: Mapping[str, torch.Tensor]) -> None:
        """Remember what was remembered."""
        for path, value in state.items():
            name, _, key = path.rpartition("/")
            parameter = self.parameters[name]
            kept = value.clone()
            if kept.shape == parameter.shape:
                kept = torch.empty_like(parameter).copy_(kept)  # in the memory format of the parameter
            self.optimiser.state[parameter][key] = kept


class Average:
    """An exponential moving average of tensors: Polyak and Juditsky, 1992. It forgets faster while it is young."""

    def __init__(self, tensors: Mapping[str, torch.Tensor], decay: float) -> None:
        self._tensors, self._decay = tensors, decay
        self.values = copies(tensors)

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the tensors as they are after a step, counted from 0."""
        share = 1 - min(self._decay, (1 + step) / (10 + step))
        for name, value in self.values.items():
            value.lerp_(self._tensors[name], share)


def copies(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Tensors of their own with the values of others as they are now."""
    return {name: value.detach().clone() for name, value in tensors.items()}
