"""A description as the source of a PyTorch module, with the spellings that people use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from fuzzing.composites import CALLS
from fuzzing.program import Program, Ref, Step, arguments
from lvc.compiler.ir.spec import TensorSpec

Specs = dict[str, TensorSpec]
Spelling = Callable[[Step, list[str], Specs], list[str]]


def source(program: Program) -> str:
    """The text of a class ``Net``; it needs ``torch``, ``F`` and `draw`."""
    specs = program.specs()
    lines = ["class Net(torch.nn.Module):", "    def __init__(self):", "        super().__init__()"]
    for name, spec in program.stored.items():
        value = f'torch.from_numpy(draw("{name}", {list(spec.shape)}))'
        keep = spec.dtype.is_floating_point and not name.startswith(("mean", "var"))
        made = f"self.{name} = torch.nn.Parameter({value})" if keep else f'self.register_buffer("{name}", {value})'
        lines.append(f"        {made}")
    lines += ["", f"    def forward(self, {', '.join(program.inputs)}):"]
    lines += [f"        {step.name} = {expression(step, program, specs)}" for step in program.steps]
    outputs = ", ".join(_text(Ref(name), program) for name in program.outputs)
    return "\n".join([*lines, f"        return {outputs}", ""])


def expression(step: Step, program: Program, specs: Specs) -> str:
    """One call, in one of its spellings."""
    args = [_text(value, program) for value in step.args]
    if step.op in CALLS:
        return f"({CALLS[step.op]})({', '.join(args)})"
    named = [f"{key}={_text(value, program)}" for key, value in step.kwargs.items()]
    ways = [f"torch.ops.{_overload(step.op)}({', '.join([*args, *named])})"]
    if step.op in SPELLINGS and "way" in step.hint:
        ways = [*SPELLINGS[step.op](step, args, specs), *ways]
    return ways[int(step.hint.get("way", -1)) % len(ways)]


def _overload(op: str) -> str:
    from lvc.compiler.ir.dialect import BY_NAME

    return str(BY_NAME[op].overload)


def _text(value: Any, program: Program) -> str:
    if isinstance(value, Ref):
        return f"self.{value.name}" if value.name in program.stored else value.name
    if isinstance(value, list | tuple):
        return f"[{', '.join(_text(part, program) for part in value)}]"
    return repr(value)


def _unary(step: Step, a: list[str], specs: Specs) -> list[str]:
    return [f"torch.{step.op}({a[0]})", f"{a[0]}.{step.op}()", f"{a[0]}.clone().{step.op}_()"]


def _function(step: Step, a: list[str], specs: Specs) -> list[str]:
    if step.op == "elu" and len(a) > 2:  # in place of the scale, the function has a flag
        return []
    named = "".join(f", {key}={value!r}" for key, value in step.kwargs.items())
    return [f"F.{step.op}({', '.join(a)}{named})"]


def _clamp(step: Step, a: list[str], specs: Specs) -> list[str]:
    low, high = step.args[1], step.args[2]
    ways = [f"torch.clamp({a[0]}, {low}, {high})", f"{a[0]}.clip({low}, {high})"]
    if (low, high) == (0, 6):
        ways += [f"F.relu6({a[0]})"]
    if low is not None and high is not None:
        ways += [f"F.hardtanh({a[0]}, {low}, {high})", f"{a[0]}.clone().clamp_({low}, {high})"]
    if high is None:
        ways += [f"{a[0]}.clamp_min({low})", f"torch.clamp(min={low}, input={a[0]})"]
    return ways


_SIGNS = {"add": "+", "sub": "-", "mul": "*", "div": "/", "remainder": "%", "pow": "**"}
_SIGNS |= {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}


def _binary(step: Step, a: list[str], specs: Specs) -> list[str]:
    alpha = "".join(f", {key}={value!r}" for key, value in step.kwargs.items())
    ways = [f"torch.{step.op}({a[0]}, {a[1]}{alpha})", f"{a[0]}.{step.op}({a[1]}{alpha})"]
    if not alpha:
        ways += [f"{a[0]} {_SIGNS[step.op]} {a[1]}"]
    return ways


def _reshape(step: Step, a: list[str], specs: Specs) -> list[str]:
    x, before, after = a[0], specs[step.operands[0]].shape, specs[step.name].shape
    ways = [
        f"{x}.reshape({a[1]})",
        f"{x}.reshape({', '.join(map(str, step.args[1]))})",
        f"{x}.contiguous().view({a[1]})",
    ]
    if not after:
        return [f"{x}.reshape([])"]
    for at in range(len(before)):
        if before[at] == 1 and before[:at] + before[at + 1 :] == after:
            return [f"{x}.squeeze({at})", f"torch.squeeze({x}, {at - len(before)})", *ways]
    for at in range(len(after)):
        if after[at] == 1 and after[:at] + after[at + 1 :] == before:
            index = ", ".join([":"] * at + ["None"])
            return [f"{x}.unsqueeze({at})", f"{x}[{index}]", *ways]
    for first in range(len(before)):
        for last in range(first + 1, len(before)):
            if _flat(before, first, last) == after:
                return [f"{x}.flatten({first}, {last})", f"torch.flatten({x}, {first}, {last - len(before)})", *ways]
    for at in range(len(after) - 1):
        if _flat(after, at, at + 1) == before:
            return [f"{x}.unflatten({at}, ({after[at]}, {after[at + 1]}))", *ways]
    return ways


def _flat(shape: tuple[int, ...], first: int, last: int) -> tuple[int, ...]:
    return (*shape[:first], int(torch.Size(shape[first : last + 1]).numel()), *shape[last + 1 :])


def _permute(step: Step, a: list[str], specs: Specs) -> list[str]:
    dims = [dim % len(step.args[1]) for dim in step.args[1]]
    ways = [f"{a[0]}.permute({a[1]})", f"torch.permute({a[0]}, {a[1]})"]
    moved = [at for at, dim in enumerate(dims) if at != dim]
    if len(moved) == 2:
        ways += [f"{a[0]}.transpose({moved[0]}, {moved[1]})", f"{a[0]}.swapaxes({moved[1]}, {moved[0]})"]
    if dims == [1, 0]:
        ways += [f"{a[0]}.T", f"{a[0]}.t()"]
    return ways


def _slice(step: Step, a: list[str], specs: Specs) -> list[str]:
    given = arguments(step)
    dim = given["dim"] % len(specs[step.operands[0]].shape)
    start, end, stride = (given[key] for key in ("start", "end", "step"))
    index = ", ".join([":"] * dim + [f"{start}:{end}:{stride}"])
    ways = [f"{a[0]}[{index}]"]
    if "sizes" in step.hint:
        sizes, part = step.hint["sizes"], step.hint["part"]
        ways = [f"{a[0]}.split({sizes}, {dim})[{part}]", f"{a[0]}.narrow({dim}, {start}, {end - start})", *ways]
        count, size = specs[step.operands[0]].shape[dim], end - start
        if start % size == 0 and count % size == 0:
            ways.insert(0, f"{a[0]}.chunk({count // size}, {dim})[{start // size}]")
            ways.insert(0, f"torch.split({a[0]}, {size}, {dim})[{start // size}]")
        if size == 1:
            ways.insert(0, f"{a[0]}.select({dim}, {start}).unsqueeze({dim})")
            ways.insert(0, f"{a[0]}.unbind({dim})[{start}].unsqueeze({dim})")
    return ways


def _cat(step: Step, a: list[str], specs: Specs) -> list[str]:
    names = step.operands
    ways = [f"torch.cat({a[0]}, {a[1]})", f"torch.concat({a[0]}, dim={a[1]})"]
    dim = step.args[1] % len(specs[names[0]].shape)
    if all(specs[name].shape[dim] == 1 for name in names):
        parts = a[0].strip("[]").split(", ")
        ways += [f"torch.stack([{', '.join(f'{part}.squeeze({dim})' for part in parts)}], {dim})"]
    return ways


def _matmul(step: Step, a: list[str], specs: Specs) -> list[str]:
    ways = [f"{a[0]} @ {a[1]}", f"torch.matmul({a[0]}, {a[1]})"]
    ranks = [len(specs[name].shape) for name in (step.operands * 2)[:2]]
    if ranks == [3, 3] and specs[(step.operands * 2)[0]].shape[0] == specs[(step.operands * 2)[1]].shape[0]:
        ways += [f"torch.bmm({a[0]}, {a[1]})", f"torch.einsum('bij,bjk->bik', {a[0]}, {a[1]})"]
    if ranks == [2, 2]:
        ways += [f"torch.mm({a[0]}, {a[1]})", f"torch.einsum('ij,jk->ik', {a[0]}, {a[1]})"]
    return ways


def _reduce(step: Step, a: list[str], specs: Specs) -> list[str]:
    tail = ", ".join(a[1:])
    return [f"{a[0]}.{step.op}({tail})", f"torch.{step.op}({a[0]}, {tail})"]


def _softmax(step: Step, a: list[str], specs: Specs) -> list[str]:
    return [f"F.{step.op}({a[0]}, dim={a[1]})", f"{a[0]}.{step.op}({a[1]})"]


def _upsample(step: Step, a: list[str], specs: Specs) -> list[str]:
    mode = step.op.removeprefix("upsample_").removesuffix("2d")
    corners = "" if mode == "nearest" else f", align_corners={a[2]}"
    size = f"size={a[1]}" if step.args[1] is not None else f"scale_factor={a[-1]}"
    return [f"F.interpolate({a[0]}, {size}, mode='{mode}'{corners})"]


def _sample(step: Step, a: list[str], specs: Specs) -> list[str]:
    mode, padding = ("bilinear", "nearest", "bicubic")[step.args[2]], ("zeros", "border", "reflection")[step.args[3]]
    return [f"F.grid_sample({a[0]}, {a[1]}, mode='{mode}', padding_mode='{padding}', align_corners={a[4]})"]


def _pad(step: Step, a: list[str], specs: Specs) -> list[str]:
    if step.op == "constant_pad_nd":
        return [f"F.pad({a[0]}, {a[1]}, value={float(step.args[2])})"]
    return [f"F.pad({a[0]}, {a[1]}, mode={a[2]})"]


def _method(step: Step, a: list[str], specs: Specs) -> list[str]:
    return [f"{a[0]}.{step.op}({', '.join(a[1:])})"]


def _to(step: Step, a: list[str], specs: Specs) -> list[str]:
    ways = [f"{a[0]}.to({a[1]})", f"{a[0]}.type({a[1]})"]
    return [*ways, f"{a[0]}.float()"] if step.args[1] is torch.float32 else ways


def _where(step: Step, a: list[str], specs: Specs) -> list[str]:
    return [f"torch.where({', '.join(a)})", f"{a[1]}.where({a[0]}, {a[2]})"]


def _conv2d(step: Step, a: list[str], specs: Specs) -> list[str]:
    return [f"F.conv2d({', '.join(a)})"]


SPELLINGS: dict[str, Spelling] = {
    **dict.fromkeys(("relu", "sigmoid", "tanh", "exp", "abs", "neg", "floor", "ceil", "round", "sqrt"), _unary),
    **dict.fromkeys(
        ("silu", "hardswish", "hardsigmoid", "mish", "gelu", "elu", "softplus", "leaky_relu", "prelu"), _function
    ),
    **dict.fromkeys(
        ("linear", "layer_norm", "adaptive_avg_pool2d", "max_pool2d", "avg_pool2d", "pixel_shuffle"), _function
    ),
    **dict.fromkeys(_SIGNS, _binary),
    **dict.fromkeys(("mean", "sum", "amax", "amin", "prod", "argmax", "argmin", "cumsum"), _reduce),
    **dict.fromkeys(("softmax", "log_softmax"), _softmax),
    **dict.fromkeys(("upsample_nearest2d", "upsample_bilinear2d", "upsample_bicubic2d"), _upsample),
    **dict.fromkeys(("constant_pad_nd", "pad"), _pad),
    **dict.fromkeys(("expand", "repeat", "roll", "flip", "index_select", "gather", "maximum", "minimum"), _method),
    "conv2d": _conv2d,
    "grid_sampler_2d": _sample,
    "clamp": _clamp,
    "reshape": _reshape,
    "permute": _permute,
    "slice": _slice,
    "cat": _cat,
    "matmul": _matmul,
    "to": _to,
    "where": _where,
}
