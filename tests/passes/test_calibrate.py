"""Quantisation parameters from data: ranges worked out by hand, data that is no use, and a collapse that is told."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from calibration_data import normal, workspace_of

from lvc.compiler.driver import optimise
from lvc.compiler.errors import CompileError, UsageError
from lvc.compiler.ir.graph import arguments, calls
from lvc.compiler.ir.graph_text import parse_model
from lvc.compiler.ir.model import Model
from lvc.compiler.ir.operators.uncalibrated import UNCALIBRATED
from lvc.compiler.pipeline.observers import Verifier
from lvc.compiler.pipeline.passes import Outcome
from lvc.compiler.pipeline.pipeline import Pipeline
from lvc.compiler.pipeline.workspace import Workspace
from lvc.compiler.running.batches import MOST
from lvc.passes.calibrate import Calibrate
from lvc.passes.quantisation.histogram import Histogram
from lvc.passes.quantisation.quantisation_parameters import QuantisationScheme
from lvc.passes.quantisation.range_estimator import RANGE_ESTIMATORS

LAYER = parse_model("""
    model layer(x: f32[1,2,3,4])
      @w : f32[3,2,1,1]
      %y = conv2d(%x, @w)
      return out=%y
""")


def calibrated(model: Model, workspace: Workspace, options: str = "") -> tuple[Model, Outcome]:
    pipeline = Pipeline.parse(f"insert-fake-quant,calibrate{options}")
    result, steps = pipeline.run(model, workspace, [Verifier()])
    return result, steps[-1].outcome


def input_parameters(options: str, *values: float) -> tuple[float, int]:
    """The scale and zero point for an input that holds these values, each filling one image."""
    images = [np.full((1, 2, 3, 4), value, np.float32) for value in values]
    model, _ = calibrated(LAYER, workspace_of(*images), options)
    node = next(calls(model.module.graph, torch.ops.aten.fake_quantize_per_tensor_affine.default))
    args = arguments(node)
    assert (args["quant_min"], args["quant_max"]) == (0, 255)
    return args["scale"], args["zero_point"]


def test_min_max() -> None:
    assert input_parameters("{estimator=min-max}", -1.0, 4.1) == (pytest.approx(0.02), 50)
    assert input_parameters("{estimator=min-max}", 1.0, 5.1) == (pytest.approx(0.02), 0)
    assert input_parameters("{estimator=min-max}", -5.1, -1.0) == (pytest.approx(0.02), 255)
    assert input_parameters("{estimator=min-max}", 0.0) == (1.0, 0)


@pytest.mark.parametrize(
    ("images", "note"),
    [
        ([np.ones((1, 2, 3, 4), np.float32)] * 20, "the data is blank: 1 image, one value throughout"),
        ([np.full((1, 2, 3, 4), n, np.float32) for n in range(9)], "the data is blank: 9 different images"),
        ([np.arange(24, dtype=np.float32).reshape(1, 2, 3, 4)] * 20, "the calibration rests on 1 image, "),
        ([np.random.default_rng(n % 7).random((1, 2, 3, 4), np.float32) for n in range(20)], "on 7 different images"),
        ([np.random.default_rng(n).random((1, 2, 3, 4), np.float32) for n in range(8)], None),
    ],
)
def test_data_that_says_too_little_is_told(images: list[np.ndarray], note: str | None) -> None:
    _, outcome = calibrated(LAYER, workspace_of(*images))
    told = [text for text in outcome.notes if "give a few dozen" in text]
    assert len(told) == (note is not None)
    assert all(note is not None and note in text for text in told)


def test_moving_average() -> None:
    scale, zero = input_parameters('{estimator="moving-average{weight=0.25 batch=1}"}', 0.0, 4.0)
    assert (scale, zero) == (pytest.approx(1.0 / 255), 0)


def test_a_moving_average_takes_the_extremes_of_a_batch_of_images() -> None:
    """The largest of single images would average to 2, and the last batch is half full."""
    options = '{estimator="moving-average{weight=0.5 batch=2}"}'
    scale, _ = input_parameters(options, 0.0, 4.0)
    assert scale == pytest.approx(4.0 / 255)
    scale, _ = input_parameters(options, 4.0, 4.0, 8.0)
    assert scale == pytest.approx(5.0 / 255)


def test_entropy_keeps_what_few_large_values_say() -> None:
    """Half zeros, as behind a ReLU, and a tail: the zeros must not buy a range that cuts half of the tail off."""
    values = torch.randn(200_000, generator=torch.Generator().manual_seed(0)).relu()
    watch = RANGE_ESTIMATORS.parse("entropy").watch(QuantisationScheme())
    watch.see(values)
    low, high = watch.range()
    assert low == 0
    assert 2.5 < high <= float(values.max())


@pytest.mark.parametrize("estimator", ["percentile", "mse", "entropy", "histogram"])
def test_every_range_estimator_takes_constant_data(estimator: str) -> None:
    assert input_parameters(f"{{estimator={estimator}}}", 2.55) == (pytest.approx(0.01), 0)


def test_the_data_is_cut_to_so_many_images() -> None:
    images = normal(LAYER, 9).data_set("calib")
    _, outcome = calibrated(LAYER, workspace_of(*(array for array, _ in images)), "{images=5}")
    assert "over 5 images" in outcome.notes[0]


def test_nothing_to_do() -> None:
    _, (step,) = Pipeline.parse("calibrate").run(LAYER)
    assert step.outcome.changed == []
    assert "put insert-fake-quant before" in step.outcome.notes[0]


@pytest.mark.parametrize(
    ("workspace", "message"),
    [
        (Workspace(), "no data set named 'calib'"),
        (workspace_of(), "the data set 'calib' is empty"),
        (workspace_of(np.full((1, 2, 3, 4), np.nan, np.float32)), "has NaN or infinity"),
        (workspace_of(np.full((1, 2, 3, 4), np.inf, np.float32)), "has NaN or infinity"),
        (workspace_of(np.ones((1, 2, 5, 5), np.float32)), r"are f32\[1,2,5,5\], and the model takes f32\[1,2,3,4\]"),
    ],
)
def test_data_of_no_use_is_refused(workspace: Workspace, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        calibrated(LAYER, workspace)


def test_a_model_of_two_inputs_is_refused_where_a_data_set_would_feed_it() -> None:
    """By the passes that read data; the driver leaves such a model unjudged."""
    model = parse_model("""
        model two(x: f32[1,2,3,4], y: f32[1,2,3,4])
          @w : f32[3,2,1,1]
          %sum = add(%x, %y)
          %z = conv2d(%sum, @w)
          return out=%z
    """)
    with pytest.raises(UsageError, match="a data set feeds a model of one input, not 2"):
        optimise(
            model, Pipeline.parse("insert-fake-quant,calibrate"), workspace_of(*[np.ones((1, 2, 3, 4), np.float32)] * 3)
        )


def test_an_input_of_one_dimension_is_calibrated() -> None:
    model = parse_model("""
        model flat(x: f32[6])
          @w : f32[3,6]
          %y = linear(%x, @w)
          return out=%y
    """)
    _, outcome = calibrated(model, workspace_of(*np.arange(12, dtype=np.float32).reshape(12, 1)))
    assert outcome.changed


def test_a_model_that_gives_nan_is_refused() -> None:
    model = parse_model("""
        model bad(x: f32[1,2,3,4])
          @w : f32[3,2,1,1]
          %root = sqrt(%x)
          %y = conv2d(%root, @w)
          return out=%y
    """)
    with pytest.raises(CompileError, match="'root' is NaN or infinite on the calibration data"):
        calibrated(model, workspace_of(np.full((1, 2, 3, 4), -1, np.float32)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("{images=0}", "images must be at least 1"),
        ("{compare=-1}", "compare must not be negative"),
        ("{estimator=mes}", "there is no range estimator 'mes'"),
    ],
)
def test_wrong_options_are_refused(options: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Pipeline.parse(f"calibrate{options}")


def test_range_estimators_take_options() -> None:
    assert Pipeline.parse(str(Pipeline((Calibrate(estimator="percentile{p=99.9}"),)))).passes[0] == Calibrate(
        estimator="percentile{p=99.9}"
    )
    with pytest.raises(UsageError, match="p must be above 50"):
        Calibrate(estimator="percentile{p=5}")


def test_a_sound_model_is_not_called_collapsed() -> None:
    _, outcome = calibrated(LAYER, normal(LAYER, 32))
    assert len(outcome.notes) == 1
    assert "over 26 images" in outcome.notes[0]  # six of 32 are held out
    assert outcome.tables[0].rows[0][1] > 30  # type: ignore[operator]


def test_small_scores_that_drown_beside_large_ones_are_called_collapsed() -> None:
    """As when a detector's boxes and scores leave by one tensor: the whole has 40 dB, and nothing of the scores."""
    model = parse_model("""
        model drowned(x: f32[1,8,4,4])
          @w : f32[8,8,1,1]
          @sizes : f32[1,8,1,1] = [300.0, 1e-3, 1e-3, 1e-3, 1e-3, 1e-3, 1e-3, 1e-3]
          %y = conv2d(%x, @w)
          %scaled = mul(%y, @sizes)
          %all = lvc.uncalibrated(%scaled, 8, None, False, "linear", "")
          return out=%all
    """)
    _, (step,) = Pipeline.parse("calibrate{estimator=min-max}").run(model, normal(model, 16))
    (note,) = step.outcome.notes
    assert note.startswith("COLLAPSED: 'out': ")
    assert "88 % of its places" in note
    assert step.outcome.tables[0].rows[0][1] > 30  # type: ignore[operator]


