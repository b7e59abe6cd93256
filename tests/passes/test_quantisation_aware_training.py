"""Networks with fake quantisation train: gradients are the papers', scales stay what can be stored, integers follow."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from test_training import Killed, Mortal, right
from torch.fx import Node
from training_models import Pictures, network, trained, weights, workspace

from lvc.compiler.errors import UsageError
from lvc.compiler.ir.dialect import aten
from lvc.compiler.ir.graph import arguments, calls, tensor
from lvc.compiler.ir.graph_text import parse_model
from lvc.compiler.ir.model import Model
from lvc.compiler.ir.operators.codebook import FAKE_QUANTIZE_CODEBOOK
from lvc.compiler.pipeline.pipeline import Pipeline
from lvc.passes.quantisation.quantisation_parameters import QuantisationParameters
from lvc.passes.training.fake_quantisation.quantisers import Codebook, Quantiser, Steps
from lvc.passes.training.fake_quantisation.straight_through import one_scale, scales_along
from lvc.passes.training.form import TrainingForm

PER_TENSOR, PER_CHANNEL = aten.fake_quantize_per_tensor_affine.default, aten.fake_quantize_per_channel_affine.default
QUANTISE = "O1,insert-fake-quant{{{}}},calibrate{{data=train images=32 compare=0}}"
TRAIN = "finetune{steps=12 batch=16 lr=0.01 augment=none every=4}"


def quantised(options: str, training: str = TRAIN) -> tuple[Model, Model]:
    """A network before and after it was trained with fake quantisation."""
    before, _ = trained(QUANTISE.format(options))
    return before, trained(training, before)[0]


def places(model: Model, *kinds: object) -> list[Node]:
    return [node for node in calls(model.module.graph) if node.target in kinds]


def scales(model: Model) -> dict[str, torch.Tensor]:
    """The scales of all places by the name of their node."""
    found = {}
    for node in places(model, PER_TENSOR, PER_CHANNEL, FAKE_QUANTIZE_CODEBOOK):
        scale = arguments(node)["scale"]
        stored = tensor(model.module, scale)
        found[node.name] = torch.tensor([scale]) if stored is None else stored.detach().flatten()
    return found


def reference(
    x: torch.Tensor, scale: float, offset: float, low: int, high: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Value, and its derivatives by scale and offset, as Bhalgat et al. write them, in double precision."""
    v = (x.double() - offset) / scale
    inside = (v.round() >= low) & (v.round() <= high)
    by_scale = torch.where(inside, v.round() - v, v.clamp(low, high))
    return v.round().clamp(low, high) * scale + offset, by_scale, (~inside).double()


@pytest.mark.parametrize(("low", "high", "zero"), [(0, 15, 0), (-7, 7, 0), (0, 255, 100), (0, 3, 1), (-128, 127, -128)])
@pytest.mark.parametrize("last", [False, True])
def test_gradients_are_those_of_the_papers(low: int, high: int, zero: int, last: bool) -> None:
    """In any order in memory; what is behind the operator weighs each number differently."""
    torch.manual_seed(0)
    scale, layout = 0.25 * 15 / (high - low), torch.channels_last if last else torch.contiguous_format
    x = (torch.randn(4, 6, 5, 5) * 2).contiguous(memory_format=layout).requires_grad_()
    weight = torch.randn(4, 6, 5, 5)
    learns = zero not in (0, low)
    step = torch.tensor([scale], requires_grad=True)
    offset = torch.tensor([-zero * scale], requires_grad=True) if learns else None
    y = one_scale(x, step, offset, zero, (low, high))
    (y * weight).sum().backward()

    shift = -zero * scale if learns else 0.0
    bounds = (low, high) if learns else (low - zero, high - zero)
    value, by_scale, outside = reference(x.detach(), scale, shift, *bounds)
    torch.testing.assert_close(y.double(), value, rtol=1e-5, atol=1e-6)
    assert torch.equal(y, torch.fake_quantize_per_tensor_affine(x, scale, zero, low, high))
    assert x.grad is not None
    assert torch.equal(x.grad, torch.where(outside > 0, 0.0, weight))
    assert step.grad is not None
    assert float(step.grad) == pytest.approx(float((by_scale * weight).sum()), rel=1e-3)
    if offset is not None:
        assert offset.grad is not None
        assert float(offset.grad) == pytest.approx(float((outside * weight).sum()), rel=1e-3)


