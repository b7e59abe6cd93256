"""Attention in one kernel, against PyTorch in double precision, however a graph spells it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from unittest.mock import ANY

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from sketch import Sketch
from torch import nn
from torch.fx import Node

from lvc.backends.tvm import BACKEND
from lvc.backends.tvm.cpu import choices
from lvc.backends.tvm.cpu.code_generator import CpuCodeGenerator
from lvc.backends.tvm.cpu.isa.avx2 import Avx2
from lvc.backends.tvm.cpu.isa.avx512 import Avx512
from lvc.backends.tvm.cpu.isa.sse import Sse
from lvc.backends.tvm.cpu.kernel_schedule import KernelSchedule
from lvc.backends.tvm.cpu.kernels import attention
from lvc.backends.tvm.cpu.kernels.attention_operands import Attention
from lvc.backends.tvm.cpu.vector import Vector
from lvc.backends.tvm.device import NoSuchWay
from lvc.backends.tvm.lower import lower
from lvc.backends.tvm.program import Step
from lvc.compiler.ir.model import Model
from lvc.compiler.load import from_module
from lvc.compiler.load.onnx_importer import from_onnx
from lvc.compiler.pipeline.pipeline import Pipeline
from lvc.compiler.pipeline.workspace import Workspace

aten = torch.ops.aten

AVX2 = CpuCodeGenerator(Vector(Avx2()))
TARGETS = [
    pytest.param("x86-64-v3", marks=pytest.mark.isa("avx2", "fma")),
    pytest.param("x86-64-v4", marks=pytest.mark.isa("avx512f")),
]
LARGE_ERROR = 2e-6  # of a result, as a part of the largest value


@dataclass(frozen=True)
class Case:
    """Sizes, and how a graph spells them."""

    batch: int
    heads: int
    queries: int
    keys: int
    depth: int
    width: int
    operands: str = "packed"  # "apart", "turned"
    scale: str = "query"  # "scores", "divided", ""
    bias: str = ""  # "stored", "computed", "windows"
    mask: str = ""  # "chosen", "added"
    result: str = "joined"  # "plain"


SIZES = st.sampled_from([1, 2, 5, 7, 16, 17, 31, 49, 50, 64, 100, 197])
WIDTHS = st.sampled_from([8, 12, 16, 20, 24, 32, 36, 48, 60, 64, 80, 96])
CASES = st.builds(
    Case,
    batch=st.integers(1, 3),
    heads=st.integers(1, 4),
    queries=SIZES,
    keys=SIZES,
    depth=WIDTHS,
    width=WIDTHS,
    operands=st.sampled_from(["packed", "apart", "turned"]),
    scale=st.sampled_from(["query", "scores", "divided", ""]),
    bias=st.sampled_from(["", "stored", "computed", "windows"]),
    mask=st.sampled_from(["", "chosen", "added"]),
    result=st.sampled_from(["joined", "plain"]),
)


class Spelling:
    """The graph of a case, with inputs for it and what they give in double precision."""

    def __init__(self, case: Case) -> None:
        if case.operands == "packed":  # one layer makes all three
            case = Case(**{**vars(case), "keys": case.queries, "width": case.depth})
        self.case, self.sketch, self.inputs = case, Sketch(), list[torch.Tensor]()
        self.random = torch.Generator().manual_seed(0)
        query, key, value = self.operands()
        scale = case.depth**-0.5
        if case.scale == "query":
            query = query[0] * scale, self.sketch.call(aten.mul.Tensor, query[1], scale)
        scores = query[0] @ key[0].mT, self.sketch.call(aten.matmul.default, query[1], self.turn(key[1]))
        if case.scale == "scores":
            scores = scores[0] * scale, self.sketch.call(aten.mul.Tensor, scores[1], scale)
        elif case.scale == "divided":
            scores = scores[0] * scale, self.sketch.call(aten.div.Tensor, scores[1], 1 / scale)
        weights = self.weights(*scores)
        result = weights[0] @ value[0], self.sketch.call(aten.matmul.default, weights[1], value[1])
        if case.result == "joined":
            shape = [case.batch, case.queries, case.heads * case.width]
            moved = self.sketch.call(aten.permute.default, result[1], [0, 2, 1, 3])
            result = result[0].transpose(1, 2).reshape(shape), self.sketch.call(aten.reshape.default, moved, shape)
        self.expected = result[0].numpy()
        self.model = self.sketch.model(result[1])

    def input(self, *shape: int) -> tuple[torch.Tensor, Node]:
        self.inputs.append(torch.randn(shape, generator=self.random))
        return self.inputs[-1].double(), self.sketch.input(*shape)

    def turn(self, node: Node) -> Node:
        return self.sketch.call(aten.permute.default, node, [0, 1, 3, 2])

    def operands(self) -> list[tuple[torch.Tensor, Node]]:
        c = self.case
        sizes = [(c.queries, c.depth), (c.keys, c.depth), (c.keys, c.width)]
        if c.operands == "packed":
            values, node = self.input(c.batch, c.queries, 3 * c.heads * c.depth)
            shape, order = [c.batch, c.queries, 3, c.heads, c.depth], [2, 0, 3, 1, 4]
            split = self.sketch.call(aten.reshape.default, node, shape)
            split = self.sketch.call(aten.permute.default, split, order)
            parts = [self.sketch.call(aten.slice.Tensor, split, 0, i, i + 1) for i in range(3)]
            shape = [c.batch, c.heads, c.queries, c.depth]
            nodes = [self.sketch.call(aten.reshape.default, part, shape) for part in parts]
            return list(zip(values.reshape(c.batch, c.queries, 3, c.heads, c.depth).permute(order), nodes, strict=True))
        if c.operands == "apart":
            return [self.input(c.batch, c.heads, *size) for size in sizes]
        turned = [self.input(c.batch, c.heads, *size[::-1]) for size in sizes]
        return [(values.mT, self.turn(node)) for values, node in turned]

    def weights(self, scores: torch.Tensor, node: Node) -> tuple[torch.Tensor, Node]:
        c = self.case
        if c.bias == "windows":  # as Swin adds a mask for each window to those of all heads
            mask = torch.randn(c.batch, 1, c.queries, c.keys, generator=self.random)
            scores = scores + mask.double()
            stored = self.sketch.stored(mask[None])
            node = self.sketch.call(aten.reshape.default, node, [1, *scores.shape])
            node = self.sketch.call(aten.add.Tensor, node, stored)
            node = self.sketch.call(aten.reshape.default, node, list(scores.shape))
        elif c.bias == "computed":
            bias, given = self.input(c.batch, c.heads, c.queries, c.keys)
            scores, node = bias + scores, self.sketch.call(aten.add.Tensor, given, node)
        elif c.bias:
            stored = torch.randn(1, c.heads, c.queries, c.keys, generator=self.random)
            scores = scores + stored.double()
            node = self.sketch.call(aten.add.Tensor, node, self.sketch.stored(stored))
        kept = torch.rand(c.queries, c.keys, generator=self.random) < 0.6
        kept[0] = False  # a row that attends to nothing
        if not c.mask:
            return scores.softmax(-1), self.sketch.call(aten.softmax.int, node, 3)
        scores = scores.masked_fill(~kept, -math.inf)
        if c.mask == "chosen":
            lowest = self.sketch.stored(torch.tensor(-math.inf))
            node = self.sketch.call(aten.where.self, self.sketch.stored(kept), node, lowest)
        else:
            added = torch.zeros(kept.shape).masked_fill(~kept, -math.inf)
            node = self.sketch.call(aten.add.Tensor, node, self.sketch.stored(added))
        node = self.sketch.call(aten.softmax.int, node, -1)
        empty, zero = ~kept.any(-1, keepdim=True), self.sketch.stored(torch.tensor(0.0))
        weights = scores.softmax(-1).masked_fill(empty, 0)
        return weights, self.sketch.call(aten.where.self, self.sketch.stored(empty), zero, node)


def attentions(steps: list[Step]) -> list[Step]:
    return [step for step in steps if getattr(step.schedule, "function", None) is attention.schedule]


def run(model: Model, inputs: list[torch.Tensor], target: str, threads: int = 1) -> np.ndarray:
    """What a model gives, all of whose kernels have the schedules that they ask for."""
    parsed = BACKEND.parse_target(target)
    assert parsed is not None
    artefact = BACKEND.build(model, parsed, Workspace(threads=2))
    assert artefact.metadata["remarks"] == []
    (found,) = BACKEND.load(artefact, threads)(*(values.numpy() for values in inputs))
    return found


def error(found: np.ndarray, expected: np.ndarray) -> float:
    assert found.shape == expected.shape
    assert np.isfinite(found).all()
    return float(np.abs(found - expected).max())


@pytest.mark.parametrize("target", TARGETS)
@settings(max_examples=10)
@given(case=CASES)
def test_matches_pytorch_in_double_precision(target: str, case: Case) -> None:
    spelling = Spelling(case)
    parsed = BACKEND.parse_target(target)
    assert parsed is not None
    (step,) = lower(spelling.model, CpuCodeGenerator.of(parsed)).steps
    assert attentions([step])
    assert error(run(spelling.model, spelling.inputs, target, 2), spelling.expected) < LARGE_ERROR * 5


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(
    "case",
    [
        Case(1, 12, 197, 197, 64, 64),
        Case(16, 3, 49, 49, 32, 32, bias="windows"),
        Case(2, 4, 64, 64, 36, 36),
        Case(1, 2, 300, 300, 64, 64, operands="turned", bias="stored", mask="added"),
    ],
    ids=["vit", "swin", "mobilevit", "masked"],
)
def test_is_as_exact_as_kernels_apart(target: str, case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    spelling = Spelling(case)
    together = error(run(spelling.model, spelling.inputs, target), spelling.expected)
    monkeypatch.setattr(attention, "serves", lambda *_: False)
    apart = error(run(spelling.model, spelling.inputs, target), spelling.expected)
    assert together < 1.5 * apart
    assert together < LARGE_ERROR


class Heads(nn.Module):
    """Self-attention of four heads as timm's networks have it, which ``attend`` computes."""

    def __init__(self, width: int = 48, tokens: int = 21) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.bias = nn.Parameter(torch.randn(1, 4, tokens, tokens))
        self.tokens = tokens

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, tokens, width = x.shape
        query, key, value = self.qkv(x).reshape(batch, tokens, 3, 4, width // 4).permute(2, 0, 3, 1, 4).unbind(0)
        mixed: torch.Tensor = self.out(self.attend(query, key, value).transpose(1, 2).reshape(batch, tokens, width))
        return mixed

    def attend(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        return nn.functional.scaled_dot_product_attention(query, key, value)


class Biased(Heads):
    def attend(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        return nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=self.bias)


class Causal(Heads):
    def attend(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        return nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True, scale=0.3)


class Masked(Heads):
    def attend(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        mask = (torch.arange(self.tokens * self.tokens).reshape(self.tokens, -1) % 3 == 0) & (torch.arange(21) > 4)
        mask[7] = False
        return nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)


class Plain(Heads):
    def attend(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        return torch.softmax(query @ key.transpose(-2, -1) / 3 + self.bias, dim=-1) @ value


class Stacked(Heads):
    """Heads in the dimension of the batch, as `torch.bmm` needs them."""

    def attend(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        query, key, value = (part.flatten(0, 1) for part in (query * 0.3, key, value))
        mixed = torch.bmm(torch.bmm(query, key.transpose(1, 2)).softmax(-1), value)
        return mixed.unflatten(0, (-1, 4))


class Multihead(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.MultiheadAttention(48, 4, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mixed: torch.Tensor = self.inner(x, x, x, need_weights=False)[0]
        return mixed


@pytest.mark.isa("avx2", "fma")
@pytest.mark.parametrize("network", [Heads, Biased, Causal, Masked, Plain, Stacked, Multihead])
def test_spellings_of_pytorch(network: type[nn.Module]) -> None:
    module, x = network().eval(), torch.randn(2, 21, 48)
    model, _ = Pipeline.parse("O2").run(from_module(module, x))
    steps = lower(model, AVX2).steps
    (found,) = attentions(steps)
    place = steps.index(found)
    assert [steps[i].nodes[0].partition("_")[0] for i in (place - 1, place + 1)] == ["linear", "linear"]
    expected = module.double()(x.double()).detach().numpy()
    assert error(run(model, [x], "x86-64-v3"), expected) < LARGE_ERROR


@pytest.mark.isa("avx2", "fma")
def test_the_spelling_of_onnx(tmp_path: object) -> None:
    shapes = {"q": [1, 3, 49, 32], "k": [1, 49, 3, 32], "v": [1, 49, 3, 32], "bias": [1, 1, 49, 49]}
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    root = helper.make_tensor("root", TensorProto.FLOAT, [], [math.sqrt(32)])
    nodes = [
        helper.make_node("Transpose", ["k"], ["turned"], perm=[0, 2, 3, 1]),
        helper.make_node("Transpose", ["v"], ["values"], perm=[0, 2, 1, 3]),
        helper.make_node("MatMul", ["q", "turned"], ["products"]),
        helper.make_node("Div", ["products", "root"], ["scaled"]),
        helper.make_node("Add", ["scaled", "bias"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["weights"], axis=-1),
        helper.make_node("MatMul", ["weights", "values"], ["y"]),
    ]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3, 49, 32])]
    graph = helper.make_graph(nodes, "attention", inputs, outputs, [root])
    path = tmp_path / "attention.onnx"  # type: ignore[operator]
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)
    model, _ = Pipeline.parse("O2").run(from_onnx(path))
    assert attentions(lower(model, AVX2).steps)
    q, k, v, bias = given = [torch.randn(shape) for shape in shapes.values()]
    keys, values = k.double().permute(0, 2, 3, 1), v.double().transpose(1, 2)
    expected = (q.double() @ keys / math.sqrt(32) + bias).softmax(-1) @ values
    assert error(run(model, given, "x86-64-v3"), expected.numpy()) < LARGE_ERROR


class Shown(Heads):
    """The weights are an output too."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:  # type: ignore[override]
        weights = (x @ x.transpose(1, 2) * 0.1).softmax(-1)
        return weights @ (x + 1), weights


class Rounded(Heads):
    """Scores are rounded to 8 bits, which small differences could change."""

    def attend(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        scores = torch.fake_quantize_per_tensor_affine(query @ key.transpose(-2, -1), 0.05, 0, -128, 127)
        return scores.softmax(-1) @ value


class Crossed(Heads):
    """Softmax goes along the queries."""

    def attend(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        return (query @ key.transpose(-2, -1)).softmax(-2) @ value


@pytest.mark.parametrize("network", [Shown, Rounded, Crossed])
def test_what_is_no_attention_alone_stays_in_kernels_apart(network: type[nn.Module]) -> None:
    module, x = network().eval(), torch.randn(2, 21, 48)
    model, _ = Pipeline.parse("O2").run(from_module(module, x))
    assert not attentions(lower(model, AVX2).steps)


def test_integers_and_short_types_stay_in_kernels_apart() -> None:
    model = from_module(Heads().eval(), torch.randn(1, 21, 48))
    images = [(np.random.default_rng(0).normal(size=(1, 21, 48)).astype(np.float32), None)]
    for text in (
        "O2,lower-precision",
        "O2,insert-fake-quant,calibrate",
        "O2,insert-fake-quant,calibrate,lower-to-integer",
    ):
        rewritten, _ = Pipeline.parse(text).run(model, Workspace({"calib": lambda: images}))
        assert not attentions(lower(rewritten, AVX2).steps)


def test_only_wide_vectors_and_rows_that_fit_have_the_kernel() -> None:
    model = Spelling(Case(1, 2, 50, 50, 32, 32)).model
    assert attentions(lower(model, AVX2).steps)
    assert not attentions(lower(model, CpuCodeGenerator(Vector(Sse()))).steps)
    assert attention.serves(Attention((1,), 4096, 4096, 64, 64), Vector(Avx2()))
    assert not attention.serves(Attention((1,), 1 << 16, 1 << 16, 64, 64), Vector(Avx2()))


@given(case=CASES, vector=st.sampled_from([Vector(Avx2()), Vector(Avx512())]))
def test_blocks_fit_the_caches_and_every_row_is_in_one(case: Case, vector: Vector) -> None:
    problem = Attention((case.batch, case.heads), case.queries, case.keys, case.depth, case.width, lanes=vector.lanes)
    knobs = attention.choose_knobs(problem, vector)
    assert 1 <= knobs.rows <= case.queries
    assert knobs.score_rows <= knobs.rows
    assert 4 * knobs.rows * problem.pitch <= vector.machine.second.size / 2
    found = attention.space(problem, vector)
    assert found.point(knobs) in found.points
    assert all(found.knobs(point).rows <= case.queries for point in found.points)


@pytest.mark.isa("avx2", "fma")
def test_every_way_computes_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    spelling = Spelling(Case(1, 2, 50, 37, 20, 24, operands="apart", bias="stored"))
    target = BACKEND.parse_target("x86-64-v3")
    assert target is not None
    generator = CpuCodeGenerator.of(target)
    (step,) = lower(spelling.model, generator).steps
    assert isinstance(step.schedule, KernelSchedule)
    ways = generator.ways(step.schedule)
    assert ways is not None
    texts = [text for text, _ in ways.all()]
    assert ways.rule in texts
    for text in texts[::9]:
        chosen = choices.chosen(step.schedule, generator.vector, text)
        assert generator.ways(chosen) == replace(ways, rule=text, all=ANY)
        for parts in (1, 3):
            knobs = replace(chosen.knobs, row_parts=parts, rows=min(chosen.knobs.rows, 50 // parts))
            monkeypatch.setattr(attention, "choose_knobs", lambda *_, knobs=knobs: knobs)
            assert error(run(spelling.model, spelling.inputs, "x86-64-v3", 2), spelling.expected) < LARGE_ERROR


def test_a_choice_of_another_kernel_or_of_no_knobs_is_refused() -> None:
    (step,) = lower(Spelling(Case(1, 2, 50, 50, 32, 32)).model, AVX2).steps
    with pytest.raises(NoSuchWay, match="no kernel"):
        AVX2.chosen(step.schedule, '{"kernel": "matmul", "vectors": 2}')
    with pytest.raises(NoSuchWay, match="no knobs"):
        AVX2.chosen(step.schedule, '{"kernel": "attention", "score_vectors": 9, "score_rows": 9}')