def test_places_are_gone_afterwards_and_gradients_pass() -> None:
    model, _ = calibrated(LAYER, normal(LAYER))
    assert not list(calls(model.module.graph, UNCALIBRATED))
    model.module(torch.randn(1, 2, 3, 4))[0].sum().backward()
    gradient = model.module.get_parameter("w").grad
    assert gradient is not None
    assert bool(gradient.any())


@pytest.mark.parametrize("per_channel", ["true", "false"])
def test_a_dead_channel_leaves_room_for_its_bias(per_channel: str) -> None:
    model = parse_model("""
        model dead(x: f32[1,2,3,4])
          @w : f32[3,2,1,1] = 1e-14
          @b : f32[3] = -2.0
          %padded = constant_pad_nd(%x, [0, 1, 0, 1], 0.0)
          %y = conv2d(%padded, @w, @b)
          return out=%y
    """)
    text = f"insert-fake-quant{{per_channel={per_channel}}},calibrate,lower-to-integer"
    result, steps = Pipeline.parse(text).run(model, normal(model), [Verifier()])
    assert steps[-1].outcome.skipped == []
    np.testing.assert_allclose(result(np.zeros((1, 2, 3, 4), np.float32))[0], -2.0, rtol=1e-5)


class Alive:
    """Counts how many of the things that it was shown still exist, and the most there ever were."""

    def __init__(self) -> None:
        self.shown: list[weakref.ref[Any]] = []
        self.most = 0

    def show(self, thing: Any) -> None:
        self.shown = [seen for seen in self.shown if seen() is not None] + [weakref.ref(thing)]
        self.most = max(self.most, len(self.shown))


