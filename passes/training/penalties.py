"""Terms of the loss that depend on the weights alone, and push towards models that compress well."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.fx import Node

from lvc.compiler.errors import UsageError
from lvc.compiler.ir.dialect import aten
from lvc.compiler.ir.graph import arguments, calls
from lvc.compiler.ir.layers import LAYERS, weight_node
from lvc.compiler.ir.model import Model
from lvc.passes.analysis.channel_groups import ChannelGroup, channel_groups
from lvc.passes.training.form import TrainingForm
from lvc.passes.training.optimisation import Penalty

_TINY = 1e-12  # below the square of any weight that counts; the norm has a derivative at zero too


@dataclass(frozen=True, kw_only=True)
class Penalties:
    """Factors of the penalties; 0 leaves one out.

    ``slimming``: the sum of ``|scale|`` over all batch normalisations (Liu et al., "Learning efficient convolutional
    networks through network slimming", 2017). ``group_lasso``: the sum over the channels of all groups of the norm of
    what makes them (Wen et al., "Learning structured sparsity in deep neural networks", 2016; groups as removal knows
    them). ``l1``: the sum of ``|weight|`` over all layers.
    """

    slimming: float = 0.0
    group_lasso: float = 0.0
    l1: float = 0.0

    def of(self, model: Model, form: TrainingForm) -> list[Penalty]:
        """Return the penalties of a model; `UsageError` for one that has nothing to work on."""
        found: list[Penalty] = []
        if self.slimming:
            found.append(_slimming(model, form, self.slimming))
        if self.group_lasso:
            found.append(_group_lasso(model, form, self.group_lasso))
        if self.l1:
            found.append(_l1(model, form, self.l1))
        return found


def _slimming(model: Model, form: TrainingForm, factor: float) -> Penalty:
    nodes = [arguments(node)["weight"] for node in calls(model.module.graph, aten.batch_norm.default)]
    scales = _trained(nodes, form)
    if not scales:
        raise UsageError(
            "slimming= finds no batch normalisation with scales", help="leave out what folds them before, or slimming="
        )
    return lambda: factor * torch.stack([scale.abs().sum() for scale in scales]).sum()


def _l1(model: Model, form: TrainingForm, factor: float) -> Penalty:
    weights = _trained([weight_node(layer) for layer in calls(model.module.graph, *LAYERS)], form)
    return lambda: factor * torch.stack([weight.abs().sum() for weight in weights]).sum()


def _group_lasso(model: Model, form: TrainingForm, factor: float) -> Penalty:
    groups = channel_groups(model).free
    if not groups:
        raise UsageError("group_lasso= finds no group of channels that may shrink", help="leave it out")
    return lambda: factor * torch.stack([_norms(form, group).sum() for group in groups]).sum()


def _norms(form: TrainingForm, group: ChannelGroup) -> torch.Tensor:
    """The norm of the weights that make each of a group's units, ``f32[group.size]``."""
    squares = torch.zeros(group.size)
    for member in group.producers:
        if member.tensor in form.trained:
            belongs = member.units >= 0
            rows = form.trained[member.tensor].movedim(member.dim, 0).flatten(1)[belongs]
            squares = squares.index_add(0, member.units[belongs].to(rows.device), rows.square().sum(1))
    return (squares + _TINY).sqrt()


def _trained(nodes: list[Node], form: TrainingForm) -> list[torch.nn.Parameter]:
    names = dict.fromkeys(str(node.target) for node in nodes if node is not None and node.op == "get_attr")
    return [form.trained[name] for name in names if name in form.trained]
