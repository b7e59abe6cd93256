"""The command shows and draws what each group costs, and pruning takes its file as it is."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from calibration_data import normal
from pruning_models import residual, workspace
from svg_drawing import Drawing

from lvc.compiler.cli import main
from lvc.compiler.errors import UsageError
from lvc.compiler.ir.graph_text import parse_model
from lvc.compiler.ir.model import Model
from lvc.compiler.pipeline.pipeline import Pipeline
from lvc.compiler.pipeline.workspace import Workspace
from lvc.compiler.writing import write_model
from lvc.passes.pruning.loss import relative_error
from lvc.passes.pruning.sensitivity import Curve


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, its data, and what the command writes."""
    made = tmp_path_factory.mktemp("sensitivity")
    write_model(residual(), made / "net.lvc")
    images = np.concatenate([image for image, _ in workspace(residual(), classes=4).data_set("calib")])
    np.savez(made / "data.npz", x=images, y=np.arange(len(images)) % 4)
    arguments = ["--data", str(made / "data.npz"), "--options", "ratios=0.25,0.75", "-o", str(made / "curves.json")]
    assert main(["sensitivity", str(made / "net.lvc"), *arguments, "--plot", str(made / "curves.svg")]) == 0
    assert main(["sensitivity", str(made / "net.lvc"), *arguments[:4], "--plot", str(made / "curves.png")]) == 0
    return made


def test_every_group_has_its_curve(folder: Path) -> None:
    rows = json.loads((folder / "curves.json").read_text())["rows"]
    assert [(row["group"], row["removed"]) for row in rows] == [
        *(("stem.0", 4), ("stem.0", 12)),
        *(("inner.0", 8), ("inner.0", 24)),
        *(("inner.1", 8), ("inner.1", 24)),
    ]
    for mild, harsh in zip(rows[::2], rows[1::2], strict=True):
        assert 0 < mild["error"] < harsh["error"]
        assert 0 <= harsh["accuracy"] <= 1


def test_the_curves_are_drawn(folder: Path) -> None:
    drawing = Drawing((folder / "curves.svg").read_bytes())
    assert {"stem.0", "inner.0", "inner.1", "channels removed from the group, %", "top-1 accuracy, %"} <= set(
        drawing.texts
    )
    assert [drawing.marks(name) for name in drawing.series("curve-")] == [2, 2, 2]
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_pruning_goes_by_the_file(folder: Path) -> None:
    text = f'prune-channels{{macs=0.7 sensitivity="{folder / "curves.json"}"}}'
    _, (step,) = Pipeline.parse(text).run(residual())
    assert step.outcome.changed


def test_a_file_of_another_model_is_refused(folder: Path, tmp_path: Path) -> None:
    found = json.loads((folder / "curves.json").read_text())
    for row in found["rows"]:
        row["channels"] += 1
    (tmp_path / "other.json").write_text(json.dumps(found))
    (tmp_path / "damaged.json").write_text('{"rows": [1]}')
    for name, what in (("other", "is of another model"), ("damaged", "is not a file of curves")):
        with pytest.raises(UsageError, match=what):
            Pipeline.parse(f'prune-channels{{macs=0.7 sensitivity="{tmp_path}/{name}.json"}}').run(residual())


def test_prices_lie_on_the_convex_hull() -> None:
    prices = Curve((2, 4, 6), (1.0, 6.0, 7.0)).prices(8).tolist()
    assert prices == [0.5, 0.5, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5]
    assert Curve((1, 2), (3.0, 1.0)).prices(3).tolist() == pytest.approx([1.5, 1.5, 1.5])


@pytest.mark.parametrize("options", ["ratios=1.5", "images=0", "criterion=tailor"])
def test_misuse(options: str) -> None:
    with pytest.raises(UsageError):
        Pipeline.parse(f"prune-sensitivity{{{options}}}")


def pruned(text: str) -> Model:
    """Prune by what outputs say, with random images."""
    model = parse_model(text)
    return Pipeline.parse("prune-channels{ratio=0.3 reconstruct=false}").run(model, normal(model))[0]


