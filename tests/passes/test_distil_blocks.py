"""Block by block: each block is trained towards the teacher's by itself, wherever channels were removed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from training_models import Pictures, network, weights, workspace

from lvc.compiler.data.access import access
from lvc.compiler.errors import UsageError
from lvc.compiler.ir.dialect import aten
from lvc.compiler.ir.graph import calls, origin
from lvc.compiler.ir.graph_text import parse_model
from lvc.compiler.ir.model import Model
from lvc.compiler.pipeline.pipeline import Pipeline, Step
from lvc.compiler.pipeline.workspace import Workspace
from lvc.passes.training.blocks import Ends, matched
from lvc.passes.training.form import TrainingForm
from lvc.passes.training.pairing import Pair, is_neck

FEW = Pictures(64, labelled=False)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def residual() -> Model:
    """Two residual blocks and scores; the streams and what lies inside can be narrowed."""
    model = parse_model("""
        model residual(x: f32[1,3,8,8])
          @w0 : f32[8,3,3,3]
          @w1 : f32[8,8,3,3]
          @w2 : f32[8,8,3,3]
          @w3 : f32[8,8,3,3]
          @w4 : f32[8,8,3,3]
          @h : f32[4,8]
          %c0 = conv2d(%x, @w0, None, [1, 1], [1, 1])
          %r0 = relu(%c0)
          %c1 = conv2d(%r0, @w1, None, [1, 1], [1, 1])
          %r1 = relu(%c1)
          %c2 = conv2d(%r1, @w2, None, [1, 1], [1, 1])
          %s1 = add(%c2, %r0)
          %e1 = relu(%s1)
          %c3 = conv2d(%e1, @w3, None, [1, 1], [1, 1])
          %r3 = relu(%c3)
          %c4 = conv2d(%r3, @w4, None, [1, 1], [1, 1])
          %s2 = add(%c4, %e1)
          %e2 = relu(%s2)
          %a = mean(%e2, [2, 3])
          %y = linear(%a, @h)
          return scores=%y
    """)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for value in model.module.parameters():
            value.copy_(torch.randn(value.shape, generator=generator) * (2 / value[0].numel()) ** 0.5)
        model.module.h.mul_(20)  # means over places differ little from image to image
    return model


def named(model: Model, *names: str) -> list[torch.fx.Node]:
    return [node for node in model.module.graph.nodes if node.name in names]


def pruned(model: Model, ratio: float = 0.25) -> Model:
    return Pipeline.parse(f"prune-channels{{ratio={ratio}}}").run(model, Workspace())[0]


def run(text: str, model: Model, original: Model, space: Workspace) -> tuple[Model, Step]:
    after, (step,) = Pipeline.parse(text).run(model, replace(space, original=original))
    return after, step


def error(model: Model, teacher: Model) -> float:
    """How far scores are apart on other images; a constant for all classes says nothing."""
    pairs = [(torch.tensor(model(x)[0]), torch.tensor(teacher(x)[0])) for x, _ in Pictures(40, seed=5)]
    return float(sum(((a - a.mean()) - (b - b.mean())).square().mean() for a, b in pairs) / len(pairs))


def test_blocks_end_where_one_value_leads_on() -> None:
    model = residual()
    necks = [node.name for node in model.module.graph.nodes if node.op == "call_function" and is_neck(node)]
    assert necks == ["c0", "r0", "s1", "e1", "s2", "e2", "a", "y"]
    pair = Pair(pruned(model), model, is_descendant=True)
    ends = Ends.of(pair, access(FEW), 8)
    assert [(origin(ours), origin(theirs)) for ours, theirs in ends.nodes] == [(n, n) for n in ("r0", "e1", "e2")]


def test_weights_that_are_rounded_in_the_graph_are_no_way_around() -> None:
    model, _ = Pipeline.parse("insert-fake-quant,calibrate").run(residual(), workspace(calib=FEW))
    assert {node.name for node in model.module.graph.nodes if is_neck(node)} >= {"r0", "e1", "e2"}


def test_channels_belong_to_those_that_they_came_from() -> None:
    """Weights of a student are the first teacher's channels 7, 0 and 4, so that its values are those."""
    teacher = residual()
    kept = torch.tensor([7, 0, 4])
    student = teacher.copy()
    for name, dims in {"w0": (0,), "w1": (1,), "w2": (0,), "w3": (1,), "w4": (0,), "h": (1,)}.items():
        value = getattr(student.module, name).detach()
        for dim in dims:
            value = value.index_select(dim, kept)
        setattr(student.module, name, torch.nn.Parameter(value))
    text = student.to_text().replace("8,3,3,3]", "3,3,3,3]")
    for old, new in (
        ("w1 : f32[8,8", "w1 : f32[8,3"),
        ("w2 : f32[8,8", "w2 : f32[3,8"),
        ("w3 : f32[8,8", "w3 : f32[8,3"),
    ):
        text = text.replace(old, new)
    text = text.replace("w4 : f32[8,8", "w4 : f32[3,8").replace("h : f32[4,8]", "h : f32[4,3]")
    lines = [line.partition(" : ")[0] if line.strip().startswith("%") else line for line in text.splitlines()]
    narrow = parse_model("\n".join(lines))
    with torch.no_grad():
        for name, value in narrow.module.named_parameters():
            value.copy_(getattr(student.module, name))
    ends = Ends.of(Pair(narrow, teacher, is_descendant=True), access(FEW), 8)
    assert ends.partners[0] is not None
    assert ends.partners[0].tolist() == [7, 0, 4]


