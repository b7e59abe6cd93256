"""Linear layers with scales that follow the data: their meaning, and kernels that match it bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from lvc.compiler.backend import Executable, Target
from lvc.compiler.data.seeded import seeded_inputs
from lvc.compiler.errors import CompileError, UsageError
from lvc.compiler.ir.graph import calls
from lvc.compiler.ir.graph_text import parse_model
from lvc.compiler.ir.model import Model
from lvc.compiler.ir.operators import dynamic, integer
from lvc.compiler.load import from_module
from lvc.compiler.measure.coverage import Coverage
from lvc.compiler.pipeline.catalogue import BACKENDS
from lvc.compiler.pipeline.observers import Verifier, relative_difference
from lvc.compiler.pipeline.pipeline import Pipeline
from lvc.compiler.pipeline.workspace import Workspace


def native(model: Model) -> Executable:
    target = Target.parse("native")
    backend = BACKENDS.get(target.backend)
    return backend.load(backend.build(model, target, Workspace(threads=1)), 1)


class Attention(nn.Module):
    """A layer of a transformer, whose first linear layer has no bias, and two read the same tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(48)
        self.first = nn.Linear(48, 70, bias=False)
        self.gate = nn.Linear(48, 70)
        self.last = nn.Linear(70, 48)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm(x)
        return x + self.last(nn.functional.gelu(self.first(y)) * torch.sigmoid(self.gate(y)))


def attention() -> Model:
    torch.manual_seed(0)
    return from_module(Attention(), torch.zeros(1, 9, 48), name="attention")


def test_the_scale_of_each_row() -> None:
    x = torch.tensor([[127.0, -63.5, 0.5], [0.0, 0.0, 0.0], [-1.27, 0.01, 0.635]])
    scale = dynamic.row_scale(x)
    assert scale.shape == (3, 1)
    assert float(scale[0]) == pytest.approx(1.0)
    q = dynamic.quantise_rows(x, scale)
    assert q.dtype == torch.int8
    assert q.tolist() == [[127, -64, 0], [0, 0, 0], [-127, 1, 64]]  # halves go to the even number


@pytest.mark.parametrize(("x", "scale"), [(torch.zeros(2, 3), torch.ones(3, 1)), (torch.zeros(2).int(), torch.ones(1))])
def test_what_is_no_row_is_refused(x: torch.Tensor, scale: torch.Tensor) -> None:
    with pytest.raises(TypeError):
        dynamic.quantise_rows(x, scale)


ROWS = parse_model("""
    model rows(x: f32[5,37])
      %s = lvc.row_scale(%x)
      %q = lvc.quantise_rows(%x, %s)
      return s=%s, q=%q
""")


@pytest.fixture(scope="module")
def rows() -> Executable:
    return native(ROWS)


@given(seed=st.integers(0, 1 << 30), exponent=st.integers(-120, 100), halves=st.booleans())
def test_kernels_round_as_the_meaning_says(rows: Executable, seed: int, exponent: int, halves: bool) -> None:
    x = np.random.default_rng(seed).standard_normal((5, 37))
    if halves:
        x = np.round(x * 40) / 2
        x[:, 0] = 127
    x = np.ldexp(x, exponent).astype(np.float32)
    x[seed % 5] *= seed % 2
    for found, wanted in zip(rows(x), ROWS(x), strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_layers_become_integer_layers() -> None:
    model = attention()
    made, (step,) = Pipeline.parse("quantise-dynamically").run(model, observers=[Verifier()])
    assert step.outcome.changed == ["linear", "linear_1", "linear_2"]
    assert step.outcome.notes[0].startswith("100.0 % of ")
    assert Coverage.of(made).share == 1.0
    assert len(list(calls(made.module.graph, dynamic.quantise_rows))) == 2
    assert len(list(calls(made.module.graph, integer.linear))) == 3
    inputs = seeded_inputs(model.inputs, 0)
    assert 1e-5 < relative_difference(made(*inputs)[0], model(*inputs)[0]) < 0.02
    assert made.bytes < 0.4 * model.bytes


def test_code_gives_the_model() -> None:
    made, _ = Pipeline.parse("O1,quantise-dynamically,fuse-operators").run(attention())
    inputs = seeded_inputs(made.inputs, 0)
    assert relative_difference(native(made)(*inputs)[0], made(*inputs)[0]) < 1e-4


def test_a_layer_alone_is_bit_exact() -> None:
    torch.manual_seed(0)
    model = from_module(nn.Linear(75, 33), torch.zeros(4, 75), name="layer")
    made, _ = Pipeline.parse("quantise-dynamically,fuse-operators").run(model)
    inputs = seeded_inputs(made.inputs, 0)
    sums = next(calls(made.module.graph, integer.rescale))
    made.module.graph.output_node().args = ((sums,),)
    made.module.recompile()
    np.testing.assert_array_equal(native(made)(*inputs)[0], made(*inputs)[0])


def test_what_stays_is_said() -> None:
    model = attention()
    made, (step,) = Pipeline.parse('quantise-dynamically{skip="gate" only="*"}').run(model)
    assert [(skip.origin, skip.reason) for skip in step.outcome.skipped] == [("gate", "skip=gate leaves it out")]
    _, (again,) = Pipeline.parse("quantise-dynamically{skip=gate}").run(made)
    assert again.outcome.changed == []
    with pytest.raises(UsageError, match="matches nothing"):
        Pipeline.parse("quantise-dynamically{only=head}").run(model)


def test_onnx_refuses() -> None:
    made, _ = Pipeline.parse("quantise-dynamically").run(attention())
    with pytest.raises(CompileError, match="cannot be written as ONNX"):
        BACKENDS.get("onnx").build(made, Target.parse("onnx"), Workspace())
