"""Read an ONNX file into a checked `ModelProto`. The file is untrusted: sizes are bounded, paths stay in its folder."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnx.numpy_helper
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from lvc.compiler.errors import CompileError, UsageError
from lvc.compiler.ir.counts import from_plain, visible
from lvc.compiler.ir.model import PROPERTY, Model
from lvc.compiler.ir.task import check_task
from lvc.compiler.load.appearance import appearance
from lvc.compiler.load.onnx_importer.scopes import inner_graphs

MIN_OPSET, MAX_OPSET = 7, 28
MAX_MODEL_BYTES = 2 << 30  # what protobuf itself can hold
MAX_TENSOR_BYTES = 8 << 30
MAX_SPARSE = 1 << 28  # elements of a tensor that is stored sparse
MAX_DEPTH = 16  # of graphs inside the nodes of graphs


def read_proto(file: Path) -> onnx.ModelProto:
    """Parse a file and check its opset, stored tensors and data beside it; `CompileError` says what is wrong."""
    proto = _parse(file)
    opset = opset_of(proto, file)
    if not MIN_OPSET <= opset <= min(MAX_OPSET, onnx.defs.onnx_opset_version()):
        raise CompileError(
            f"{file.name} uses ONNX opset {opset}",
            where=str(file),
            why=f"opsets {MIN_OPSET} to {MAX_OPSET} can be read",
            help="convert it with onnx.version_converter, or export it again with a newer opset",
        )
    for tensor in all_tensors(proto, file):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            _load_external(tensor, file)
        _check_size(tensor, file)
    _fill_sparse(proto.graph, file)
    return proto


def _fill_sparse(graph: onnx.GraphProto, file: Path) -> None:
    """Put dense tensors in place of the sparse ones, those of inner graphs included."""
    for sparse in graph.sparse_initializer:
        shape = tuple(sparse.dims)
        if min(shape, default=0) < 0 or math.prod(shape) > MAX_SPARSE:
            raise _broken_tensor(sparse.values, file, f"its shape is {list(shape)}")
        try:
            values, places = (onnx.numpy_helper.to_array(part) for part in (sparse.values, sparse.indices))
            dense = np.zeros(shape, values.dtype)
            flat = np.ravel_multi_index(tuple(places.T), shape) if places.ndim > 1 else places
            dense.reshape(-1)[flat] = values
        except (ValueError, IndexError, TypeError) as error:
            raise _broken_tensor(sparse.values, file, str(error)) from error
        graph.initializer.append(onnx.numpy_helper.from_array(dense, sparse.values.name))
    del graph.sparse_initializer[:]
    for node in graph.node:
        for inner in inner_graphs(node):
            _fill_sparse(inner, file)


def opset_of(proto: onnx.ModelProto, file: Path) -> int:
    """Return the version of the standard operators that a model uses."""
    versions = [entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")]
    if not versions:
        raise CompileError(f"{file.name} does not say which ONNX opset it uses", where=str(file))
    return int(versions[0])


def take_usage(model: Model, proto: onnx.ModelProto) -> None:
    """Give a model what lvc wrote into its file besides the graph, see `Model.usage`; what does not fit is left out."""
    own = [entry for entry in proto.metadata_props if entry.key.startswith(PROPERTY)]
    found = {entry.key.removeprefix(PROPERTY): _property(entry.value) for entry in own}
    preprocessing, labels, task = (found.get(key) for key in ("preprocessing", "labels", "task"))
    model.preprocessing = preprocessing if isinstance(preprocessing, str) else None
    model.labels = tuple(map(str, labels)) if isinstance(labels, list) else None
    with contextlib.suppress(UsageError):
        model.counts = model.counts or from_plain(found.get("counts"), model.outputs)
    with contextlib.suppress(UsageError):
        model.task = check_task(str(task), model.inputs, visible(model.outputs, model.counts)) if task else None


def _property(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def all_tensors(proto: onnx.ModelProto, file: Path) -> Iterator[onnx.TensorProto]:
    """Yield every tensor stored in a model, its functions included."""
    yield from _graph_tensors(proto.graph, file, 0)
    for function in proto.functions:
        yield from _node_tensors(function.node, file, 0)


def _graph_tensors(graph: onnx.GraphProto, file: Path, depth: int) -> Iterator[onnx.TensorProto]:
    """Every tensor stored in a graph: initialisers, attributes, and those of the graphs inside nodes."""
    if depth > MAX_DEPTH:
        raise CompileError(f"{file.name} nests graphs more than {MAX_DEPTH} deep", where=str(file))
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from _node_tensors(graph.node, file, depth)


def _node_tensors(nodes: object, file: Path, depth: int) -> Iterator[onnx.TensorProto]:
    for node in nodes:  # type: ignore[attr-defined]
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for inner in [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]:
                yield from _graph_tensors(inner, file, depth + 1)


def _parse(file: Path) -> onnx.ModelProto:
    try:
        size = file.stat().st_size
        if size > MAX_MODEL_BYTES:
            raise CompileError(
                f"{file.name} is larger than an ONNX file can be",
                where=str(file),
                why=f"it has {size} bytes; protobuf ends at {MAX_MODEL_BYTES}",
                help="store the weights as external data",
            )
        content = file.read_bytes()
    except OSError as error:
        raise CompileError(f"cannot read {file.name}", where=str(file), why=error.strerror or str(error)) from error
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(content)
    except DecodeError as error:
        raise _not_onnx(file, content, "its bytes do not parse as protobuf: it may be truncated") from error
    if not proto.HasField("graph") or not proto.ir_version:
        raise _not_onnx(file, content, "it holds no graph" if content else "it is empty")
    return proto


def _not_onnx(file: Path, content: bytes, why: str) -> CompileError:
    seen = appearance(content)
    why, help = (f"it is {seen.what}", seen.help) if seen else (why, "export or download the file again")
    return CompileError(f"{file.name} is not an ONNX model", where=str(file), why=why, help=help)


def _load_external(tensor: onnx.TensorProto, file: Path) -> None:
    """Move a tensor's bytes from the file beside the model into the tensor."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    where = f"{file}, tensor '{tensor.name}'"
    location = entries.get("location", "")
    path = (file.parent / location).resolve()
    if not location or Path(location).is_absolute() or not path.is_relative_to(file.parent.resolve()):
        raise CompileError(
            "external data must lie in the model's folder", where=where, why=f"its location is '{location}'"
        )
    try:
        offset, length = int(entries.get("offset", 0)), int(entries.get("length", -1))
        size = path.stat().st_size
        length = size - offset if length < 0 else length
        if not path.is_file() or offset < 0 or length > MAX_TENSOR_BYTES or offset + length > size:
            why = f"bytes {offset} to {offset + length} are wanted of {size}"
            raise CompileError(f"the external data '{location}' does not hold the tensor", where=where, why=why)
        with path.open("rb") as stream:
            stream.seek(offset)
            tensor.raw_data = stream.read(length)
    except (OSError, ValueError) as error:
        raise CompileError(
            f"cannot read the external data '{location}'",
            where=where,
            why=str(error),
            help="keep the data file beside the model, under the name it was exported with",
        ) from error
    tensor.data_location = onnx.TensorProto.DEFAULT
    del tensor.external_data[:]


def _check_size(tensor: onnx.TensorProto, file: Path) -> None:
    """Refuse a header that promises more or fewer elements than there are."""
    elements = math.prod(tensor.dims)
    if min(tensor.dims, default=0) < 0 or elements > MAX_TENSOR_BYTES:
        raise _broken_tensor(tensor, file, f"its shape is {list(tensor.dims)}")
    try:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    except KeyError:
        raise _broken_tensor(tensor, file, f"its element type is number {tensor.data_type}") from None
    if tensor.HasField("raw_data") and dtype.itemsize * elements != len(tensor.raw_data) and not _is_packed(tensor):
        raise _broken_tensor(tensor, file, f"shape {list(tensor.dims)} does not fit {len(tensor.raw_data)} bytes")


def _is_packed(tensor: onnx.TensorProto) -> bool:
    name = str(onnx.TensorProto.DataType.Name(tensor.data_type))
    return name.endswith(("INT4", "INT2", "E2M1"))


def _broken_tensor(tensor: onnx.TensorProto, file: Path, why: str) -> CompileError:
    return CompileError(
        f"the stored tensor '{tensor.name}' is broken", where=str(file), why=why, help="export or download it again"
    )
