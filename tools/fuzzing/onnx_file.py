"""A description as an ONNX file, as the source that writes it, and as ONNX Runtime runs it."""

from __future__ import annotations

import random
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from fuzzing import onnx_composites, onnx_movement, onnx_spellings
from fuzzing.onnx_graph import Unspeakable, Writer
from fuzzing.program import Program, Step, arguments, draw
from lvc.compiler.ir.spec import TensorSpec, dtype_name

SPELLINGS = {**onnx_spellings.SPELLINGS, **onnx_movement.SPELLINGS, **onnx_composites.SPELLINGS}
OPS = frozenset(SPELLINGS)
OPSETS = range(7, 24)

_TYPES = {"f32": "FLOAT", "bool": "BOOL", "i64": "INT64", "i32": "INT32"}


def can_spell(step: Step, specs: dict[str, TensorSpec], opset: int) -> bool:
    """Whether an opset has words for a call."""
    if step.op not in SPELLINGS:
        return False
    inputs = {name: specs[name] for name in step.operands}
    try:
        _write(Program(inputs, {}, (step,), (step.name,)), opset, {**inputs, step.name: specs[step.name]})
    except Unspeakable:
        return False
    return True


def _write(program: Program, opset: int, specs: dict[str, TensorSpec]) -> Writer:
    writer = Writer(program, opset, specs, random.Random(zlib.crc32(str(program).encode())))
    for name in (*program.inputs, *program.stored):
        writer.names[name] = writer.fresh()
    for step in program.steps:
        writer.names[step.name] = SPELLINGS[step.op](writer, step, arguments(step))
    return writer


def _outputs(writer: Writer) -> list[str]:
    """The names of the outputs; an input, or a value for the second time, is passed on by a node."""
    taken: list[str] = []
    made = {name for node in writer.nodes for name in node.outputs}
    for value in writer.program.outputs:
        name = writer.names[value]
        taken.append(name if name in made and name not in taken else writer.emit("Identity", name))
    return taken


def write(program: Program, opset: int) -> onnx.ModelProto:
    """The file of a program."""
    specs = program.specs()
    writer = _write(program, opset, specs)
    outputs = _outputs(writer)
    stored = {writer.names[name]: draw(name, spec.shape) for name, spec in program.stored.items()}
    graph = helper.make_graph(
        [
            _node(place, entry.op, entry.inputs, entry.outputs, entry.attributes)
            for place, entry in enumerate(writer.nodes)
        ],
        "fuzz",
        [_info(writer.names[name], spec) for name, spec in program.inputs.items()],
        [_info(name, specs[value]) for name, value in zip(outputs, program.outputs, strict=True)],
        [numpy_helper.from_array(array, name) for name, array in {**stored, **writer.constants}.items()],
    )
    opsets = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8 if opset < 19 else 10)


def _node(
    place: int, op: str, inputs: Sequence[str], outputs: Sequence[str], attributes: dict[str, Any]
) -> onnx.NodeProto:
    made = {k: numpy_helper.from_array(v) if isinstance(v, np.ndarray) else v for k, v in attributes.items()}
    return helper.make_node(op, inputs, outputs, name="" if place % 5 == 4 else f"/net/{op}_{place}", **made)


def _info(name: str, spec: TensorSpec) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, getattr(onnx.TensorProto, _TYPES[dtype_name(spec.dtype)]), spec.shape)


def run(program: Program, opset: int, inputs: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
    """What ONNX Runtime computes, without its optimisations, so that it is the file that is run."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = 1, 1, 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    content = write(program, opset).SerializeToString()
    session = onnxruntime.InferenceSession(content, options, ["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    return tuple(session.run(None, dict(zip(names, inputs, strict=True))))


def source(program: Program, opset: int) -> str:
    """Python that makes ``proto``."""
    specs = program.specs()
    writer = _write(program, opset, specs)
    outputs = _outputs(writer)
    lines = ["nodes = ["]
    for place, entry in enumerate(writer.nodes):
        named = "".join(f", {key}={_value(value)}" for key, value in entry.attributes.items())
        name = "" if place % 5 == 4 else f"/net/{entry.op}_{place}"
        lines.append(
            f"    H.make_node({entry.op!r}, {list(entry.inputs)}, {list(entry.outputs)}, name={name!r}{named}),"
        )
    lines += ["]", "stored = ["]
    for stored, spec in program.stored.items():
        lines.append(f"    N.from_array(draw({stored!r}, {list(spec.shape)}), {writer.names[stored]!r}),")
    for name, array in writer.constants.items():
        lines.append(f"    N.from_array({_array(array)}, {name!r}),")
    ins = [_info_source(writer.names[name], spec) for name, spec in program.inputs.items()]
    outs = [_info_source(name, specs[value]) for name, value in zip(outputs, program.outputs, strict=True)]
    lines += ["]", f"ins = [{', '.join(ins)}]", f"outs = [{', '.join(outs)}]"]
    opsets = f'opset_imports=[H.make_opsetid("", {opset})], ir_version={8 if opset < 19 else 10}'
    return "\n".join([*lines, f'proto = H.make_model(H.make_graph(nodes, "fuzz", ins, outs, stored), {opsets})'])


def _value(value: Any) -> str:
    return f"N.from_array({_array(value)})" if isinstance(value, np.ndarray) else repr(value)


def _array(array: np.ndarray) -> str:
    return f'np.array({array.tolist()}, "{array.dtype}")'


def _info_source(name: str, spec: TensorSpec) -> str:
    return f"H.make_tensor_value_info({name!r}, onnx.TensorProto.{_TYPES[dtype_name(spec.dtype)]}, {list(spec.shape)})"
