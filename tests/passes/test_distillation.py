"""Distillation: each term is what its paper says, and a student comes nearer to its teacher by every one of them."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch.nn import functional
from training_models import Pictures, network, workspace

from lvc.compiler.errors import UsageError
from lvc.compiler.ir.graph import origin
from lvc.compiler.ir.graph_text import parse_model
from lvc.compiler.ir.model import Model
from lvc.compiler.pipeline.pipeline import Pipeline
from lvc.compiler.pipeline.workspace import Workspace
from lvc.passes.training.pairing import Pair
from lvc.passes.training.term import TERMS, Term, parse_terms

LABELS = torch.tensor([0, 1, 2, 3, 0, 1, 2, 3])


def values(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def apart(text: str, student: torch.Tensor, teacher: torch.Tensor, targets: torch.Tensor | None = LABELS) -> float:
    term = TERMS.parse(text)
    return float(term([student], [teacher], {}, targets))


@pytest.mark.parametrize("name", TERMS.names())
def test_a_student_that_does_what_its_teacher_does_has_no_loss(name: str) -> None:
    scores = values(8, 4) if TERMS.parse(name).name in ("soft-labels", "decoupled", "outputs") else values(8, 6, 4, 4)
    assert apart(name, scores, scores) == pytest.approx(0, abs=1e-6)
    assert apart(name, values(*scores.shape, seed=1), scores) > 1e-3


def test_soft_labels_are_the_divergence_times_the_squared_temperature() -> None:
    student, teacher = values(8, 4, seed=1).double(), values(8, 4).double()
    ours, theirs = (torch.softmax(x / 3, 1) for x in (student, teacher))
    wanted = 9 * (theirs * (theirs / ours).log()).sum(1).mean()
    assert apart("soft-labels{temperature=3}", student, teacher) == pytest.approx(float(wanted), rel=1e-9)


def test_decoupled_parts_make_up_soft_labels() -> None:
    """Zhao et al., equation 7: KL = TCKD + (1 - p of the right class) NCKD, image by image."""
    student, teacher = values(8, 4, seed=1).double(), values(8, 4).double()
    for image in range(8):
        row, right = slice(image, image + 1), LABELS[image : image + 1]
        both = [
            apart(f"decoupled{{alpha={alpha} beta={beta} temperature=2}}", student[row], teacher[row], right)
            for alpha, beta in ((1, 0), (0, 1))
        ]
        sure = torch.softmax(teacher[row] / 2, 1)[0, LABELS[image]]
        whole = apart("soft-labels{temperature=2}", student[row], teacher[row])
        assert both[0] + (1 - float(sure)) * both[1] == pytest.approx(whole, rel=1e-6)


def test_without_labels_the_right_class_is_the_teacher_s_first_choice() -> None:
    student, teacher = values(8, 4, seed=1), values(8, 4)
    assert apart("decoupled", student, teacher, None) == apart("decoupled", student, teacher, teacher.argmax(1))


def test_attention_does_not_mind_widths_or_sizes_of_values() -> None:
    teacher = values(8, 6, 4, 4)
    wide = torch.cat([teacher, teacher], 1) * 3
    assert apart("attention", wide, teacher) == pytest.approx(0, abs=1e-6)
    maps = [functional.normalize(x.square().sum(1).flatten(1), dim=1) for x in (values(8, 6, 4, 4, seed=1), teacher)]
    wanted = (maps[0] - maps[1]).square().sum(1).sqrt().mean()
    assert apart("attention", values(8, 6, 4, 4, seed=1), teacher) == pytest.approx(float(wanted), rel=1e-6)


def test_relations_do_not_mind_where_all_images_lie() -> None:
    """Distances are relative and angles are angles: moved, turned and scaled together nothing is lost."""
    teacher = values(8, 6, 1, 1)
    turn = torch.linalg.qr(values(6, 6, seed=2))[0]
    moved = (2.5 * (teacher.flatten(1) @ turn) + values(6, seed=3))[:, :, None, None]
    assert apart("relations", moved, teacher) == pytest.approx(0, abs=1e-5)


def test_similarity_is_that_of_rows() -> None:
    ours, theirs = (functional.normalize(x @ x.T, dim=1) for x in (values(8, 24, seed=1), values(8, 24)))
    wanted = (ours - theirs).square().sum() / 8
    student, teacher = values(8, 24, seed=1).view(8, 6, 2, 2), values(8, 24).view(8, 6, 2, 2)
    assert apart("similarity", student, teacher) == pytest.approx(float(wanted), rel=1e-5)


def test_outputs_of_other_sizes_count_alike() -> None:
    """Boxes in hundreds of pixels and confidences below one: each channel is relative to its own spread."""
    teacher = values(2, 30, 5)
    scale = torch.tensor([300.0, 300.0, 1.0, 0.01, 5.0])
    student = teacher + 0.3 * values(2, 30, 5, seed=1)
    assert apart("outputs", student * scale, teacher * scale) == pytest.approx(
        apart("outputs", student, teacher), rel=1e-4
    )


def pruned(model: Model, ratio: float) -> Model:
    return Pipeline.parse(f"prune-channels{{ratio={ratio}}}").run(model, Workspace())[0]


def test_nodes_of_a_pruned_student_find_their_partners() -> None:
    teacher = network()
    pair = Pair(pruned(teacher, 0.5), teacher, is_descendant=True)
    found = [
        (origin(ours), origin(theirs), pair.channels(ours), pair.channels(theirs)) for ours, theirs in pair.features
    ]
    assert [(ours, theirs) for ours, theirs, *_ in found] == [("r", "r"), ("r2", "r2")]
    assert found[0][2:] == (4, 8)


def test_another_teacher_is_compared_at_each_resolution() -> None:
    teacher = network(width=12)
    pair = Pair(network(), teacher, is_descendant=False)
    assert [(pair.channels(ours), pair.channels(theirs)) for ours, theirs in pair.features] == [(8, 12), (8, 8)]


def learnt(text: str, pictures: Pictures, seed: int = 0) -> tuple[float, float]:
    """How far outputs are from the teacher's on other images, before and after distillation of a pruned network."""
    teacher, _ = Pipeline.parse("finetune{epochs=8 batch=16 lr=0.1}").run(network(), workspace())
    space = workspace(train=pictures, seed=seed)
    space = Workspace(**{**vars(space), "original": teacher})
    before = pruned(teacher, 0.5)
    after, _ = Pipeline.parse(text).run(before, space)

    def error(model: Model) -> float:
        pairs = [(torch.tensor(model(x)[0]), torch.tensor(teacher(x)[0])) for x, _ in Pictures(40, seed=5)]
        centred = [(a - a.mean(), b - b.mean()) for a, b in pairs]  # probabilities do not mind a constant
        return float(sum((a - b).square().mean() for a, b in centred) / len(pairs))

    return error(before), error(after)


