"""Matrix products."""

from __future__ import annotations

import math

import torch

from lvc.compiler.load.onnx_importer.call import Call, converts
from lvc.compiler.load.onnx_importer.ops.arithmetic import added
from lvc.compiler.load.onnx_importer.values import Constant, Unsupported, Value, shape_of

aten = torch.ops.aten


@converts("Gemm")
def gemm(call: Call) -> Value:
    """alpha A B + beta C, as a linear layer; factors are folded into a constant B and C."""
    a = call.permute(call[0], [1, 0]) if call.attribute("transA", 0) else call[0]
    b = call[1] if call.attribute("transB", 0) else call.permute(call[1], [1, 0])
    alpha, beta = float(call.attribute("alpha", 1.0)), float(call.attribute("beta", 1.0))
    c = call.get(2)
    if alpha != 1.0:
        b = _scaled(call, b, alpha)
    if c is None or beta == 0.0:
        return call.emit(aten.linear.default, a, b)
    if beta != 1.0:
        c = _scaled(call, c, beta)
    width = shape_of(b)[0]
    call.check_fits(c, (shape_of(a)[0], width))
    if isinstance(c, Constant) and math.prod(shape_of(c)) == width and shape_of(c)[-1:] == (width,):
        return call.emit(aten.linear.default, a, b, call.reshape(c, [width]))
    return added(call, call.emit(aten.linear.default, a, b), c)


def _scaled(call: Call, value: Value, factor: float) -> Value:
    is_integer_type = not (value.tensor if isinstance(value, Constant) else value.meta["spec"]).dtype.is_floating_point
    return call.emit(aten.mul.Tensor, value, int(factor) if is_integer_type and factor.is_integer() else factor)


@converts("MatMul")
def matrix_product(call: Call) -> Value:
    return multiplied(call, call[0], call[1])


def multiplied(call: Call, a: Value, b: Value) -> Value:
    """Multiply as numpy does; by a constant matrix it is a linear layer."""
    if isinstance(b, Constant) and len(shape_of(b)) == 2 and len(shape_of(a)) >= 2 and not isinstance(a, Constant):
        return call.emit(aten.linear.default, a, call.permute(b, [1, 0]))
    return call.emit(aten.matmul.default, a, b)


@converts("MatMulInteger")
def integer_matrix_product(call: Call) -> Value:
    """In 64-bit floating point, which holds every sum of products of 8-bit numbers exactly."""
    a, b = call.cast(call[0], torch.float64), call.cast(call[1], torch.float64)
    if (zero := call.get(2)) is not None:
        column = [-1, 1] if math.prod(shape_of(zero)) > 1 else []
        a = call.emit(aten.sub.Tensor, a, call.emit(aten.reshape.default, call.cast(zero, torch.float64), column))
    if (zero := call.get(3)) is not None:
        row = [1, -1] if math.prod(shape_of(zero)) > 1 else []
        b = call.emit(aten.sub.Tensor, b, call.emit(aten.reshape.default, call.cast(zero, torch.float64), row))
    return call.cast(call.emit(aten.matmul.default, a, b), torch.int32)


@converts("Einsum")
def einsum(call: Call) -> Value:
    """One or two operands without repeated letters, brought to one batched matrix product."""
    terms, output = _letters(call)
    operands = [
        _summed(call, value, term, set(output).union(*terms[:i], *terms[i + 1 :]))
        for i, (value, term) in enumerate(zip(call.all(), terms, strict=True))
    ]
    if len(operands) == 1:
        value, term = operands[0]
        return call.permute(value, [term.index(letter) for letter in output])
    if len(operands) != 2:
        raise Unsupported("has more than two operands")
    return _contract(call, operands[0], operands[1], output)


def _letters(call: Call) -> tuple[list[str], str]:
    """Split the equation, an ellipsis replaced by capital letters of its own counted from the right."""
    equation = str(call.attribute("equation")).replace(" ", "")
    left, arrow, output = equation.partition("->")
    terms = left.split(",")
    dots = 0
    for index, term in enumerate(terms):
        if "..." in term:
            count = call.rank(index) - len(term) + 3
            dots = max(dots, count)
            terms[index] = term.replace("...", _DOTS[len(_DOTS) - count :])
    if not arrow:
        joined = "".join(terms)
        output = "".join(sorted(letter for letter in set(joined) if joined.count(letter) == 1 and letter not in _DOTS))
        output = _DOTS[len(_DOTS) - dots :] + output
    output = output.replace("...", _DOTS[len(_DOTS) - dots :])
    if any(len(set(term)) < len(term) for term in [*terms, output]):
        raise Unsupported("repeats a letter in one operand")
    return terms, output


_DOTS = "αβγδεζηθ"


def _summed(call: Call, value: Value, term: str, kept: set[str]) -> tuple[Value, str]:
    """Sum out the letters that nothing else has."""
    axes = [index for index, letter in enumerate(term) if letter not in kept]
    if axes:
        value = call.emit(aten.sum.dim_IntList, value, axes, False)
    return value, "".join(letter for letter in term if letter in kept)


def _contract(call: Call, left: tuple[Value, str], right: tuple[Value, str], output: str) -> Value:
    (a, a_term), (b, b_term) = left, right
    sizes = dict(zip(a_term + b_term, shape_of(a) + shape_of(b), strict=True))
    batch = [letter for letter in a_term if letter in b_term and letter in output]
    inner = [letter for letter in a_term if letter in b_term and letter not in output]
    rows = [letter for letter in a_term if letter not in b_term]
    columns = [letter for letter in b_term if letter not in a_term]

    def volume(letters: list[str]) -> int:
        return math.prod(sizes[letter] for letter in letters)

    def arranged(value: Value, term: str, order: list[str], groups: list[int]) -> Value:
        return call.reshape(call.permute(value, [term.index(letter) for letter in order]), groups)

    a = arranged(a, a_term, batch + rows + inner, [volume(batch), volume(rows), volume(inner)])
    b = arranged(b, b_term, batch + inner + columns, [volume(batch), volume(inner), volume(columns)])
    made = batch + rows + columns
    product = call.reshape(call.emit(aten.matmul.default, a, b), [sizes[letter] for letter in made])
    return call.permute(product, [made.index(letter) for letter in output])
