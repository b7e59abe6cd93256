"""Weights in few bits, for storage: `lvc::decode` computes them again, and all arithmetic stays floating-point.

A weight is stored as a code of ``bits`` bits for each element, a table of the ``2^bits`` values that codes stand for,
and a scale for each group of elements of an output channel. Codes lie in row-major order, several to a byte, the first
in the lowest bits; the last byte is filled with zeros.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch.fx import Node

from lvc.compiler.ir.operators.library import operator

BITS = (2, 4, 8)


def _decode(
    codes: torch.Tensor, values: torch.Tensor, scale: torch.Tensor, bits: int, shape: Sequence[int]
) -> torch.Tensor:
    """``values[code] * scale``; ``codes`` are ``u8[bytes]``, ``values`` ``f32[2^bits]``, ``scale`` ``f32[O, groups]``.

    The elements of an output channel fall into as many groups of neighbours as ``scale`` has columns.
    """
    wanted = (torch.uint8, torch.float32, torch.float32)
    if tuple(part.dtype for part in (codes, values, scale)) != wanted or bits not in BITS:
        raise TypeError("codes are uint8, values and scales float32, of 2, 4 or 8 bits")
    elements = math.prod(shape)
    if codes.ndim != 1 or len(codes) != packed_bytes(elements, bits) or tuple(values.shape) != (1 << bits,):
        raise TypeError(f"{tuple(codes.shape)} bytes and {tuple(values.shape)} values are no {bits}-bit {list(shape)}")
    if scale.ndim != 2 or not shape or scale.shape[0] != shape[0] or elements % max(1, scale.numel()):
        raise TypeError(f"scales {tuple(scale.shape)} do not fit {list(shape)}")
    if codes.device.type == "meta":
        return scale.new_empty(list(shape))
    found = values[unpack(codes, bits, elements).int()]
    return (found.reshape(*scale.shape, -1) * scale[:, :, None]).reshape(list(shape))


DECODE = operator("decode(Tensor codes, Tensor values, Tensor scale, int bits, int[] shape) -> Tensor")(_decode)


def is_coded(node: object) -> bool:
    """Whether an operand is a weight that is stored in few bits."""
    if not isinstance(node, Node) or node.op != "call_function" or node.target is not DECODE:
        return False
    return all(operand.op == "get_attr" for operand in node.all_input_nodes)


def packed_bytes(elements: int, bits: int) -> int:
    """The bytes of so many codes."""
    return -(-elements * bits // 8)


def pack(codes: torch.Tensor, bits: int) -> torch.Tensor:
    """Put codes, integers below ``2^bits``, several into a byte; ``u8[bytes]``."""
    each = 8 // bits
    flat = codes.flatten().to(torch.uint8)
    rows = torch.nn.functional.pad(flat, (0, -len(flat) % each)).reshape(-1, each)
    packed = rows[:, 0].clone()
    for place in range(1, each):
        packed |= rows[:, place] << (place * bits)
    return packed


def unpack(packed: torch.Tensor, bits: int, elements: int) -> torch.Tensor:
    """Take the codes out of their bytes; ``u8[elements]``."""
    each, mask = 8 // bits, (1 << bits) - 1
    parts = [(packed >> (place * bits)) & mask for place in range(each)]
    return torch.stack(parts, 1).flatten()[:elements]
