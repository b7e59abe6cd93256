"""Operators that stay in floating point where layers run in integers, each with the reason."""

from __future__ import annotations

from torch._ops import OpOverload

from lvc.compiler.ir.dialect import aten
from lvc.compiler.ir.layers import INTEGER_LAYERS, LAYERS
from lvc.compiler.ir.operators import heatmaps, ordering, regions

_REASONS: dict[str, tuple[OpOverload, ...]] = {
    "none is written": (
        *(layer for layer in LAYERS if layer not in INTEGER_LAYERS),
        aten.softplus.default,
        aten.prelu.default,
        aten.abs.default,
        aten.neg.default,
        aten.erf.default,
        aten.sin.default,
        aten.cos.default,
        aten.tan.default,
        aten.asin.default,
        aten.acos.default,
        aten.atan.default,
        aten.sinh.default,
        aten.cosh.default,
        aten.asinh.default,
        aten.acosh.default,
        aten.atanh.default,
        aten.sub.Tensor,
        aten.maximum.default,
        aten.minimum.default,
        aten.amax.default,
        aten.amin.default,
        aten.pad.default,
        aten.index_select.default,
        aten.gather.default,
        aten.embedding.default,
        aten.upsample_bilinear2d.vec,
        aten.upsample_bicubic2d.vec,
    ),
    "its values may lie many orders of magnitude apart": (
        aten.exp.default,
        aten.log.default,
        aten.sqrt.default,
        aten.rsqrt.default,
        aten.reciprocal.default,
        aten.div.Tensor,
        aten.pow.Tensor_Tensor,
        aten.sum.dim_IntList,
        aten.prod.dim_int,
        aten.cumsum.default,
        aten.linalg_vector_norm.default,
        aten.softmax.int,
        aten.log_softmax.int,
    ),
    "a small change of its operand may change its result by a whole step": (
        aten.floor.default,
        aten.ceil.default,
        aten.round.default,
        aten.sign.default,
        aten.remainder.Tensor,
        aten.fmod.Tensor,
        aten.eq.Tensor,
        aten.ne.Tensor,
        aten.lt.Tensor,
        aten.le.Tensor,
        aten.gt.Tensor,
        aten.ge.Tensor,
        aten.logical_and.default,
        aten.logical_or.default,
        aten.logical_xor.default,
        aten.logical_not.default,
        aten.isnan.default,
        aten.isinf.default,
        aten.where.self,
        aten.argmax.default,
        aten.argmin.default,
        ordering.argsort,
        ordering.nms,
        heatmaps.peaks,
    ),
    "what it writes goes to places that are computed": (ordering.scatter,),
    "it divides by what it finds in its operand": (
        aten.layer_norm.default,
        aten.group_norm.default,
        aten.instance_norm.default,
    ),
    "fold-batch-norm makes it a part of the layer before it": (aten.batch_norm.default,),
    "eliminate-identities removes it": (aten.dropout.default,),
    "it converts to an element type that the model chose": (aten.to.dtype,),
    "it reads an image at computed places, and 8 bits are too coarse for those": (
        aten.grid_sampler_2d.default,
        regions.roi_align,
    ),
}

FLOATING_POINT: dict[OpOverload, str] = {overload: why for why, overloads in _REASONS.items() for overload in overloads}
"""Why there is no integer kernel for an operator."""
