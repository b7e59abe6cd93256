"""The inputs of an ONNX graph: which are real, and what fixes their symbolic sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx_graphsurgeon as gs

from lvc.compiler.errors import CompileError, UsageError, did_you_mean
from lvc.compiler.ir.spec import TensorSpec
from lvc.compiler.load.onnx_importer.values import Unsupported, input_name, torch_dtype

_IMAGE_RANK = 4


def real_inputs(graph: gs.Graph, frozen: Mapping[str, object]) -> list[gs.Variable]:
    """Return the inputs that a caller must give: those that are neither stored in the file nor frozen by the user."""
    return [tensor for tensor in graph.inputs if not isinstance(tensor, gs.Constant) and tensor.name not in frozen]


def check_names(given: Mapping[str, object], names: Sequence[str], option: str) -> None:
    """Refuse a name that no input has."""
    for name in given:
        if name not in names:
            raise UsageError(
                f"{option}: the model has no input '{name}'",
                help=f"{did_you_mean(name, names)}its inputs are: {', '.join(names)}",
            )


def name_shapes(shapes: Mapping[str, Sequence[int]], inputs: Sequence[gs.Variable]) -> dict[str, tuple[int, ...]]:
    """Bring the user's shapes under the inputs' names; a model of one input also takes the key ``input`` or none."""
    names = [tensor.name for tensor in inputs]
    plain = {input_name(name): name for name in names}
    named = {}
    for key, shape in shapes.items():
        name = plain.get(key, key) if key not in names else key
        if len(names) == 1 and key in ("", "input"):
            name = names[0]
        named[name] = tuple(int(size) for size in shape)
    check_names(named, names, "--shape")
    return named


def input_spec(tensor: gs.Variable, wanted: tuple[int, ...] | None, notes: list[str]) -> TensorSpec:
    """Fix an input's shape by the user's, and a symbolic batch size without one to 1; anything else is an error."""
    origin = f"input {tensor.name}"
    if tensor.type not in (None, "tensor_type"):
        raise CompileError(f"input '{tensor.name}' is not a tensor", where=origin, why=f"it is a {tensor.type}")
    try:
        dtype = torch_dtype(tensor.dtype)
    except Unsupported as refusal:
        raise CompileError(f"input '{tensor.name}' cannot be compiled", where=origin, why=str(refusal)) from refusal
    declared = None if tensor.shape is None else list(tensor.shape)
    if wanted is not None:
        _check_against(tensor.name, wanted, declared)
        return TensorSpec(wanted, dtype)
    if declared is None:
        raise _unknown_size(tensor.name, "?", f"--shape {tensor.name}=1x3x224x224")
    is_any = declared[:1] == [0] and len(declared) >= _IMAGE_RANK  # some exporters write 0 for any number of images
    if declared and (is_any or not _is_size(declared[0])):
        symbol = "?" if declared[0] in (None, "") else declared[0]
        notes.append(f"input '{tensor.name}': batch size '{symbol}' was fixed to 1")
        declared[0] = 1
    unknown = [str(size or "?") for size in declared if not _is_size(size)]
    if unknown:
        example = "x".join(str(size) if _is_size(size) else "224" for size in declared)
        raise _unknown_size(tensor.name, ", ".join(unknown), f"--shape {tensor.name}={example}")
    return TensorSpec(tuple(int(size) for size in declared), dtype)


def _is_size(size: object) -> bool:
    return isinstance(size, int) and size >= 0


def _check_against(name: str, wanted: tuple[int, ...], declared: list[object] | None) -> None:
    if declared is None:
        return
    fixed = [(i, size) for i, size in enumerate(declared) if _is_size(size) and size != 0]
    if len(declared) != len(wanted) or any(wanted[i] != size for i, size in fixed if i > 0):
        shape = "x".join(str(size if size is not None else "?") for size in declared)
        raise UsageError(
            f"--shape {name}={'x'.join(map(str, wanted))} does not fit the model", why=f"its input is {shape}"
        )


def _unknown_size(name: str, what: str, help: str) -> CompileError:
    return CompileError(
        f"the shape of input '{name}' is not fixed",
        where=f"input {name}",
        why=f"its sizes are symbolic: {what}",
        help=f"give it with {help}",
    )
