"""Batch normalisations whose statistics are those of the values that arrive over some data.

A network whose layers were changed feeds its normalisations values of another mean and variance than they remember.
Both are set to those of the values that arrive: over all images and positions of the data, one layer after another in
graph order, each seeing what the layers before it give after their own change. That is exact for the data, whatever
the batch size of the signature (training mode would normalise by each batch alone). The variance is the unbiased one,
as in training.

Source: "Network slimming", Liu et al. 2017, and "EagleEye", Li et al. 2020, section 3.3 (adaptive batch normalisation).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.fx import Node

from lvc.compiler.ir.dialect import aten
from lvc.compiler.ir.graph import arguments, calls, store, tensor
from lvc.compiler.ir.model import Model
from lvc.compiler.pipeline.passes import Outcome
from lvc.compiler.running.images import Calibration
from lvc.compiler.running.memory import peak_activation_bytes
from lvc.compiler.running.sweep import Sweep


def recalibrate(model: Model, data: Calibration, outcome: Outcome) -> None:
    """Set the statistics of each batch normalisation to those of its input over the data."""
    sweep = Sweep(model, data.fitting(peak_activation_bytes(model)).batches)
    for node in calls(model.module.graph, aten.batch_norm.default):
        if reason := check(model, node):
            outcome.skip(node, reason)
            continue
        args = arguments(node)
        sweep.until(node)
        mean, variance = statistics(sweep.values(args["input"]))
        for name, value in (("running_mean", mean), ("running_var", variance)):
            old = tensor(model.module, args[name])
            assert old is not None
            trainable = isinstance(old, torch.nn.Parameter)
            store(model.module, str(args[name].target), value.to(old.dtype), trainable=trainable)
        outcome.change(node)


def check(model: Model, node: Node) -> str | None:
    """Why the statistics of a normalisation stay as they are; None if they can be estimated."""
    args = arguments(node)
    if args["training"]:
        return "it runs in training mode, so its statistics are those of the batch"
    for name in ("running_mean", "running_var"):
        if tensor(model.module, args[name]) is None:
            return "its statistics are computed in the graph"
        if len(args[name].users) > 1:
            return f"its statistics are shared by {len(args[name].users)} calls"
    return None


def statistics(values: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return mean and unbiased variance over all but the channels, dimension 1; both ``f64[channels]``.

    One value at a time is there in double precision.
    """
    count = sum(value.numel() // value.shape[1] for value in values)
    mean = sum((_rows(value).sum(1) for value in values), torch.zeros(())) / count
    squares = sum(((_rows(value) - mean[:, None]).square().sum(1) for value in values), torch.zeros(()))
    return mean, squares / max(1, count - 1)


def _rows(value: torch.Tensor) -> torch.Tensor:
    return value.double().movedim(1, 0).flatten(1)