@pytest.mark.parametrize(("compare", "kept"), [(0, 0), (5, 5)])
def test_memory_does_not_grow_with_the_data(compare: int, kept: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 200 images two batches exist at a time, beside those whose outputs are compared; of activations as well."""
    images, values = Alive(), Alive()

    class Stream:
        def __len__(self) -> int:
            return 200

        def __iter__(self) -> Iterator[tuple[np.ndarray, int | None]]:
            for seed in range(200):
                image = np.random.default_rng(seed).standard_normal((1, 2, 3, 4)).astype(np.float32)
                images.show(image)
                yield image, None

    def add(histogram: Histogram, seen: torch.Tensor) -> None:
        values.show(seen)
        true_add(histogram, seen)

    true_add = Histogram.add
    monkeypatch.setattr(Histogram, "add", add)
    calibrated(LAYER, Workspace(data={"calib": Stream}, threads=1), f"{{compare={compare}}}")
    assert 1 <= images.most <= kept + 2 * MOST + 3
    assert 1 <= values.most <= kept + 2 * MOST + 3


@pytest.mark.parametrize("shape", [(1, 64, 128, 128), (1, 64, 112, 112), (2, 48, 96, 100)])
def test_a_sample_of_values_takes_every_column_and_row(shape: tuple[int, ...]) -> None:
    for dim in (2, 3):
        size = shape[dim]
        index = torch.arange(float(size)).view([-1 if place == dim else 1 for place in range(4)])
        histogram = Histogram()
        histogram.add((index - (size - 1) / 2).expand(shape).contiguous())
        points, counts = histogram.points()
        assert len(points) == size
        assert float(counts.max() / counts.min()) < 1.5
