"""`einsum` as permute, reshape and matmul."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch._ops import OpOverload

from lvc.compiler.load.normalise.builder import Builder, Operand, Rule, Unsupported
from lvc.compiler.load.normalise.contraction import matmul
from lvc.compiler.load.normalise.movement import permute, reshape

aten = torch.ops.aten


def _einsum(b: Builder, equation: str, operands: Sequence[Operand], *, path: object = None) -> Operand:
    """Contract the operands from left to right; a letter leaves when no later operand and not the result has it."""
    terms, result = _parse(equation, [operand.rank for operand in operands])
    labels, x = terms[0], operands[0]
    for i, (other, y) in enumerate(zip(terms[1:], operands[1:], strict=True), 1):
        later = set(result).union(*terms[i + 1 :])
        labels, x = _contract(b, labels, x, other, y, later)
    labels, x = _sum_out(b, labels, x, set(result))
    return permute(b, x, [labels.index(label) for label in result])


def _parse(equation: str, ranks: Sequence[int]) -> tuple[list[str], str]:
    """Split ``ij,jk->ik`` into the letters of each operand and of the result; ``...`` becomes capital letters."""
    left, arrow, result = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    free = [letter for letter in "ZYXWVUTSRQPONM" if letter not in equation]
    spans = [rank - len(term) + 3 for term, rank in zip(terms, ranks, strict=True) if "..." in term]
    most = max(spans, default=0)
    dots = "".join(reversed(free[:most]))
    terms = [
        term.replace("...", dots[len(dots) - (rank - len(term) + 3) :]) if "..." in term else term
        for term, rank in zip(terms, ranks, strict=True)
    ]
    result = result.replace("...", dots)
    if any(len(set(term)) != len(term) for term in terms):
        raise Unsupported("a letter stands twice in one operand")
    if not arrow:
        letters = "".join(terms)
        result = dots + "".join(sorted(a for a in set(letters) if letters.count(a) == 1 and a not in dots))
    return terms, result


def _sum_out(b: Builder, labels: str, x: Operand, kept: set[str]) -> tuple[str, Operand]:
    gone = [i for i, label in enumerate(labels) if label not in kept]
    if not gone:
        return labels, x
    return "".join(label for label in labels if label in kept), b.call(aten.sum.dim_IntList, x, gone, False)


def _drop_broadcast(b: Builder, labels: str, x: Operand, others: str, y: Operand) -> tuple[str, Operand]:
    """Leave out letters of size 1 that the other operand has at full size."""
    theirs = dict(zip(others, y.shape, strict=True))
    kept = [(label, size) for label, size in zip(labels, x.shape, strict=True) if size == theirs.get(label, size)]
    if any(size != 1 for label, size in zip(labels, x.shape, strict=True) if (label, size) not in kept):
        return labels, x
    return "".join(label for label, _ in kept), reshape(b, x, [size for _, size in kept])


def _contract(b: Builder, left: str, x: Operand, right: str, y: Operand, later: set[str]) -> tuple[str, Operand]:
    """One matrix product: letters in both operands are batch if they are needed later, contracted if not."""
    left, x = _sum_out(b, *_drop_broadcast(b, left, x, right, y), later | set(right))
    right, y = _sum_out(b, *_drop_broadcast(b, right, y, left, x), later | set(left))
    sizes = dict(zip(right, y.shape, strict=True)) | dict(zip(left, x.shape, strict=True))
    batch = [label for label in left if label in right and label in later]
    shared = [label for label in left if label in right and label not in later]
    rows = [label for label in left if label not in right]
    columns = [label for label in right if label not in left]

    def grouped(labels: str, tensor: Operand, *groups: list[str]) -> Operand:
        ordered = permute(b, tensor, [labels.index(label) for group in groups for label in group])
        return reshape(b, ordered, [math.prod(sizes[label] for label in group) for group in groups])

    product = matmul(b, grouped(left, x, batch, rows, shared), grouped(right, y, batch, shared, columns))
    labels = [*batch, *rows, *columns]
    return "".join(labels), reshape(b, product, [sizes[label] for label in labels])


EINSUM: dict[OpOverload, Rule] = {aten.einsum.default: _einsum}
