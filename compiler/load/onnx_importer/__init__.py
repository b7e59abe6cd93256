"""The ONNX importer: an ``.onnx`` file of opset 7 to 28 becomes a `Model` in lvc's dialect.

    read    parse the file, check sizes and paths, load external data
    clean   order and check the nodes, expand functions, drop nodes that no output needs (onnx-graphsurgeon)
    build   node by node through the converters of `ops`; whatever depends on no input is computed on the way, so
            that shape arithmetic is gone and every shape is static

Adding an operator is adding a function to a file of `ops`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from lvc.compiler.errors import CompileError, LvcError
from lvc.compiler.ir.model import Model


def from_onnx(
    path: Path,
    shapes: Mapping[str, Sequence[int]] | None = None,
    constants: Mapping[str, np.ndarray] | None = None,
) -> Model:
    """Load an ONNX model.

    ``shapes`` fixes the symbolic sizes of inputs by input name; ``constants`` freezes inputs to values, so that they
    are inputs no more. A symbolic batch size that nothing fixes becomes 1, and a note says so. Every operator that
    cannot be expressed is listed in one `CompileError`.
    """
    try:
        return _load(Path(path), shapes or {}, constants or {})
    except LvcError as error:
        if str(path) in error.where or error.exit_code != CompileError.exit_code:
            raise
        where = f"{path}, {error.where}" if error.where else str(path)
        raise CompileError(error.what, where=where, why=error.why, help=error.help) from error


def _load(file: Path, shapes: Mapping[str, Sequence[int]], constants: Mapping[str, np.ndarray]) -> Model:
    from lvc.compiler.load.lengths.settle import settle_lengths
    from lvc.compiler.load.onnx_importer.build import Builder, load_converters
    from lvc.compiler.load.onnx_importer.clean import clean
    from lvc.compiler.load.onnx_importer.halves import widened
    from lvc.compiler.load.onnx_importer.inputs import check_names, input_spec, name_shapes, real_inputs
    from lvc.compiler.load.onnx_importer.read import opset_of, read_proto, take_usage
    from lvc.compiler.load.onnx_importer.reference import file_reference
    from lvc.compiler.load.onnx_importer.values import Constant, safe_name, to_torch

    proto = read_proto(file)
    graph = clean(proto, load_converters(), file)
    check_names(constants, [tensor.name for tensor in real_inputs(graph, {})], "constants")
    inputs = real_inputs(graph, constants)
    named = name_shapes(shapes, inputs)
    half = widened(proto, file)
    notes = [half] if half else []
    builder = Builder(opset_of(proto, file), graph.outputs)
    for tensor in inputs:
        node = builder.add_input(tensor.name, input_spec(tensor, named.get(tensor.name), notes))
        if node.target != tensor.name:
            notes.append(f"input '{tensor.name}' is called '{node.target}'")
    for name, value in constants.items():
        builder.values[name] = Constant(to_torch(np.asarray(value)), safe_name(name))
    builder.add_nodes(graph.nodes)
    module = builder.finish()
    outputs, counts = settle_lengths(module, [tensor.name for tensor in graph.outputs])
    module.recompile()
    model = Model(module, file.stem, outputs, source=str(file), notes=notes, counts=counts)
    take_usage(model, proto)
    names = [tensor.name for tensor in inputs]
    model.reference = file_reference(file, proto, names, constants, is_half=bool(half))
    return model