def test_gradients_by_finite_differences_where_the_integers_stay() -> None:
    """With numbers far outside, and integers that a small change of the scale does not move, rounding is linear."""
    x, weight = torch.tensor([[-9.0, 0.6, 9.0], [1.1, -0.9, 40.0]]), torch.randn(2, 3)

    def loss(scale: torch.Tensor) -> torch.Tensor:
        frozen = scales_along(x, scale, torch.zeros(2), 0, (-7, 7)) - x * ((x / scale.reshape(2, 1)).abs() < 7)
        return (frozen * weight).sum()  # straight through, the numbers inside move with x / scale

    scale = torch.tensor([0.5, 0.25], requires_grad=True)
    loss(scale).backward()
    for row in range(2):
        moved = [scale.detach().clone() for _ in range(2)]
        moved[0][row] -= 1e-3
        moved[1][row] += 1e-3
        straight = (loss(moved[1]) - loss(moved[0])) / 2e-3
        inside = (x[row] / scale.detach()[row]).abs() < 7
        v = x[row] / scale.detach()[row]
        assert scale.grad is not None
        assert float(scale.grad[row]) == pytest.approx(float(straight - (v * inside * weight[row]).sum()), rel=1e-3)


def parameters(bits: int, zero: int = 0, axis: int | None = 0, rows: int = 3) -> QuantisationParameters:
    half = 1 << (bits - 1)
    count = rows if axis is not None else 1
    return QuantisationParameters(torch.full((count,), 0.3), torch.full((count,), zero), 1 - half, half - 1, axis)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_gradients_of_scales_have_the_factor_of_the_paper(bits: int) -> None:
    x, weight = torch.randn(3, 4, 3, 3), torch.randn(3, 4, 3, 3)
    quantiser = Steps(parameters(bits))
    (quantiser.round(x, 36) * weight).sum().backward()
    most = (1 << (bits - 1)) - 1
    for row in range(3):
        _, by_scale, _ = reference(x[row], float(torch.tensor(0.3)), 0.0, -most, most)
        wanted = float((by_scale * weight[row]).sum()) / math.sqrt(36 * most)
        assert quantiser.scale.grad is not None
        assert float(quantiser.scale.grad[row]) == pytest.approx(wanted, rel=1e-3, abs=1e-6)


def test_a_codebook_of_integers_is_uniform_steps() -> None:
    x, weight = torch.randn(3, 12), torch.randn(3, 12)
    uniform, coded = Steps(parameters(4)), Codebook(torch.arange(-7.0, 8.0), torch.full((3, 1), 0.3))
    assert not coded.values.requires_grad
    results = []
    for quantiser in (uniform, coded):
        y = quantiser.round(x, 12)
        (y * weight).sum().backward()
        results.append((y.detach(), quantiser.scale.grad))
    torch.testing.assert_close(results[0], results[1])


def test_values_of_a_codebook_learn_by_the_weights_that_they_stand_for() -> None:
    values, scale = torch.tensor([-64.0, -20.0, 0.0, 41.0]), torch.tensor([[0.01], [0.02]])
    x, weight = torch.randn(2, 50) * 0.5, torch.randn(2, 50)
    quantiser = Codebook(values, scale)
    (quantiser.round(x, 50) * weight).sum().backward()
    at = torch.bucketize(x / scale, (values[1:] + values[:-1]) / 2)
    assert quantiser.values.grad is not None
    sums = torch.stack([(weight * scale * (at == place)).sum() for place in range(4)])
    share = 1 / math.sqrt(100 * 1) / float(scale.square().mean())
    torch.testing.assert_close(quantiser.values.grad, sums * share, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "quantiser",
    [
        Steps(parameters(4)),
        Steps(parameters(8, zero=5)),
        Steps(replace(parameters(4), scale=torch.tensor([0.5, 0.25, 2.0]))),
        Codebook(torch.tensor([-64.0, -20.0, 0.0, 41.0]), torch.tensor([[0.01], [0.02]])),
        Codebook(torch.tensor([-4.0, -2.0, -1.0, 0.0, 0.0, 1.0, 2.0, 4.0]), torch.tensor([[0.01], [0.02]])),
    ],
)
def test_whatever_a_step_does_parameters_can_be_stored(quantiser: Quantiser) -> None:
    powers = quantiser.has_powers
    with torch.no_grad():
        for parameter in quantiser.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.linspace(50, -90, parameter.numel()))
    quantiser.keep_valid()
    step = quantiser.step().detach()
    assert bool((step > 0).all())
    assert powers == bool((torch.frexp(step).mantissa == 0.5).all())
    if isinstance(quantiser, Codebook):
        found = quantiser.values.detach().round()
        assert bool((found.diff() >= 0).all())
        assert bool((found == 0).any())
        assert found.abs().max() <= 127
    elif quantiser.offset is not None:
        zero = (-quantiser.offset / step).round()
        assert bool((zero >= quantiser.bounds[0]).all() and (zero <= quantiser.bounds[1]).all())


