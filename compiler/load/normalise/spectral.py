"""Discrete Fourier transforms along one axis, as products with matrices of cosines and sines."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from lvc.compiler.load.normalise.builder import Unsupported

_MOST_ELEMENTS = 1 << 24
"""Of a matrix; one of 4096 by 4096 has as many."""


def dft(x: Tensor, axis: int, length: int, *, inverse: bool, onesided: bool) -> Tensor:
    """The transform of ``x[..., parts]`` along an axis that does not count the last one, which holds real and imaginary
    parts, or real ones alone.

    The signal is cut, or filled with zeros, to ``length``. ``onesided`` gives the first ``length // 2 + 1`` values of a
    real signal, or with ``inverse`` a real signal of these. The inverse is divided by the length. Errors grow with the
    root of the length: at most some 1e-6 relative for images.
    """
    known = length // 2 + 1 if inverse and onesided else length
    made = length // 2 + 1 if onesided and not inverse else length
    if known * made > _MOST_ELEMENTS:
        raise Unsupported(f"it transforms lines of {length}, whose matrix is too large to be stored")
    lines = x.movedim(axis, -1)  # parts are the last but one then
    if known < lines.shape[-1]:
        lines = lines[..., :known]
    lines = F.pad(lines, (0, known - lines.shape[-1]))
    cosines, sines = _matrices(known, made, length, inverse=inverse, onesided=onesided)
    real = lines[..., 0, :]
    made_real = real @ cosines
    if x.shape[-1] == 1:
        parts = [made_real] if inverse and onesided else [made_real, real @ sines]
    else:
        imaginary = lines[..., 1, :]
        parts = [made_real - imaginary @ sines]
        if not (inverse and onesided):
            parts.append(real @ sines + imaginary @ cosines)
    return torch.stack(parts, -2).movedim(-1, axis)


def _matrices(known: int, made: int, length: int, *, inverse: bool, onesided: bool) -> tuple[Tensor, Tensor]:
    """What real and imaginary parts are multiplied with, ``f32[known, made]`` each; turns are counted exactly."""
    turns = torch.arange(known)[:, None] * torch.arange(made) % length
    angles = turns.double() * (2 * math.pi / length) * (1 if inverse else -1)
    weight = torch.ones(known, 1, dtype=torch.float64)
    if inverse:
        weight /= length
    if inverse and onesided:  # those that are left out are the conjugates of these, but for the first and the middle
        weight[1 : known - 1 if length % 2 == 0 else known] *= 2
    return (angles.cos() * weight).float(), (angles.sin() * weight).float()
