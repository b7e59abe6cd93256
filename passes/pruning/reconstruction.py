"""After a removal, give the layers that lost inputs the weights that best restore what they gave before."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.fx import Node

from lvc.compiler.dialect import aten
from lvc.compiler.graph import add_tensor, arguments, is_call, set_argument, spec, store, tensor
from lvc.compiler.inspection import peak_activation_bytes
from lvc.compiler.model import Model
from lvc.compiler.passes import Outcome
from lvc.passes.analysis.calibration import Calibration
from lvc.passes.analysis.channels.proof import Kept
from lvc.passes.analysis.layer_rows import input_rows, output_rows, positions
from lvc.passes.analysis.sweep import Sweep
from lvc.passes.pruning.edges import channel_dim
from lvc.passes.pruning.least_squares import Moments, solve
from lvc.passes.pruning.readers import check_layer, rows_wanted


def reconstruct(before: Model, after: Model, kept: Kept, data: Calibration, outcome: Outcome) -> None:
    """Fit each layer of ``after`` that lost inputs to what it gave in ``before``, and say how many were fitted.

    As much of the data is used as fits into memory. ``kept`` says which indices of each value stayed, see
    `Channels.kept`.

    Layers are taken in graph order, each seeing what the fitted layers before it give, so that a layer also makes up
    for what those could not.
    """
    bytes_of_a_batch = peak_activation_bytes(before) + peak_activation_bytes(after)
    used = data.fitting(bytes_of_a_batch)
    old, new = Sweep(before, used.inputs), Sweep(after, used.inputs)
    known = {node.name: node for node in before.module.graph.nodes}
    generator = torch.Generator().manual_seed(0)
    fitted = 0
    for layer in _narrowed(after, kept):
        if reason := check_layer(layer):
            outcome.skip(layer, f"not reconstructed: {reason}")
            continue
        stays = kept[layer.name][channel_dim(layer)]
        wanted = old.past(known[layer.name])
        new.until(layer)
        moments = _moments(layer, new.values(layer.args[0]), wanted, stays, generator)  # type: ignore[arg-type]
        _fit(after, layer, moments)
        fitted += 1
    outcome.notes.append(f"{fitted} layers reconstructed on {used.different} images")


def _narrowed(model: Model, kept: Kept) -> list[Node]:
    """Return the layers whose weight lost inputs."""
    layers = [n for n in model.module.graph.nodes if is_call(n, aten.conv2d.default, aten.linear.default)]
    return [n for n in layers if n.args[1].op == "get_attr" and kept[n.args[1].name][1] is not None]


def _moments(
    layer: Node,
    values: Sequence[torch.Tensor],
    wanted: Sequence[torch.Tensor],
    stays: torch.Tensor | None,
    generator: torch.Generator,
) -> list[Moments]:
    """Gather what each group of channels of a layer reads, and what it shall give."""
    groups = arguments(layer)["groups"] if is_call(layer, aten.conv2d.default) else 1
    found: list[Moments] = []
    for value, target in zip(values, wanted, strict=True):
        at = positions(target, layer, rows_wanted(layer, len(values)), generator)
        rows, goal = input_rows(value, layer, target.shape, at), output_rows(target, layer, at)
        goal = goal if stays is None else goal[:, stays]
        pairs = list(zip(rows.chunk(groups, 1), goal.chunk(groups, 1), strict=True))
        found = found or [Moments.empty(x.shape[1], y.shape[1]) for x, y in pairs]
        for sums, (x, y) in zip(found, pairs, strict=True):
            sums.add(x, y)
    return found


def _fit(model: Model, layer: Node, moments: Sequence[Moments]) -> None:
    weight = tensor(model.module, arguments(layer)["weight"])
    assert weight is not None
    starts = weight.detach().flatten(1).double().chunk(len(moments))
    parts = [solve(sums, start) for sums, start in zip(moments, starts, strict=True)]
    _store(model, layer, torch.cat([part for part, _ in parts]), torch.cat([bias for _, bias in parts]))


def _store(model: Model, layer: Node, weight: torch.Tensor, bias: torch.Tensor) -> None:
    args = arguments(layer)
    known = spec(args["weight"])
    store(model.module, str(args["weight"].target), weight.view(known.shape).to(known.dtype))
    old = args["bias"]
    if old is not None and old.op == "get_attr" and len(old.users) == 1:
        store(model.module, str(old.target), bias.to(spec(old).dtype))
        return
    hint = str(args["weight"].target).removesuffix("weight") + "bias"
    set_argument(layer, "bias", add_tensor(model.module, layer, hint, bias.to(known.dtype)))
