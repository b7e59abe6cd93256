"""Weights of a codebook that no integer kernel takes: they become codes, which the floating-point kernel reads."""

from __future__ import annotations

import torch
from torch.fx import GraphModule

from lvc.compiler.ir.graph import add_tensor, arguments, calls, insert_call, replace, tensor
from lvc.compiler.ir.operators.codebook import FAKE_QUANTIZE_CODEBOOK, nearest
from lvc.compiler.ir.operators.coded_weights import BITS, DECODE, pack


def store_codes(module: GraphModule) -> None:
    """Let `lvc::decode` give, from codes, what weights simulated by a codebook stand for."""
    for node in calls(module.graph, FAKE_QUANTIZE_CODEBOOK):
        args = arguments(node)
        weight, values, scale = (tensor(module, args[name]) for name in ("self", "values", "scale"))
        if weight is None or values is None or scale is None:
            continue
        bits = next(bits for bits in BITS if len(values) <= 1 << bits)
        table = torch.cat([values, values[-1:].expand((1 << bits) - len(values))])
        codes = pack(nearest(weight.detach().reshape(scale.numel(), -1), values, scale.flatten()), bits)
        name = str(args["self"].target)
        stored = [
            add_tensor(module, node, f"{name}_{what}", value, trainable=False)
            for what, value in (("codes", codes), ("values", table), ("scale", scale))
        ]
        replace(node, insert_call(node, DECODE, *stored, bits, list(weight.shape)))
