"""Calls of the ATen overloads that become many calls: recurrent layers, and interpolation by matrices."""

from __future__ import annotations

import torch
from drawing import FLOATS, Arguments, Draw, Drawn
from torch import Tensor
from torch._ops import OpOverload

aten = torch.ops.aten


def _recurrent(gates: int, states: int) -> Drawn:
    def draw(d: Draw) -> Arguments:
        layers, directions, biased = d.number(1, 2), d.number(1, 2), d.flag()
        features, hidden, steps, batch = (d.number(1, 3) for _ in range(4))
        batched, first = d.flag(), d.flag()
        shape = [steps, features] if not batched else [batch, steps, features] if first else [steps, batch, features]
        x = d.tensor(shape, FLOATS)
        narrow = d.pick(0, hidden - 1) if states == 2 else 0

        def stored(*sizes: int) -> Tensor:
            return d.tensor(sizes, [x.dtype], -1, 1)

        weights = []
        for layer in range(layers):
            width = (narrow or hidden) * directions if layer else features
            for _ in range(directions):
                weights += [stored(gates * hidden, width), stored(gates * hidden, narrow or hidden)]
                weights += [stored(gates * hidden), stored(gates * hidden)] if biased else []
                weights += [stored(narrow, hidden)] if narrow else []
        lead = [layers * directions, batch] if batched else [layers * directions]
        start = [stored(*lead, narrow or hidden), stored(*lead, hidden)]
        return {
            "input": x,
            "hx": start if states == 2 else start[1],
            "params": weights,
            "has_biases": biased,
            "num_layers": layers,
            "dropout": 0.0,
            "train": False,
            "bidirectional": directions == 2,
            "batch_first": batched and first,
        }

    return draw


RECURRENT: dict[OpOverload, Drawn] = {
    aten.lstm.input: _recurrent(4, 2),
    aten.gru.input: _recurrent(3, 1),
    aten.rnn_tanh.input: _recurrent(1, 1),
    aten.rnn_relu.input: _recurrent(1, 1),
}


def _sample_volume(d: Draw) -> Arguments:
    x = d.tensor((d.number(1, 2), d.number(1, 3), *[d.number(1, 5) for _ in range(3)]), FLOATS)
    grid = d.tensor((len(x), *[d.number(1, 3) for _ in range(3)], 3), [x.dtype])
    modes = {"interpolation_mode": d.number(0, 1), "padding_mode": d.number(0, 2), "align_corners": d.flag()}
    return {"input": x, "grid": grid, **modes}


SAMPLED: dict[OpOverload, Drawn] = {aten.grid_sampler_3d.default: _sample_volume}

_SCALES: dict[int, tuple[str, ...]] = {
    1: ("scales",),
    2: ("scales_h", "scales_w"),
    3: ("scales_d", "scales_h", "scales_w"),
}


def _resize(rank: int, *, corners: bool, by_list: bool, least: int = 1) -> Drawn:
    """An output size, and factors that lead to it or are left out; either of both where the operator takes a list.

    ``least`` keeps images from being one pixel wide, of which PyTorch's antialiasing makes what its own definition
    does not say.
    """

    def draw(d: Draw) -> Arguments:
        x = d.tensor((d.number(1, 2), d.number(1, 3), *[d.number(least, 6) for _ in range(rank)]), FLOATS)
        factors = [d.pick(1.0, 2.0, 1.7, 0.5 * least, d.real(0.5 * least, 3)) for _ in range(rank)]
        size = [max(least, int(have * factor)) for have, factor in zip(x.shape[2:], factors, strict=True)]
        flags = {"align_corners": d.flag()} if corners else {}
        if not by_list:
            scales = dict(zip(_SCALES[rank], factors, strict=True)) if d.flag() else {}
            return {"self": x, "output_size": size, **flags, **scales}
        factors = [factor if have * factor >= 1 else 1.0 for have, factor in zip(x.shape[2:], factors, strict=True)]
        by_size = d.flag()
        chosen = {"output_size": size if by_size else None, **flags, "scale_factors": None if by_size else factors}
        return {"input": x, **chosen}

    return draw


def _forms(packet: object, rank: int, *, corners: bool, least: int = 1) -> dict[OpOverload, Drawn]:
    options = {"corners": corners, "least": least}
    forms = {"default": False, "vec": True}
    return {getattr(packet, form): _resize(rank, by_list=by_list, **options) for form, by_list in forms.items()}


SEPARABLE: dict[OpOverload, Drawn] = {
    **_forms(aten._upsample_bilinear2d_aa, 2, corners=True, least=2),
    **_forms(aten._upsample_bicubic2d_aa, 2, corners=True, least=2),
    **_forms(aten.upsample_trilinear3d, 3, corners=True),
    aten.upsample_linear1d.default: _resize(1, corners=True, by_list=False),
    **_forms(aten.upsample_nearest1d, 1, corners=False),
    **_forms(aten.upsample_nearest3d, 3, corners=False),
    **_forms(aten._upsample_nearest_exact1d, 1, corners=False),
    **_forms(aten._upsample_nearest_exact2d, 2, corners=False),
    **_forms(aten._upsample_nearest_exact3d, 3, corners=False),
}
