"""ONNX suppression where each box has a score in one class alone, against ONNX Runtime and without a list a class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

from lvc.compiler.ir.counts import cut
from lvc.compiler.ir.graph import calls, spec
from lvc.compiler.ir.model import Model
from lvc.compiler.ir.operators import ordering
from lvc.compiler.load.onnx_importer import from_onnx

onnxruntime = pytest.importorskip("onnxruntime")

IMAGES, SIZE, COUNT = 2, 24, 6


def proto(
    *, most: int = SIZE, least: float = 0.3, fill: float = 0.0, table: np.ndarray | None = None
) -> onnx.ModelProto:
    made = onnx.parser.parse_model(f"""
        <ir_version: 8, opset_import: ["": 17]>
        g (float[{IMAGES},{SIZE},4] boxes, float[{IMAGES},1,{SIZE}] keys, int64[{IMAGES},1,{SIZE}] kinds)
          => (int64[n,3] kept) {{
          chosen = Equal(kinds, table)
          scores = Where(chosen, keys, fill)
          kept = NonMaxSuppression(boxes, scores, most, iou, least)
        }}
    """)
    stored = {
        "table": np.arange(COUNT).reshape(1, COUNT, 1) if table is None else table,
        "fill": np.array(fill, np.float32),
        "most": np.array([most]),
        "iou": np.array([0.4], np.float32),
        "least": np.array([least], np.float32),
    }
    made.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in stored.items())
    return made


def loaded(model: onnx.ModelProto, folder: Path) -> Model:
    onnx.save(model, folder / "m.onnx")
    return from_onnx(folder / "m.onnx")


def sorted_elements(model: Model) -> int:
    """How many elements are put in order."""
    return sum(spec(node.args[0]).elements for node in calls(model.module.graph, ordering.argsort))  # type: ignore[arg-type]


SHUFFLED = np.arange(COUNT)[::-1].reshape(1, COUNT, 1).copy()


@pytest.mark.parametrize(
    ("options", "is_short"),
    [
        ({}, True),
        ({"least": 0.0}, True),
        ({"fill": 0.3}, True),
        ({"most": SIZE + 9}, True),
        ({"most": 3}, False),
        ({"fill": 0.5}, False),
        ({"table": SHUFFLED}, False),
    ],
)
def test_boxes_of_one_class_each(options: dict[str, object], is_short: bool, tmp_path: Path) -> None:
    file = proto(**options)  # type: ignore[arg-type]
    model = loaded(file, tmp_path)
    assert (sorted_elements(model) < IMAGES * SIZE * 4) == is_short
    session = onnxruntime.InferenceSession(file.SerializeToString(), providers=["CPUExecutionProvider"])

    @settings(max_examples=30)
    @given(st.integers(0, 1 << 20))
    def check(seed: int) -> None:
        random = np.random.default_rng(seed)
        corners = random.random((IMAGES, SIZE, 2, 2)).astype(np.float32) * 2
        boxes = np.concatenate([corners.min(2), corners.max(2)], -1)
        boxes[:, ::5] = boxes[:, ::5][..., [2, 3, 0, 1]]  # its corners in another order
        keys = random.permuted(
            np.linspace(0.01, 0.99, SIZE, dtype=np.float32) * np.ones((IMAGES, 1, 1), np.float32), axis=2
        )
        kinds = random.integers(-1, COUNT + 1, (IMAGES, 1, SIZE))
        given = {"boxes": boxes, "keys": keys, "kinds": kinds}
        (wanted,) = session.run(None, given)
        (found,) = cut(model.outputs, model.counts, model(*given.values()))
        np.testing.assert_array_equal(found, wanted)

    check()