@pytest.mark.parametrize(
    "losses",
    [
        "auto",
        "soft-labels",
        "soft-labels+features",
        "soft-labels+10*attention",
        "soft-labels+relations+similarity",
        "0.05*decoupled",
        "outputs",
        "0.1*labels+0.9*soft-labels{temperature=2}",
    ],
)
def test_a_pruned_network_comes_nearer_to_what_it_was(losses: str) -> None:
    before, after = learnt(f'distil{{epochs=8 batch=16 lr=0.1 losses="{losses}"}}', Pictures(128))
    assert after < 0.5 * before


def test_unlabelled_images_will_do() -> None:
    before, after = learnt("distil{epochs=8 batch=16 lr=0.05}", Pictures(128, labelled=False))
    assert after < 0.5 * before


def test_projections_are_thrown_away() -> None:
    space = workspace()
    after, steps = Pipeline.parse("prune-channels{ratio=0.5},distil{steps=3 batch=16 losses=features}").run(
        network(), space
    )
    plain, _ = Pipeline.parse("prune-channels{ratio=0.5}").run(network(), space)
    assert {n: v.shape for n, v in after.module.state_dict().items()} == {
        n: v.shape for n, v in plain.module.state_dict().items()
    }
    assert steps[-1].outcome.changed


def test_another_model_teaches(tmp_path) -> None:  # type: ignore[no-untyped-def]
    from lvc.compiler.writing import write_model

    path = tmp_path / "teacher.lvc"
    write_model(network(width=12), path)
    _, steps = Pipeline.parse(f"distil{{steps=3 batch=16 teacher={path} losses=soft-labels+features}}").run(
        network(), workspace()
    )
    assert "learns from 'small'" in steps[0].outcome.notes[0]


@pytest.mark.parametrize("losses", ["auto", "soft-labels+features+attention"])
def test_a_compiled_teacher_teaches_the_same(losses: str) -> None:
    text = f'distil{{steps=4 batch=16 precision=fp32 augment=flip lr=0.05 losses="{losses}" teacher_kernels=%s}}'
    teacher = network(width=12)
    space = Workspace(**{**vars(workspace()), "original": teacher})
    eager, compiled = (
        Pipeline.parse(text % kernels).run(pruned(teacher, 0.5), space)[0] for kernels in ("torch", "lvc")
    )
    start = pruned(teacher, 0.5).module.state_dict()
    for name, value in eager.module.state_dict().items():
        torch.testing.assert_close(compiled.module.state_dict()[name], value, rtol=1e-3, atol=1e-4)
    assert any((value - start[name]).abs().max() > 1e-2 for name, value in compiled.module.state_dict().items())


def test_a_compiled_teacher_stays_on_the_cpu() -> None:
    with pytest.raises(UsageError, match="teacher_kernels=lvc runs on the CPU"):
        Pipeline.parse("distil{teacher_kernels=lvc device=cuda}")


