"""How an integer layer multiplies: which words its weights allow, and what the sums of those words lack."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from lvc.backends.tvm.kernels.whole_words import WholePair, WholeQuad
from lvc.backends.tvm.kernels.words import Word
from lvc.backends.tvm.ops.contractions import with_bias
from lvc.backends.tvm.ops.table import Call
from lvc.backends.tvm.scope import Array
from lvc.compiler import integer
from lvc.compiler.bounds import EXACT_FLOAT32, INT16, INT32, DataRange, pair_bound, sum_bound
from lvc.compiler.graph import arguments, is_call, spec


def is_whole(call: Call) -> bool:
    """Whether a call is an integer layer."""
    return is_call(call.node, integer.conv2d, integer.linear)


def choose_word(call: Call, pack: Callable[[Word], np.ndarray]) -> Word:
    """Quadruples where the target multiplies them in 32 bits, or where no sum of two products can leave 16; else pairs.

    ``pack`` gives the weights as the kernel would read them.
    """
    pair, quad = WholePair(call["zero_point"]), WholeQuad(call["zero_point"])
    data = DataRange.of(torch.uint8, 0)
    if is_call(call.node, integer.linear) and call["input"].shape[-1] % quad.elements:
        return pair
    if call["input"].dtype != "uint8" or sum_bound(torch.from_numpy(call["weight"].constant), data) > INT32:
        return pair
    if quad.name in call.vector.dots:
        return quad
    products = torch.from_numpy(pack(quad).view(np.int8).reshape(-1, 2))
    return quad if pair_bound(products, data) <= INT16 else pair


def with_correction(call: Call, total: Array, word: Word, dim: int) -> Array:
    """Add the bias along a dimension, and what sums of ``q`` have too much for being of ``q - zero_point``."""
    if not isinstance(word, WholeQuad) or not word.zero_point:
        return with_bias(call, total, dim)
    weight = call["weight"].constant
    lacking = -word.zero_point * weight.astype(np.int32).sum(axis=tuple(range(1, weight.ndim)), dtype=np.int32)
    name = arguments(call.node)["weight"].target
    correction = call.scope.constant(f"{name} zero {word.zero_point}", lacking)
    corrected = Array(total.shape, total.dtype, lambda index: total.read(index) + correction.read([index[dim]]))
    return with_bias(call, corrected, dim)


def is_exact_in_float32(call: Call) -> bool:
    """Whether the products of an integer convolution sum up exactly in single precision; true of all others."""
    if not is_whole(call):
        return True
    data = DataRange.of(spec(arguments(call.node)["input"]).dtype, call["zero_point"])
    return sum_bound(torch.from_numpy(call["weight"].constant), data) <= EXACT_FLOAT32