TWO_LAYERS = """model net(x: f32[1,3,8,8])
    @a : f32[8,3,3,3]
    @b : f32[4,8,1,1]
    %hidden = conv2d(%x, @a)
    %last = conv2d(%hidden, @b)
    %place = argmax(%last, 1)"""


def test_outputs_of_integers_do_not_say_which_channels_matter() -> None:
    with pytest.raises(UsageError, match="no output says which channels matter") as caught:
        pruned(f"{TWO_LAYERS}\n    return place=%place")
    assert "ranking=layer" in caught.value.help


def test_layers_that_lead_to_integers_alone_are_pruned_beside_others() -> None:
    other = """
    @c : f32[8,3,3,3]
    @d : f32[4,8,1,1]
    %more = conv2d(%x, @c)
    %out = conv2d(%more, @d)
    return place=%place, out=%out"""
    assert pruned(TWO_LAYERS + other).parameters < parse_model(TWO_LAYERS + other).parameters


def test_a_target_without_layers_to_shrink_is_refused_in_words() -> None:
    text = """model net(x: f32[1,5,16])
        @weight : f32[12,16]
        @vector : f32[12]
        %hidden = linear(%x, @weight)
        %out = matmul(%hidden, @vector)
        return out=%out"""
    with pytest.raises(UsageError, match="cannot be reached"):
        pruned(text)


@pytest.mark.parametrize("dims", ["[0, 1, 2, 3]", "[1, 2, 3]"])
def test_a_model_may_give_one_number(dims: str) -> None:
    text = f"""model net(x: f32[1,3,8,8])
        @a : f32[8,3,3,3]
        @b : f32[8,8,3,3]
        %hidden = conv2d(%x, @a)
        %last = conv2d(%hidden, @b)
        %out = mean(%last, {dims})
        return out=%out"""
    model = parse_model(text)
    _, steps = Pipeline.parse("prune-sensitivity{ratios=0.5,0.9}").run(model, normal(model))
    errors = [row[4] for row in steps[-1].outcome.tables[-1].rows]
    assert errors
    assert all(isinstance(error, float) and 0 < error < math.inf for error in errors)


def test_an_error_is_relative_to_the_variance_or_of_one_number_to_its_square() -> None:
    wanted, found = torch.tensor([[1.0, 3.0]]), torch.tensor([[2.0, 3.0]])
    assert float(relative_error([found], [wanted])) == pytest.approx(0.5 / 2.0)
    assert float(relative_error([found[:, :1]], [wanted[:, :1]])) == pytest.approx(1.0)


CROPS = """model crops(x: f32[1,4,8])
    @a : f32[24,8]
    @b : f32[5,24]
    %crops = reshape(%x, [4, 8])
    %a = linear(%crops, @a)
    %relu = relu(%a)
    %out = linear(%relu, @b)
    return out=%out"""

VECTOR = """model vector(x: f32[16])
    @a : f32[24,16]
    @b : f32[8,24]
    %a = linear(%x, @a)
    %relu = relu(%a)
    %out = linear(%relu, @b)
    return out=%out"""


def labelled(model: Model) -> Workspace:
    random, shape = np.random.default_rng(0), (1, *model.inputs[0].spec.shape[1:])
    images = [(random.standard_normal(shape).astype(np.float32), place % 5) for place in range(20)]
    return Workspace(data={"calib": lambda: images}, threads=1)


def test_scores_of_crops_are_not_compared_with_the_class_of_an_image() -> None:
    model = parse_model(CROPS)
    _, steps = Pipeline.parse("prune-sensitivity{ratios=0.5}").run(model, labelled(model))
    assert [row[5] for row in steps[-1].outcome.tables[-1].rows] == [""]
    with pytest.raises(UsageError, match="neither classifies nor segments"):
        Pipeline.parse("prune-channels{macs=0.7 criterion=fisher}").run(model, labelled(model))


@pytest.mark.parametrize("criterion", ["output-error", "activation-entropy", "channel-attention"])
def test_layers_may_read_one_vector(criterion: str) -> None:
    model = parse_model(VECTOR)
    text = f"prune-channels{{macs=0.7 criterion={criterion}}}"
    pruned, _ = Pipeline.parse(text).run(model, labelled(model))
    assert pruned.parameters < model.parameters
