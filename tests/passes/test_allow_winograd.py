"""What Winograd's marks say: which tile, how exact, and where they are kept."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lvc.compiler.errors import CompileError, UsageError
from lvc.compiler.ir.cook_toom import KERNELS
from lvc.compiler.ir.dialect import aten
from lvc.compiler.ir.graph import WINOGRAD, calls
from lvc.compiler.ir.graph_text import parse_model
from lvc.compiler.ir.model import Model
from lvc.compiler.ir.serialise import GRAPH, from_files, to_files
from lvc.compiler.measure.filtering import convolved, filtered, rounding
from lvc.compiler.pipeline.passes import Outcome
from lvc.compiler.pipeline.pipeline import Pipeline

TEXT = """model one(image: f32[1,16,12,12])
  @w : f32[16,16,3,3]
  %conv = conv2d(%image, @w, None, [1, 1], [1, 1])
  return out=%conv
"""


def run(text: str, model: Model) -> tuple[Model, Outcome]:
    changed, (step,) = Pipeline.parse(text).run(model)
    return changed, step.outcome


def mark(model: Model) -> object:
    (conv,) = (node for node in model.module.graph.nodes if node.op == "call_function")
    return conv.meta.get(WINOGRAD)


@pytest.mark.parametrize("kernel", ["3,1", "1,3"])
def test_taps_along_one_axis(kernel: str) -> None:
    model, _ = run("allow-winograd", parse_model(TEXT.replace("3,3]", f"{kernel}]")))
    assert mark(model) == 4


@pytest.mark.parametrize("groups", [1, 4])
def test_groups_are_filtered_in_single_precision_alone(groups: int) -> None:
    text = TEXT.replace("16,16,3,3", f"16,{16 // groups},3,3").replace("[1, 1])", f"[1, 1], [1, 1], {groups})")
    single = Pipeline.parse("allow-winograd").run(parse_model(text))[0]
    short = Pipeline.parse("lower-precision").run(single)[0]
    marks = [[WINOGRAD in node.meta for node in calls(m.module.graph, aten.conv2d.default)] for m in (single, short)]
    assert marks == [[True], [groups == 1]]


@pytest.mark.parametrize(("options", "tile"), [("", 4), ("{tile=2}", 2), ("{tile=0}", None)])
def test_the_largest_tile(options: str, tile: int | None) -> None:
    model, outcome = run(f"allow-winograd{options}", parse_model(TEXT))
    assert mark(model) == tile
    assert outcome.changed == (["conv"] if tile else [])


def test_marks_can_be_taken_away() -> None:
    marked, _ = run("allow-winograd", parse_model(TEXT))
    plain, outcome = run("allow-winograd{tile=0}", marked)
    assert mark(marked) == 4
    assert mark(plain) is None
    assert outcome.changed == ["conv"]


def test_a_layer_beyond_the_limit_takes_a_smaller_tile_or_none() -> None:
    small, none = 3e-7, 1e-9
    weight = parse_model(TEXT).module.w.detach()
    assert rounding(weight, 2, 0) < small < rounding(weight, 4, 0)
    assert mark(run(f"allow-winograd{{error={small}}}", parse_model(TEXT))[0]) == 2
    model, outcome = run(f"allow-winograd{{error={none}}}", parse_model(TEXT))
    assert mark(model) is None
    (skip,) = outcome.skipped
    assert "its error would be" in skip.reason
    assert "beyond 1.0e-09" in skip.reason


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("tile", [2, 4])
def test_the_algorithm_is_the_convolution(tile: int, kernel: tuple[int, int]) -> None:
    size = [tile + 2 if taps > 1 else 1 for taps in kernel]
    data, weight = torch.randn(2, 5, *size), torch.randn(7, 5, *kernel)
    exact = torch.nn.functional.conv2d(data.double(), weight.double())
    torch.testing.assert_close(filtered(data, weight, tile).double(), exact, rtol=0, atol=1e-4)


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_whole_images_are_convolved_tile_by_tile(data: st.DataObject) -> None:
    kernel = data.draw(st.sampled_from(KERNELS), "kernel")
    padding = data.draw(st.tuples(st.integers(0, 2), st.integers(0, 2)), "padding")
    size = [taps + data.draw(st.integers(0, 9)) for taps in kernel]
    images, weight = torch.randn(2, 5, *size), torch.randn(7, 5, *kernel)
    found = convolved(images, weight, padding, data.draw(st.sampled_from([2, 4]), "tile"))
    exact = torch.nn.functional.conv2d(images.double(), weight.double(), padding=padding)
    torch.testing.assert_close(found.double(), exact, rtol=0, atol=1e-4)


@pytest.mark.parametrize("options", ["{tile=3}", "{tile=6}", "{error=0}"])
def test_refused_options(options: str) -> None:
    with pytest.raises(UsageError):
        Pipeline.parse(f"allow-winograd{options}")


def test_marks_are_written_and_read() -> None:
    marked, _ = run("allow-winograd", parse_model(TEXT))
    read = from_files(to_files(marked))
    assert mark(read) == mark(marked.copy()) == mark(parse_model(marked.to_text())) == 4
    assert read.to_text() == marked.to_text()


def test_a_mark_that_is_no_number_is_refused() -> None:
    files = to_files(run("allow-winograd", parse_model(TEXT))[0])
    with pytest.raises(CompileError, match="damaged"):
        from_files(files | {GRAPH: files[GRAPH].replace(b'"winograd":4', b'"winograd":"4"')})
