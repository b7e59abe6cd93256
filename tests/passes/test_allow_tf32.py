"""TF32: how numbers are rounded to it, what marks say and where they are kept, and which targets are refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lvc.compiler.backend import Target
from lvc.compiler.driver import check_request
from lvc.compiler.errors import CompileError, UsageError
from lvc.compiler.ir.dialect import aten
from lvc.compiler.ir.graph import calls
from lvc.compiler.ir.graph_text import parse_model
from lvc.compiler.ir.marks import TF32
from lvc.compiler.ir.model import Model
from lvc.compiler.ir.serialise import GRAPH, from_files, to_files
from lvc.compiler.ir.tf32 import to_tf32
from lvc.compiler.measure.precision import tf32_outputs
from lvc.compiler.pipeline.pipeline import Pipeline
from lvc.compiler.verification.closeness import Comparison

TEXT = """model one(image: f32[1,16,12,12])
  @w : f32[16,16,3,3]
  @b : f32[16]
  %conv = conv2d(%image, @w, @b, [1, 1], [1, 1])
  return out=%conv
"""


def marked(text: str = "allow-tf32") -> Model:
    return Pipeline.parse(text).run(parse_model(TEXT))[0]


def marks(model: Model) -> list[object]:
    return [node.meta.get(TF32) for node in calls(model.module.graph)]


@settings(max_examples=200, deadline=None)
@given(st.floats(width=32, allow_nan=False))
def test_rounding_is_to_the_nearest_number_with_ten_bits(value: float) -> None:
    """Ties away from zero; against the definition, in double precision."""
    (found,) = to_tf32(torch.tensor([value])).tolist()
    if not np.isfinite(value):
        assert found == value
        return
    _, exponent = np.frexp(np.float64(value))
    step = 2.0 ** (max(int(exponent), -125) - 11)
    wanted = np.copysign(np.floor(abs(value) / step + 0.5) * step, value)
    assert found == (wanted if abs(wanted) < 2.0**128 else np.copysign(np.inf, value))


def test_no_number_stays_none() -> None:
    patterns = torch.tensor([0x7F800001, 0x7FFFFFFF, -1, -(1 << 23) + 1], dtype=torch.int32)
    assert to_tf32(patterns.view(torch.float32)).isnan().all()


def test_marks_are_written_and_read() -> None:
    model = marked()
    read = from_files(to_files(model))
    assert marks(read) == marks(model.copy()) == marks(parse_model(model.to_text())) == [1]
    assert marks(marked("allow-tf32,allow-tf32{skip=conv}")) == [None]
    files = to_files(model)
    with pytest.raises(CompileError, match="damaged"):
        from_files(files | {GRAPH: files[GRAPH].replace(b'"tf32":1', b'"tf32":"1"')})


def test_the_graph_is_what_it_was() -> None:
    x = np.random.default_rng(0).standard_normal((1, 16, 12, 12)).astype(np.float32)
    np.testing.assert_array_equal(marked()(x)[0], parse_model(TEXT)(x)[0])


def test_the_check_knows_what_is_rounded() -> None:
    """Both factors, and nothing that is not marked or that is further away."""
    model, random = marked(), np.random.default_rng(0)
    x = random.standard_normal((1, 16, 12, 12)).astype(np.float32)
    weight, bias = model.module.w, model.module.b
    rounded = aten.conv2d.default(to_tf32(torch.from_numpy(x)), to_tf32(weight), bias, [1, 1], [1, 1])
    (found,) = tf32_outputs(model, (x,))
    np.testing.assert_array_equal(found, rounded.detach().numpy())
    assert Comparison(model, [x], model(x), [found]).explanation == "factors rounded to TF32"
    assert Comparison(parse_model(TEXT), [x], model(x), [found]).explanation is None
    assert Comparison(model, [x], model(x), [found * 1.01]).explanation is None


@pytest.mark.parametrize("text", ["cuda", "cuda:sm_75", "x86-64-v3", "cortex-a76"])
def test_targets_without_it_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match=f"the target '{text}' cannot multiply tf32") as caught:
        check_request(Pipeline.parse("O2").with_precision(TF32), Target.parse(text))
    assert "take --precision fp32, or a target that has it: cuda:sm_80" in caught.value.help


@pytest.mark.parametrize("text", ["onnx", "reference"])
def test_backends_that_would_ignore_it_refuse_it(text: str) -> None:
    with pytest.raises(UsageError, match=f"the target '{text}' cannot multiply tf32") as caught:
        check_request(Pipeline.parse("allow-tf32"), Target.parse(text))
    assert caught.value.why == "it is a mark that the backend would ignore"


def test_what_prunes_between_layers_may_bring_it() -> None:
    assert Pipeline.parse("prune-channels{between=allow-tf32}").elements == {TF32}
