"""The dialect: every operator that may stand in a graph, listed once.

A graph holds functional ATen calls, each with one tensor as its result. Importers bring every synonym to the spelling
listed here (`reshape` for view, flatten, squeeze and unsqueeze; `permute` for every transpose; `slice` for split,
chunk, select and unbind; the `Tensor` overload for arithmetic and comparison, where only `add`, `sub`, `mul` and
`div` take a number in place of the second tensor), so that a pass meets one case. `FIXED` names arguments that have
one value here. Operators of lvc itself are those of `lvc.compiler.ir.operators`. `Family` says what an operator does
to its operands; the tables of one concern (how to lower an op, how to count it, how to write it as ONNX) live with that
concern and are keyed by the same operators.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import torch
from torch._ops import OpOverload

from lvc.compiler.ir.operators import dynamic, functions, heatmaps, integer, ordering, regions
from lvc.compiler.ir.operators.codebook import FAKE_QUANTIZE_CODEBOOK
from lvc.compiler.ir.operators.coded_weights import DECODE
from lvc.compiler.ir.operators.uncalibrated import UNCALIBRATED

aten = torch.ops.aten


class Family(Enum):
    """What an operator does to its operands."""

    CONTRACTION = "contraction"  # multiplies and accumulates: the anchors of the big kernels
    ELEMENTWISE = "elementwise"  # one output element from the (broadcast) input elements of the same place
    MOVEMENT = "movement"  # moves or repeats elements, computes nothing
    POOLING = "pooling"  # reduces windows
    REDUCTION = "reduction"  # reduces whole dimensions
    NORMALISATION = "normalisation"  # reduces, then rescales element by element
    RESAMPLING = "resampling"  # interpolates
    ORDERING = "ordering"  # elements wait for one another
    QUANTISATION = "quantisation"  # simulates quantisation


@dataclass(frozen=True)
class Op:
    """One legal operator: its short name in printed graphs, the ATen overload, its family."""

    name: str
    overload: OpOverload
    family: Family


_SPELLINGS: dict[Family, tuple[OpOverload, ...]] = {
    Family.CONTRACTION: (
        aten.conv2d.default,
        aten.conv_transpose2d.input,
        aten.linear.default,
        aten.matmul.default,
        integer.conv2d,
        integer.linear,
        integer.matmul,
    ),
    Family.ELEMENTWISE: (
        aten.relu.default,
        aten.clamp.default,
        aten.sigmoid.default,
        aten.tanh.default,
        aten.silu.default,
        aten.hardswish.default,
        aten.hardsigmoid.default,
        aten.gelu.default,
        aten.mish.default,
        aten.softplus.default,
        aten.elu.default,
        aten.leaky_relu.default,
        aten.prelu.default,
        aten.exp.default,
        aten.log.default,
        aten.sqrt.default,
        aten.rsqrt.default,
        aten.abs.default,
        aten.neg.default,
        aten.floor.default,
        aten.ceil.default,
        aten.round.default,
        aten.sign.default,
        aten.reciprocal.default,
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
        aten.add.Tensor,
        aten.sub.Tensor,
        aten.mul.Tensor,
        aten.div.Tensor,
        aten.pow.Tensor_Tensor,
        aten.maximum.default,
        aten.minimum.default,
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
        aten.to.dtype,
        aten.dropout.default,
        integer.quantise,
        integer.dequantise,
        integer.rescale,
        integer.requantise,
        integer.add,
        integer.mul,
        integer.table,
        dynamic.quantise_rows,
        functions.sigmoid,
        functions.silu,
        functions.hardsigmoid,
        functions.hardswish,
        functions.tanh,
        functions.gelu,
        functions.elu,
        functions.mish,
    ),
    Family.MOVEMENT: (
        aten.reshape.default,
        aten.permute.default,
        aten.expand.default,
        aten.repeat.default,
        aten.cat.default,
        aten.slice.Tensor,
        aten.roll.default,
        aten.flip.default,
        aten.constant_pad_nd.default,
        aten.pad.default,
        aten.index_select.default,
        aten.gather.default,
        aten.embedding.default,
        aten.pixel_shuffle.default,
        aten.pixel_unshuffle.default,
        DECODE,
    ),
    Family.POOLING: (
        aten.max_pool2d.default,
        aten.avg_pool2d.default,
        aten.adaptive_avg_pool2d.default,
        integer.sum_pool2d,
    ),
    Family.REDUCTION: (
        aten.mean.dim,
        aten.sum.dim_IntList,
        aten.prod.dim_int,
        aten.amax.default,
        aten.amin.default,
        aten.argmax.default,
        aten.argmin.default,
        aten.cumsum.default,
        aten.linalg_vector_norm.default,
        dynamic.row_scale,
    ),
    Family.NORMALISATION: (
        aten.batch_norm.default,
        aten.layer_norm.default,
        aten.group_norm.default,
        aten.instance_norm.default,
        aten.softmax.int,
        aten.log_softmax.int,
    ),
    Family.RESAMPLING: (
        aten.upsample_nearest2d.vec,
        aten.upsample_bilinear2d.vec,
        aten.upsample_bicubic2d.vec,
        aten.grid_sampler_2d.default,
        regions.roi_align,
    ),
    Family.ORDERING: (ordering.argsort, ordering.scatter, ordering.nms, heatmaps.peaks),
    Family.QUANTISATION: (
        aten.fake_quantize_per_tensor_affine.default,
        aten.fake_quantize_per_channel_affine.default,
        FAKE_QUANTIZE_CODEBOOK,
        UNCALIBRATED,
    ),
}


def _short_name(overload: OpOverload) -> str:
    return overload._schema.name.removeprefix("aten::").replace("::", ".")


OPS: dict[OpOverload, Op] = {
    overload: Op(_short_name(overload), overload, family)
    for family, overloads in _SPELLINGS.items()
    for overload in overloads
}
BY_NAME: dict[str, Op] = {op.name: op for op in OPS.values()}
assert len(BY_NAME) == len(OPS), "two operators of the dialect share a name"

FIXED: dict[OpOverload, dict[str, object]] = {
    aten.batch_norm.default: {"training": False},
    aten.instance_norm.default: {"running_mean": None, "running_var": None, "use_input_stats": True},
    aten.dropout.default: {"train": False},
    aten.mean.dim: {"dtype": None},
    aten.sum.dim_IntList: {"dtype": None},
    aten.prod.dim_int: {"dtype": None},
    aten.cumsum.default: {"dtype": None},
    aten.linalg_vector_norm.default: {"dtype": None},
    aten.softmax.int: {"dtype": None},
    aten.log_softmax.int: {"dtype": None},
}
"""Arguments for which an operator has one value in the dialect, so that nobody who reads a graph need look at them."""
