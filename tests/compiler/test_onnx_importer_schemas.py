"""Every attribute and optional operand that the standard gives a converted operator, at any opset, is honoured."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator
from onnx_samples import IRRELEVANT, REFUSED, SAMPLES, STORED
from test_onnx_importer import write

from lvc.compiler.data.seeded import seeded_inputs
from lvc.compiler.errors import CompileError
from lvc.compiler.ir.counts import cut
from lvc.compiler.ir.verify import verify
from lvc.compiler.load.onnx_importer import build, from_onnx
from lvc.compiler.load.onnx_importer.call import CONVERTERS, Call
from lvc.compiler.load.onnx_importer.read import MAX_OPSET, MIN_OPSET
from lvc.compiler.load.onnx_importer.schemas import schema_of
from lvc.compiler.load.onnx_importer.values import Value
from lvc.compiler.pipeline.observers import relative_difference

onnxruntime = pytest.importorskip("onnxruntime")


def save(folder: Path, opset: int, nodes: str) -> Path:
    """Write a sample, the type of its result as the standard infers it."""
    words = set(nodes.replace("(", " ").replace(")", " ").replace(",", " ").split())
    stored = {name: value for name, value in STORED.items() if name in words}
    file = write(folder, f"g (float[2,4,6,6] x) => (float y) {{ {nodes} }}", opset, **stored)
    proto = onnx.load(file)
    proto.graph.output[0].type.Clear()
    inferred = onnx.shape_inference.infer_shapes(proto).graph.output[0].type.tensor_type.elem_type
    proto.graph.output[0].type.tensor_type.elem_type = inferred or onnx.TensorProto.FLOAT
    onnx.save(proto, file)
    return file


def expected(file: Path, opset: int, x: np.ndarray) -> Any:
    """What ONNX Runtime makes of a sample, or the standard's reference where it does not know the opset yet."""
    if opset > 25:
        return ReferenceEvaluator(str(file)).run(None, {"x": x})[0]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


@pytest.mark.parametrize(("opset", "nodes"), SAMPLES)
def test_sample(tmp_path: Path, opset: int, nodes: str) -> None:
    file = save(tmp_path, opset, nodes)
    model = from_onnx(file)
    verify(model)
    (x,) = seeded_inputs(model.inputs, 0)
    found, wanted = cut(model.outputs, model.counts, model(x))[0], expected(file, opset, x)
    assert (found.dtype, found.shape) == (wanted.dtype, wanted.shape)
    assert relative_difference(found, wanted) < 1e-4


@pytest.mark.parametrize(("opset", "nodes", "why"), REFUSED)
def test_sample_is_refused(tmp_path: Path, opset: int, nodes: str, why: str) -> None:
    with pytest.raises(CompileError) as caught:
        from_onnx(save(tmp_path, opset, nodes))
    assert why in caught.value.why


class _Attributes(dict[str, Any]):
    """A node's attributes; remembers which were asked for."""

    def __init__(self, given: dict[str, Any]) -> None:
        super().__init__(given)
        self.asked: set[str] = set()

    def get(self, name: str, default: Any = None) -> Any:
        self.asked.add(name)
        return super().get(name, default)

    def __getitem__(self, name: str) -> Any:
        self.asked.add(name)
        return super().__getitem__(name)


@dataclass
class _Watched(Call):
    """A call that remembers what its converter read, and lets it assume no defaults but those of the standard."""

    def __post_init__(self) -> None:
        self.looked: set[int] = set()
        self.attributes = _Attributes(dict(self.attributes))

    def get(self, index: int) -> Value | None:
        self.looked.add(index)
        return super().get(index)

    def attribute(self, name: str, default: Any = None) -> Any:
        schema = schema_of(self.op, self.opset)
        if schema is not None and name in schema.attributes and name not in self.attributes:
            wanted = default_of(schema.attributes[name])
            assert wanted is None or is_same(wanted, default), f"{self.op} of opset {self.opset}: {name}={default}"
        return super().attribute(name, default)

    def given(self) -> set[tuple[str, int, str]]:
        """The attributes that are not the default, and the operands, with operator and opset."""
        schema = schema_of(self.op, self.opset)
        assert schema is not None
        names = {n for n in self.attributes if not is_same(default_of(schema.attributes[n]), self.attributes[n])}
        places = range(min(len(self.operands), len(schema.inputs)))
        names |= {schema.inputs[place].name for place in places if self.operands[place] is not None}
        return {(self.op, self.opset, name) for name in names}

    def seen(self) -> set[tuple[str, int, str]]:
        """Those of the given that the converter looked at."""
        schema = schema_of(self.op, self.opset)
        assert schema is not None
        assert isinstance(self.attributes, _Attributes)
        looked = self.attributes.asked.copy()
        looked |= {schema.inputs[place].name for place in self.looked if place < len(schema.inputs)}
        return {found for found in self.given() if found[2] in looked}


def default_of(attribute: onnx.defs.OpSchema.Attribute) -> Any:
    if attribute.default_value is None or not attribute.default_value.name:
        return None
    value = onnx.helper.get_attribute_value(attribute.default_value)
    if isinstance(value, list):
        return [part.decode() if isinstance(part, bytes) else part for part in value]
    return value.decode() if isinstance(value, bytes) else value


def is_same(a: Any, b: Any) -> bool:
    if a is None or b is None:
        return a is b
    return math.isclose(a, b, rel_tol=1e-6) if isinstance(a, float) and isinstance(b, (int, float)) else bool(a == b)


def signatures(operator: str) -> Iterator[tuple[int, onnx.defs.OpSchema]]:
    """The opsets at which an operator's attributes, defaults or operands become others, and its schema there."""
    before = None
    for opset in range(MIN_OPSET, MAX_OPSET + 1):
        schema = schema_of(operator, opset)
        if schema is None:
            continue
        attributes = {name: default_of(attribute) for name, attribute in schema.attributes.items()}
        signature = attributes, [(value.name, value.option) for value in schema.inputs]
        if signature != before:
            yield opset, schema
        before = signature


def test_every_attribute_and_optional_operand_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The samples hold each with a value of its own at each of its forms, the converter looks at it, and the outcome is
    compared with ONNX Runtime above; or it is refused; or it is listed with the reason why it means nothing here."""
    calls: list[_Watched] = []
    monkeypatch.setattr(build, "Call", lambda *arguments: calls.append(_Watched(*arguments)) or calls[-1])
    for opset, nodes in SAMPLES:
        from_onnx(save(tmp_path, opset, nodes))
    read = {found for call in calls for found in call.seen()}
    for opset, nodes, _ in REFUSED:
        with pytest.raises(CompileError):
            from_onnx(save(tmp_path, opset, nodes))
        read |= calls[-1].given()
    missing = []
    for operator in sorted(name for name in CONVERTERS if "." not in name):
        forms = list(signatures(operator))
        for (opset, schema), (end, _) in zip(forms, [*forms[1:], (MAX_OPSET + 1, None)], strict=bool(forms)):
            optional = [v.name for v in schema.inputs if v.option == onnx.defs.OpSchema.FormalParameterOption.Optional]
            for name in [*schema.attributes, *optional]:
                exercised = any((operator, at, name) in read for at in range(opset, end))
                if not exercised and (operator, name) not in IRRELEVANT:
                    missing.append(f"{operator} of opset {opset}: {name}")
    assert not missing