def test_a_teacher_for_other_inputs_is_refused(tmp_path) -> None:  # type: ignore[no-untyped-def]
    from lvc.compiler.writing import write_model

    path = tmp_path / "teacher.lvc"
    write_model(network(classes=7), path)
    with pytest.raises(UsageError, match="has other outputs than the student"):
        Pipeline.parse(f"distil{{steps=3 batch=16 teacher={path}}}").run(network(), workspace())


@pytest.mark.parametrize("text", ["", "0.5*", "soft-labels+", "soft-labels,labels", "x*labels", "1*2*labels"])
def test_sums_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match="is no sum of terms"):
        parse_terms(text)


def test_sums_are_read() -> None:
    found = parse_terms("0.9*soft-labels{temperature=2} + labels+.5*features")
    assert [(item.weight, item.name) for item in found] == [(0.9, "soft-labels"), (1.0, "labels"), (0.5, "features")]
    assert isinstance(found[0].term, Term)
    with pytest.raises(UsageError, match="there is no term of distillation 'soft-label'"):
        parse_terms("soft-label")


def test_a_detector_is_taught_by_its_outputs() -> None:
    def detector() -> Model:
        return parse_model("""
            model boxes(x: f32[1,3,8,8])
              @w : f32[8,3,3,3]
              @h : f32[5,8,1,1]
              %c = conv2d(%x, @w)
              %r = relu(%c)
              %b = conv2d(%r, @h)
              %f = reshape(%b, [1, 5, 36])
              %y = permute(%f, [0, 2, 1])
              return boxes=%y
        """)

    teacher = detector()
    with torch.no_grad():
        for seed, value in enumerate(teacher.module.parameters()):
            value.copy_(values(*value.shape, seed=seed) * 0.3)
    _, steps = Pipeline.parse("prune-channels{ratio=0.5},distil{epochs=10 batch=16 lr=0.3}").run(
        teacher, workspace(train=Pictures(96, labelled=False))
    )
    losses: Sequence[object] = [row[2] for row in steps[-1].outcome.tables[0].rows]
    assert float(str(losses[-1])) < 0.8 * float(str(losses[0]))
    assert "by outputs" in steps[-1].outcome.notes[0]


def scored() -> Model:
    """A detector whose one output has four numbers of a box and two probabilities for each place."""
    return parse_model("""
        model scored(x: f32[1,3,8,8])
          @w : f32[8,3,3,3]
          @b : f32[4,8,1,1]
          @s : f32[2,8,1,1]
          %c = conv2d(%x, @w)
          %r = relu(%c)
          %boxes = conv2d(%r, @b)
          %scores = conv2d(%r, @s)
          %p = sigmoid(%scores)
          %both = cat([%boxes, %p], 1)
          %f = reshape(%both, [1, 6, 36])
          %y = permute(%f, [0, 2, 1])
          return found=%y
    """)


def test_an_output_is_compared_value_by_value() -> None:
    pair = Pair(scored(), scored(), is_descendant=True)
    term = TERMS.parse("outputs").of(pair)
    assert [(a.name, b.name) for a, b in term.nodes(pair)] == [("boxes", "boxes"), ("scores", "scores")]
    boxes, scores = values(3, 4, 6, 6), 3 * values(3, 2, 6, 6, seed=1) - 2
    student = scores + values(3, 2, 6, 6, seed=2)
    p, q = scores.double().sigmoid(), student.double().sigmoid()
    divergence = (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).sum()
    found = term([boxes, student], [boxes, scores], {}, None)
    assert float(found) == pytest.approx(float(divergence / p.sum() / 2), rel=1e-4)


def test_a_missed_object_counts_however_many_places_have_none() -> None:
    """A score that is far too low among thousands that are right still pulls: its gradient is not that of a mean."""
    pair = Pair(scored(), scored(), is_descendant=True)
    term = TERMS.parse("outputs").of(pair)
    teacher = torch.full((1, 2, 50, 50), -12.0)
    teacher[0, 0, 7, 7] = 4.0
    student = torch.full_like(teacher, -12.0).requires_grad_()
    boxes = torch.zeros(1, 4, 50, 50)
    term([boxes, student], [boxes, teacher], {}, None).backward()  # type: ignore[no-untyped-call]
    assert student.grad is not None
    assert float(student.grad[0, 0, 7, 7]) < -0.4
    student.grad[0, 0, 7, 7] = 0
    assert float(student.grad.abs().max()) < 1e-3


def test_outputs_that_are_put_together_otherwise_are_compared_as_a_whole() -> None:
    other = parse_model("""
        model plain(x: f32[1,3,8,8])
          @w : f32[6,3,3,3]
          %c = conv2d(%x, @w)
          %f = reshape(%c, [1, 6, 36])
          %y = permute(%f, [0, 2, 1])
          return found=%y
    """)
    pair = Pair(other, scored(), is_descendant=False)
    assert [(a.name, b.name) for a, b in TERMS.parse("outputs").of(pair).nodes(pair)] == [("y", "y")]
