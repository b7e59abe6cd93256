"""Fake quantisation of weights by a codebook, with integers for values wherever that is possible.

Then an integer kernel multiplies by the values, whatever lies between them.
"""

from __future__ import annotations

import torch
from torch.fx import GraphModule, Node

from lvc.compiler.ir.graph import add_tensor
from lvc.compiler.ir.operators.codebook import FAKE_QUANTIZE_CODEBOOK
from lvc.compiler.ir.operators.uncalibrated import UNCALIBRATED
from lvc.passes.quantisation.quantisation_parameters import QuantisationScheme
from lvc.passes.quantisation.weight_format import WEIGHT_FORMATS, Codebook, grouped


def weight_codebook(scheme: QuantisationScheme, weight: torch.Tensor) -> Codebook:
    """Return the codebook for a weight ``[O, ...]``; the scale is ``f32[O, groups]``."""
    rows = weight.detach().float().reshape(1, -1) if scheme.axis is None else grouped(weight, scheme.channels)
    codebook = WEIGHT_FORMATS.parse(scheme.scale).fit(rows, scheme.bits).as_integers()
    scale = codebook.scale.expand(len(weight)) if scheme.axis is None else codebook.scale
    return Codebook(codebook.values, scale.reshape(len(weight), -1).contiguous())


def replace_by_codebook(module: GraphModule, place: Node, codebook: Codebook) -> None:
    """Put the fake quantisation by a codebook in the stead of a `lvc::uncalibrated` call, under its name."""
    assert place.target is UNCALIBRATED
    values = add_tensor(module, place, f"{place.name}_values", codebook.values, trainable=False)
    scale = add_tensor(module, place, f"{place.name}_scale", codebook.scale, trainable=False)
    place.args = (place.args[0], values, scale)
    place.target = FAKE_QUANTIZE_CODEBOOK
