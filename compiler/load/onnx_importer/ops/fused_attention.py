"""Attention as ONNX Runtime's optimisers write it, opened up into products of matrices.

Source: the "com.microsoft" domain of ONNX Runtime, docs/ContribOperators.md.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lvc.compiler.load.onnx_importer.call import Call, converts
from lvc.compiler.load.onnx_importer.rules import by_meaning
from lvc.compiler.load.onnx_importer.values import Unsupported, Value

_MASKED = -10000.0


@converts("com.microsoft.Attention")
def attention(call: Call) -> list[Value]:
    """Input (batch, length, width), weights and bias of queries, keys and values side by side."""
    _refuse(call, {4: "past keys and values", 6: "past keys and values"})
    heads = int(call.attribute("num_heads"))
    _, length, _ = call.shape()
    all_of_them = call.shape(1)[1]
    widths = [int(n) for n in call.attribute("qkv_hidden_sizes") or (all_of_them // 3,) * 3]
    if len(widths) != 3 or sum(widths) != all_of_them or any(width % heads for width in widths):
        raise ValueError(f"weights of {all_of_them} columns are not {heads} heads of queries, keys and values {widths}")
    if call.attribute("do_rotary", 0):
        raise Unsupported("turns queries and keys by their places")
    form = _Form.read(call, 3, length)

    def attend(x: Tensor, weight: Tensor, *given: Tensor | None) -> Tensor:
        bias, kept, added = given
        found = x @ weight
        parts = torch.split(found if bias is None else found + bias, widths, -1)
        return form.of([_heads(part, heads) for part in parts], kept, added)

    made: Value = by_meaning(call, attend, call[0], call[1], call.get(2), call.get(3), call.get(5))
    return [made]


@converts("com.microsoft.MultiHeadAttention")
def multi_head_attention(call: Call) -> list[Value]:
    """Query, key and value (batch, length, width); keys and values may be (batch, heads, length, width)."""
    _refuse(call, {6: "past keys and values", 7: "past keys and values", 8: "past keys and values"})
    heads = int(call.attribute("num_heads"))
    if call.get(1) is None or call.get(2) is None or call.rank() != 3:
        raise Unsupported("has its queries, keys and values packed by heads")
    is_apart = call.rank(1) == 4
    if is_apart and call.get(3) is not None:
        raise Unsupported("has a bias, and keys that are divided by heads already")
    form = _Form.read(call, 4, call.shape(1)[2 if is_apart else 1])

    def attend(query: Tensor, key: Tensor, value: Tensor, *given: Tensor | None) -> Tensor:
        bias, kept, added = given
        parts = [query, key, value]
        if bias is not None:
            parts = [x + part for x, part in zip(parts, torch.split(bias, [x.shape[-1] for x in parts]), strict=True)]
        return form.of([part if part.dim() == 4 else _heads(part, heads) for part in parts], kept, added)

    made: Value = by_meaning(call, attend, call[0], *(call.get(place) for place in (1, 2, 3, 4, 5)))
    return [made]


def _refuse(call: Call, places: dict[int, str]) -> None:
    for place, what in places.items():
        if call.get(place) is not None:
            raise Unsupported(f"is given {what}")
    if call.reads(1) or call.reads(2) or call.reads(3):
        raise Unsupported("is asked for its keys, values or scores")


def _heads(x: Tensor, heads: int) -> Tensor:
    """``(batch, length, width)`` as ``(batch, heads, length, width of one)``."""
    return x.reshape(x.shape[0], x.shape[1], heads, -1).transpose(1, 2)


@dataclass(frozen=True)
class _Form:
    """How scores are made: what they are scaled by, ``axes`` of the mask that says by ones and zeros which keys count,
    what is added where one does not, and whether those behind a query's own place do not."""

    scale: float | None
    axes: int
    masked: float
    is_causal: bool

    @classmethod
    def read(cls, call: Call, place: int, keys: int) -> _Form:
        """Of a node whose mask is the operand at a place; `Unsupported` for a mask that holds lengths."""
        shape = call.shape(place) if call.get(place) is not None else ()
        if shape and (len(shape) not in (2, 3) or shape[-1] != keys):
            raise Unsupported(f"has a mask of shape {list(shape)}, which holds lengths or is of another form")
        scale, masked = call.attribute("scale", 0.0), call.attribute("mask_filter_value", _MASKED)
        return cls(float(scale) or None, len(shape), float(masked), bool(call.attribute("unidirectional", 0)))

    def of(self, parts: Sequence[Tensor], kept: Tensor | None, added: Tensor | None) -> Tensor:
        """Softmax of the scores of queries and keys, times the values, ``(batch, length, width of all heads)``."""
        query, key, value = parts
        scale = 1 / math.sqrt(query.shape[-1]) if self.scale is None else self.scale
        scores = (query * scale) @ key.transpose(-1, -2)
        if kept is not None:
            spread = kept[:, None, None] if self.axes == 2 else kept[:, None]
            scores = scores + (spread <= 0).to(scores.dtype) * self.masked
        if self.is_causal:
            rows, columns = scores.shape[-2:]
            scores = scores + torch.ones(rows, columns).triu(1 + columns - rows) * self.masked
        if added is not None:
            scores = scores + added
        return (scores.softmax(-1) @ value).transpose(1, 2).flatten(2)