@pytest.mark.parametrize("bits", [2, 4])
def test_weights_can_begin_as_the_papers_say(bits: int) -> None:
    text = QUANTISE.replace("compare=0", "compare=0 weights=lsq")
    found = scales(trained(text.format(f"weight_bits={bits}"), network(normalised=False))[0])["w2_quantised"]
    weight = weights(network(normalised=False))["w2"].flatten(1)
    torch.testing.assert_close(found, 2 * weight.abs().mean(1) / math.sqrt((1 << (bits - 1)) - 1))
    uneven = scales(trained(text.format(f"weight_bits={bits} weight_symmetric=false"), network(normalised=False))[0])
    wanted = 6 * weight.std(1, correction=0) / ((1 << bits) - 1)
    torch.testing.assert_close(uneven["w2_quantised"], wanted)


FORMS = ["weight_symmetric=false", "activation_symmetric=true", "per_channel=false", "scale=power-of-two"]
FORMS += ["weight_format=codebook", "weight_format=log", "weight_format=codebook group=4", "group=4"]


@pytest.mark.parametrize(("form", "bits"), [*(("", bits) for bits in (2, 3, 4, 8)), *((form, 4) for form in FORMS)])
def test_what_is_trained_is_an_ordinary_graph_of_the_dialect(form: str, bits: int) -> None:
    """The trained form gives what the stored one gives, to the bit; scales moved, and kept their form."""
    before, after = quantised(f"weight_bits={bits} activation_bits={bits} {form}")
    old, new = scales(before), scales(after)
    assert old.keys() == new.keys()
    assert len(old) == 7
    assert all(bool((scale > 0).all()) for scale in new.values())
    assert "power" in form or sum(not torch.equal(old[name], new[name]) for name in old) >= 4
    if "power" in form:
        assert all(bool((torch.frexp(scale).mantissa == 0.5).all()) for scale in new.values())
    for node in places(after, FAKE_QUANTIZE_CODEBOOK):
        values = tensor(after.module, arguments(node)["values"])
        assert values is not None
        assert torch.equal(values, values.round())
        assert float(values.abs().min()) == 0
    trainable = TrainingForm.of(after, 4, freeze_batch_norm=False, keep_zeros=False)
    images = torch.cat([torch.from_numpy(image) for image, _ in Pictures(4, seed=3)])
    assert torch.equal(trainable.evaluation(images)[0], after.with_batch(4).module(images)[0])
    assert torch.equal(trainable.training(images)[0], trainable.evaluation(images)[0])


@pytest.mark.parametrize(
    "options",
    [
        "weight_bits=2 activation_bits=4",
        "weight_bits=3 activation_bits=3",
        "weight_bits=8 activation_symmetric=true",
        "weight_bits=4 weight_format=codebook",
        "weight_bits=4 weight_format=log",
        "weight_bits=2 activation_bits=4 weight_symmetric=false",
    ],
)
def test_integers_give_what_the_simulation_gives(options: str) -> None:
    """Up to the rounding of a float sum: one step of a value in few bits moves scores by a thousand times as much.

    Classes whose integer scores are equal are told apart by that rounding alone, so scores are compared, not choices.
    """
    _, after = quantised(options, "finetune{epochs=3 batch=16 lr=0.05 augment=none}")
    lowered, notes = trained("lower-to-integer", after)
    assert "(100.0 %)" in notes[-1]
    for image, _ in Pictures(100, seed=7):
        np.testing.assert_allclose(lowered(image)[0], after(image)[0], rtol=1e-5, atol=1e-6)


def test_a_network_of_two_bits_learns() -> None:
    before, _ = trained(QUANTISE.format("weight_bits=2 activation_bits=3"))
    after, notes = trained("finetune{epochs=12 batch=16 lr=0.05 augment=none}", before)
    unseen = Pictures(100, seed=7)
    assert right(before, unseen) < 0.4
    assert right(after, unseen) > 0.85
    assert any("the quantisation parameters of 7 values and weights were learned" in note for note in notes)


