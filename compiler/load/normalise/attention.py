"""Scaled dot product attention as the four steps that it is."""

from __future__ import annotations

import math

import torch
from torch._ops import OpOverload

from lvc.compiler.load.normalise.arithmetic import add, mul, where
from lvc.compiler.load.normalise.builder import Builder, Operand, Rule, Unsupported
from lvc.compiler.load.normalise.contraction import matmul
from lvc.compiler.load.normalise.movement import permute, reshape

aten = torch.ops.aten


def attention(
    b: Builder,
    query: Operand,
    key: Operand,
    value: Operand,
    attn_mask: Operand | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Operand:
    """``softmax(query key^T * scale + mask) value``, with ``scale`` one over the root of the head's width."""
    if dropout_p:
        raise Unsupported("it draws random numbers, though the model is in evaluation mode")
    if enable_gqa and query.shape[-3] != key.shape[-3]:
        raise Unsupported("heads share keys")
    scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    order = [*range(key.rank - 2), key.rank - 1, key.rank - 2]
    scores = matmul(b, mul(b, query, scale), permute(b, key, order))
    if is_causal:
        attn_mask = b.constant(torch.ones(scores.shape[-2:], dtype=torch.bool).tril())
    if attn_mask is not None:
        masked = attn_mask.dtype is torch.bool
        scores = where(b, attn_mask, scores, -math.inf) if masked else add(b, scores, attn_mask)
    weights = b.call(aten.softmax.int, scores, scores.rank - 1)
    if attn_mask is not None and (empty := _empty_rows(b, attn_mask)):
        weights = where(b, empty, 0.0, weights)
    return matmul(b, weights, value)


def _empty_rows(b: Builder, mask: Operand) -> Operand | None:
    """Where a row of a mask leaves out every key, so that it attends to none; None if that is known to be nowhere."""
    if mask.rank == 0:
        mask = reshape(b, mask, (1,))
    if mask.dtype is torch.bool:
        empty = b.call(aten.logical_not.default, b.call(aten.amax.default, mask, [mask.rank - 1], True))
    else:
        largest = b.call(aten.amax.default, mask, [mask.rank - 1], True)
        empty = b.call(aten.eq.Tensor, largest, b.number(-math.inf, largest.dtype))
    return None if empty.value is not None and not empty.value.any() else empty


def _attention_on_cpu(
    b: Builder,
    query: Operand,
    key: Operand,
    value: Operand,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    attn_mask: Operand | None = None,
    scale: float | None = None,
) -> tuple[Operand, ...]:
    return (attention(b, query, key, value, attn_mask, dropout_p, is_causal, scale=scale),)


ATTENTION: dict[OpOverload, Rule] = {
    aten.scaled_dot_product_attention.default: attention,
    aten._scaled_dot_product_flash_attention_for_cpu.default: _attention_on_cpu,
}