def test_each_row_gets_a_column_of_its_own() -> None:
    likeness = torch.tensor([[0.9, 0.8, 0.0], [0.95, 0.1, 0.2]])
    assert matched(likeness).tolist() == [1, 0]


def test_no_gradient_passes_from_block_to_block() -> None:
    model = residual()
    nodes = named(model, "r0", "e1")
    form = TrainingForm.of(model, 2, nodes, nodes, freeze_batch_norm=False, keep_zeros=True)
    outputs, (first, second) = form.parts(form.training(torch.randn(2, 3, 8, 8)))

    def reached(value: torch.Tensor) -> set[str]:
        found = torch.autograd.grad(value.sum(), list(form.trained.values()), allow_unused=True, retain_graph=True)
        return {name for name, gradient in zip(form.trained, found, strict=True) if gradient is not None}

    assert reached(first) == {"w0"}
    assert reached(second) == {"w1", "w2"}
    assert reached(outputs[0]) == {"w3", "w4", "h"}
    assert torch.equal(form.evaluation(torch.ones(2, 3, 8, 8))[0], form.training(torch.ones(2, 3, 8, 8))[0])


@pytest.mark.parametrize(
    "before",
    [
        "prune-channels{ratio=0.25 reconstruct=false}",
        "factor-low-rank{macs=0.6}",
        "sparsify{ratio=0.6}",
        "insert-fake-quant{weight_bits=3},calibrate",
    ],
)
def test_a_compressed_network_comes_nearer_to_what_it_was(before: str) -> None:
    teacher, space = residual(), workspace(calib=FEW)
    small, _ = Pipeline.parse(before).run(teacher, space)
    after, step = run("distil-blocks{steps=100 batch=16 lr=0.02 every=25}", small, teacher, space)
    assert error(after, teacher) < 0.7 * error(small, teacher)
    assert step.outcome.changed
    zeros = [(name, value == 0) for name, value in small.module.named_parameters() if (value == 0).any()]
    assert bool(zeros) == before.startswith("sparsify")
    assert all(bool((dict(after.module.named_parameters())[name][where] == 0).all()) for name, where in zeros)


def test_what_does_not_come_nearer_stays_as_it_was() -> None:
    """Nothing is nearer to the teacher than itself: after a few wild steps that state is taken back, and it is said."""
    teacher = residual()
    before = weights(teacher)
    text = "distil-blocks{steps=4 batch=16 optimiser=adamw lr=1 every=2}"
    after, step = run(text, teacher.copy(), teacher, workspace(calib=FEW))
    assert all(torch.equal(before[name], value) for name, value in weights(after).items())
    assert any("training gained nothing, and the state before it stays" in note for note in step.outcome.notes)
    assert not step.outcome.changed


def test_broken_off_it_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    teacher = residual()
    small = pruned(teacher)
    text = "distil-blocks{steps=6 batch=16 lr=0.02 every=2 keep=last}"
    whole, _ = run(text, small, teacher, workspace(calib=FEW))
    kept = workspace(tmp_path, calib=FEW)
    with pytest.raises(KeyboardInterrupt):
        run(text, small, teacher, replace(kept, progress=_Interrupting()))
    again, _ = run(text, small, teacher, kept)
    for name, value in weights(whole).items():
        assert torch.equal(weights(again)[name], value), name


class _Interrupting:
    """Ends the process, as it were, after the second judgement."""

    def __init__(self) -> None:
        self.said = 0

    def track(self, items, description, total=None):  # type: ignore[no-untyped-def]
        yield from items

    def say(self, text: str) -> None:
        self.said += "step" in text
        if self.said == 2:
            raise KeyboardInterrupt


def test_a_model_of_nobody_and_wider_blocks_are_refused() -> None:
    wide = network(width=12)
    with pytest.raises(UsageError, match="more channels than the teacher's"):
        run("distil-blocks{steps=1 batch=8}", wide, network(), workspace(calib=FEW))


def test_normalisations_train_too() -> None:
    teacher = network()
    small = pruned(teacher, 0.5)
    after, step = run(
        "distil-blocks{steps=60 batch=16 lr=0.05 batch_norm=train}", small, teacher, workspace(calib=Pictures(128))
    )
    assert error(after, teacher) < 0.7 * error(small, teacher)
    assert [node.args[5] for node in calls(after.module.graph, aten.batch_norm.default)] == [False]
    assert "learns from 'small' in 3 blocks" in step.outcome.notes[0]