JOINED = """
    model joined(x: f32[1,3,8,8])
      @w1 : f32[8,3,3,3]
      @w2 : f32[8,3,3,3]
      @w3 : f32[8,16,3,3]
      @w4 : f32[4,8]
      %a = conv2d(%x, @w1, None, [1, 1], [1, 1])
      %b = conv2d(%x, @w2, None, [1, 1], [1, 1])
      %r = relu(%a)
      %s = relu(%b)
      %p = max_pool2d(%s, [3, 3], [1, 1], [1, 1])
      %c = cat([%r, %p], 1)
      %d = conv2d(%c, @w3, None, [2, 2], [1, 1])
      %e = relu(%d)
      %m = mean(%e, [2, 3])
      %y = linear(%m, @w4)
      return scores=%y
"""


def test_values_that_meet_keep_one_scale() -> None:
    model = parse_model(JOINED)
    before, _ = trained(QUANTISE.format(""), model)
    after, _ = trained(TRAIN.replace("0.01", "0.05"), before)
    old, new = scales(before), scales(after)
    r, s = (next(name for name in new if name.startswith(f"{letter}_quantised")) for letter in "rs")
    assert torch.equal(new[r], new[s])
    assert not torch.equal(new[r], old[r])
    _, notes = trained("lower-to-integer", after)
    assert "(100.0 %)" in notes[-1]


@pytest.mark.parametrize(
    ("options", "form"),
    [
        ("average=0.9", "weight_format=codebook"),
        ("optimiser=adamw lr=0.001 keep=best", ""),
        ("scales=average freeze_scales=0.5", ""),
    ],
)
def test_broken_off_training_ends_in_the_same_parameters(tmp_path: Path, options: str, form: str) -> None:
    text = QUANTISE.format(f"weight_bits=3 activation_bits=4 {form}")
    text += f",finetune{{steps=12 batch=16 every=3 minutes=0 {options}}}"
    whole = trained(text)[0]
    for steps in (4, 5):
        with pytest.raises(Killed):
            trained(text, space=replace(workspace(tmp_path), progress=Mortal(steps)))
    after, _ = trained(text, space=workspace(tmp_path))
    assert all(torch.equal(weights(whole)[name], value) for name, value in weights(after).items())
    assert all(torch.equal(scales(whole)[name], value) for name, value in scales(after).items())


def test_scales_follow_averages_until_they_are_frozen() -> None:
    """Scales that are far too wide come down to what fits, and do not move once they are frozen."""
    before, _ = trained(QUANTISE.format("weight_bits=4 activation_bits=4"))
    for node in places(before, PER_TENSOR):
        node.args = (node.args[0], 1.5 * arguments(node)["scale"], *node.args[2:])  # type: ignore[operator]
    before.module.recompile()
    text = "finetune{steps=%d batch=16 lr=1e-9 augment=none scales=average freeze_scales=%s}"
    half = scales(trained(text % (40, "0.5"), before)[0])
    same = scales(trained(text % (20, "1"), before)[0])
    kept = scales(trained(text % (5, "0"), before)[0])
    activations = [node.name for node in places(before, PER_TENSOR)]
    assert all(0.5 < float(half[name] / scales(before)[name]) < 0.95 for name in activations)
    assert all(torch.equal(kept[name], scale) for name, scale in scales(before).items())
    torch.testing.assert_close(half, same)


def test_frozen_scales_stay_while_weights_learn() -> None:
    before, after = quantised("weight_bits=4", TRAIN.replace("}", " scales=keep}"))
    assert all(torch.equal(scales(before)[name], scale) for name, scale in scales(after).items())
    assert not torch.equal(weights(before)["w2"], weights(after)["w2"])


def test_batch_norm_that_was_not_folded_learns_in_floating_point() -> None:
    text = "insert-fake-quant,calibrate{data=train images=32 compare=0}"
    before, _ = trained(text)
    after, _ = trained(TRAIN, before)
    assert not torch.equal(weights(before)["m"], weights(after)["m"])
    assert [arguments(node)["training"] for node in calls(after.module.graph, aten.batch_norm.default)] == [False]


@pytest.mark.parametrize("preset", ["int8-qat", "int4-qat"])
def test_presets(preset: str) -> None:
    text = str(Pipeline.parse(preset)).replace("distil{", "distil{steps=4 batch=16 ")
    after, _ = trained(text)
    bits = {arguments(node)["quant_max"].bit_length() for node in places(after, PER_TENSOR)}
    assert bits == ({8} if preset == "int8-qat" else {4, 8})
    assert "(100.0 %)" in trained("lower-to-integer", after)[1][-1]


def test_bfloat16_is_refused() -> None:
    with pytest.raises(UsageError, match="does not go with fake quantisation"):
        quantised("", TRAIN.replace("}", " precision=bf16}"))
    with pytest.raises(UsageError, match="freeze_scales must be from 0 to 1"):
        Pipeline.parse("finetune{freeze_scales=2}")
