"""What is loaded is compared with its source, and what is built with what was loaded, before anything is written."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

import lvc
from lvc.backends.tvm import lower
from lvc.backends.tvm.joins import parts_of
from lvc.compiler.cli import main
from lvc.compiler.data.seeded import seeded_inputs
from lvc.compiler.driver import compile_and_report
from lvc.compiler.errors import CheckError
from lvc.compiler.ir.graph import store
from lvc.compiler.ir.model import Reference
from lvc.compiler.load.onnx_importer import reference as onnx_reference
from lvc.compiler.load.onnx_importer.build import load_converters
from lvc.compiler.load.onnx_importer.call import CONVERTERS
from lvc.compiler.load.request import LoadRequest
from lvc.compiler.measure.counts import total_macs
from lvc.compiler.measure.precision import summed_outputs
from lvc.compiler.pipeline.pipeline import Pipeline
from lvc.compiler.pipeline.workspace import Workspace
from lvc.compiler.verification.closeness import Comparison, differences, with_infinities
from lvc.compiler.verification.examples import image_inputs
from lvc.compiler.verification.record import Verified
from lvc.compiler.verification.verification import Verification

SHAPE = (1, 3, 8, 8)


def small_file(folder: Path, element_type: int = TensorProto.FLOAT) -> Path:
    """Convolution, LeakyRelu, convolution, sum over places."""
    random = np.random.default_rng(0)
    dtype = np.float16 if element_type == TensorProto.FLOAT16 else np.float32
    weights = {
        name: random.standard_normal(shape).astype(dtype)
        for name, shape in {"w": (4, 3, 3, 3), "v": (4, 4, 3, 3)}.items()
    }
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], name="first"),
        helper.make_node("LeakyRelu", ["a"], ["b"], name="bend", alpha=0.3),
        helper.make_node("Conv", ["b", "v"], ["c"], name="second"),
        helper.make_node("ReduceMean", ["c"], ["y"], name="mean", axes=[2, 3]),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", element_type, SHAPE)],
        [helper.make_tensor_value_info("y", element_type, (1, 4, 1, 1))],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    file = folder / "small.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), file)
    return file


def wrong_slope(monkeypatch: pytest.MonkeyPatch) -> None:
    """The importer reads LeakyRelu with another slope: a planted mistake."""
    load_converters()
    right = CONVERTERS["LeakyRelu"]
    monkeypatch.setitem(
        CONVERTERS, "LeakyRelu", lambda call: right(dataclasses.replace(call, attributes={"alpha": 0.2}))
    )


def test_a_file_is_compared_with_onnx_runtime(tmp_path: Path) -> None:
    report = compile_and_report(LoadRequest(str(small_file(tmp_path))))[1]
    assert report.loaded is not None
    assert report.loaded.against.startswith("ONNX Runtime ")
    assert report.loaded.inputs == 1
    assert report.built is not None
    assert report.built.difference is not None
    for found in (report.loaded, report.built):
        assert found.difference is not None
        assert found.difference < 1e-5
        assert not found.skipped


def test_a_window_of_padding_alone_has_no_maximum(tmp_path: Path) -> None:
    sizes = {"kernel_shape": [2, 2], "strides": [2, 2], "pads": [1, 1, 1, 1], "dilations": [1, 2]}
    graph = helper.make_graph(
        [helper.make_node("MaxPool", ["x"], ["y"], **sizes)],
        "empty",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 1, 32, 1))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 1, 17, 1))],
    )
    file = tmp_path / "empty.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), file)
    for target in ("native", "onnx"):
        artefact, report = compile_and_report(LoadRequest(str(file)), target=target)
        assert report.loaded is not None
        assert report.loaded.against.startswith("ONNX Runtime ")
        assert report.loaded.difference == 0
        assert report.built is not None
        assert report.built.difference == 0
        found = lvc.load(artefact)(np.zeros((1, 1, 32, 1), np.float32))
        assert (found[0] if isinstance(found, tuple) else found).max() <= np.finfo(np.float32).min


def test_only_the_last_number_of_the_same_sign_stands_for_infinity() -> None:
    own = np.array([-np.inf, np.inf, -np.inf, 0, np.nan], np.float32)
    last = np.finfo(np.float32).max
    found = np.array([-last, -last, -3e38, -last, -last], np.float32)
    assert np.array_equal(with_infinities([found], [own])[0], [-np.inf, *found[1:]])
    assert np.array_equal(with_infinities([found[:3]], [own])[0], found[:3])


def test_a_check_takes_images_as_well(tmp_path: Path) -> None:
    report = compile_and_report(LoadRequest(str(small_file(tmp_path))), check=True)[1]
    assert report.loaded is not None
    assert report.loaded.inputs == 2
    assert report.difference is not None


def test_a_wrong_import_is_an_error_that_names_the_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong_slope(monkeypatch)
    with pytest.raises(CheckError, match="the loaded model differs from ONNX Runtime") as caught:
        lvc.compile(str(small_file(tmp_path)))
    assert "node bend (LeakyRelu), its output 'b'" in caught.value.where


def test_a_wrong_import_is_seen_without_onnx_runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_reference, "_engine", lambda: ("onnx.reference", "onnx.reference 1.0"))
    file = str(small_file(tmp_path))
    assert str(compile_and_report(LoadRequest(file))[1].loaded).startswith("not verified: onnx.reference 1.0 is slow")
    loaded = compile_and_report(LoadRequest(file), check=True)[1].loaded
    assert loaded is not None
    assert loaded.against == "onnx.reference 1.0"
    wrong_slope(monkeypatch)
    with pytest.raises(CheckError, match=r"differs from onnx.reference"):
        lvc.compile(file, check=True)


def test_nothing_is_written_by_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong_slope(monkeypatch)
    output = tmp_path / "small.lvc"
    for command in ("compile", "opt"):
        assert main([command, str(small_file(tmp_path)), "-o", str(output)]) == 3
        assert "node bend (LeakyRelu)" in capsys.readouterr().err
        assert not output.exists()
    assert main(["compile", str(small_file(tmp_path)), "-o", str(output), "--no-verify"]) == 0
    assert "not verified: --no-verify" in capsys.readouterr().out
    assert output.exists()


def test_check_and_no_verify_contradict(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compile", "x.onnx", "--check", "--no-verify"]) == 2
    assert "--check and --no-verify are both given" in capsys.readouterr().err


def test_a_source_that_cannot_be_run_is_skipped_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_reference, "LIMIT_SECONDS", 0.01)
    loaded = compile_and_report(LoadRequest(str(small_file(tmp_path))))[1].loaded
    assert loaded is not None
    assert "took longer than" in loaded.skipped
    assert loaded.difference is None


def test_a_large_model_is_verified_on_request_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("lvc.compiler.verification.verification.QUICK_MACS", 100)
    loaded = compile_and_report(LoadRequest(str(small_file(tmp_path))))[1].loaded
    assert str(loaded) == "not verified: 6.19 kMACs take seconds to run, so only --check does"


def test_what_was_found_in_words() -> None:
    assert str(Verified("PyTorch", 0.0, 1, 0.25)) == "equal to PyTorch (250 ms)"
    assert str(Verified("PyTorch", 1.23e-6, 1, 0.25)) == "at most 1.2e-06 from PyTorch, relative (250 ms)"


def test_a_model_that_the_caller_holds_is_not_compared_with_its_source(tmp_path: Path) -> None:
    """He may have trained or rewritten it since."""
    model = lvc.load_model(str(small_file(tmp_path)))
    assert compile_and_report(model)[1].loaded is None


def test_a_swapped_place_in_a_concatenation_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A planted mistake that every plan agrees with: the parts are counted in another order."""

    class Pair(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = (torch.nn.Conv2d(3, 16, 1) for _ in range(2))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cat([self.one(x), self.two(x)], 1)

    def swapped(node: torch.fx.Node, layout: object) -> list[tuple[torch.fx.Node, int]]:
        parts = list(parts_of(node, layout))  # type: ignore[arg-type]
        return list(zip([part for part, _ in parts[::-1]], [offset for _, offset in parts], strict=True))

    monkeypatch.setattr(lower.joins, "parts_of", swapped)
    model = lvc.from_module(Pair().eval(), torch.zeros(SHAPE))
    with pytest.raises(CheckError, match="the compiled model differs from PyTorch"):
        lvc.compile(model)


def test_a_factory_is_compared_with_eager_pytorch() -> None:
    loaded = compile_and_report(LoadRequest("torchvision.models:squeezenet1_1", shapes={"": (1, 3, 32, 32)}))[1].loaded
    assert loaded is not None
    assert loaded.against == "eager PyTorch"
    assert loaded.difference is not None
    assert loaded.difference < 1e-5


def made(model: lvc.Model, other: Sequence[np.ndarray], name: str = "another way") -> lvc.Model:
    model.reference = Reference(name, lambda _: tuple(other))
    return model


def verify(model: lvc.Model) -> Verified:
    return Verification.of(model, Workspace(), check=False, verify=True).source()


@pytest.mark.parametrize("number", [0, 2])
def test_another_number_of_outputs_is_a_difference(number: int) -> None:
    model = lvc.from_module(torch.nn.ReLU(), torch.zeros(SHAPE))
    with pytest.raises(CheckError, match="inf relative"):
        verify(made(model, [np.zeros(SHAPE, np.float32)] * number))


def test_another_shape_is_a_difference() -> None:
    model = lvc.from_module(torch.nn.ReLU(), torch.zeros(SHAPE))
    with pytest.raises(CheckError, match="inf relative"):
        verify(made(model, [np.zeros((3, 8, 8), np.float32)]))


class Choice(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x.argmax(1), (x > 0).float()


def test_a_few_choices_may_fall_to_the_other_side() -> None:
    model = lvc.from_module(Choice(), torch.zeros(1, 10, 32, 32))
    example = Verification.of(model, Workspace(), check=False, verify=True).examples[0]
    first, second = (output.copy() for output in example.outputs)
    first[0, 0, :5] += 1
    second[0, 0, 0, :5] = 1 - second[0, 0, 0, :5]
    assert Comparison(model, example.inputs, example.outputs, [first, second]).agrees
    first[0, :3] += 1
    assert not Comparison(model, example.inputs, example.outputs, [first, second]).agrees
    assert differences([first], [example.outputs[0]])[0] == pytest.approx(3 * 32 / 1024)


def test_inputs_like_images() -> None:
    values = lvc.from_module(torch.nn.ReLU(), torch.zeros(1, 3, 20, 24)).inputs
    (image,) = image_inputs(values, 0)
    assert image.shape == (1, 3, 20, 24)
    assert image.dtype == np.float32
    assert 0 <= image.min() < 0.2
    assert 0.8 < image.max() <= 1
    steps = np.abs(np.diff(image, axis=3)).mean()
    assert steps < 0.15, "neighbours are alike"
    (scene,) = image_inputs(values, 0, has_objects=True)
    (last,) = image_inputs(lvc.from_module(torch.nn.ReLU(), torch.zeros(1, 20, 24, 3)).inputs, 0, has_objects=True)
    for shown in (scene, np.moveaxis(last, 3, 1)):
        assert (np.abs(np.diff(shown, axis=3)) == 0).all(1).mean() > 0.2, "objects are of one colour"
        assert 0 <= shown.min() < shown.max() <= 1
    (prepared,) = image_inputs(values, 0, "range=255,mean=100/110/120,std=50")
    wanted = (np.round(image * 255) - np.array([100, 110, 120])[:, None, None]) / 50
    np.testing.assert_allclose(prepared, wanted, rtol=1e-4, atol=1e-4)


class Found(torch.nn.Module):
    """A detector of one box a row of the image, those with a mean above a bound."""

    def __init__(self, bound: float) -> None:
        super().__init__()
        self.bound = bound

    def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        scores = image.mean((0, 1, 3))
        above = scores > self.bound
        boxes = scores[:, None].expand(-1, 4)
        return {"boxes": boxes[above], "scores": scores[above], "labels": torch.ones(20, dtype=torch.int64)[above]}


@pytest.mark.parametrize("bound", [-1.0, 999.0])
def test_a_detector_is_verified_on_what_looks_like_an_image(bound: float) -> None:
    model = lvc.from_module(Found(bound), torch.rand(1, 3, 20, 24))
    model.preprocessing = "range=255,layout=bgr"
    verification = Verification.of(model, Workspace(), check=False, verify=True)
    (example,) = verification.examples
    assert example.text == "inputs like images"
    assert example.inputs[0].max() > 200
    artefact = lvc.compile(model, "O1", "reference", verify=False)
    told = str(verification.artefact(artefact, model, Pipeline()))
    assert ("finds nothing in these inputs" in told) == (bound > 1)
    assert len(Verification.of(model, Workspace(), check=True, verify=True).examples) == 2


def test_total_macs_counts_multiplications() -> None:
    assert total_macs(lvc.from_module(torch.nn.Conv2d(3, 4, 1), torch.zeros(SHAPE)).module.graph) == 3 * 4 * 64


def test_equal_inputs_still_give_equal_artefacts(tmp_path: Path) -> None:
    request = LoadRequest(str(small_file(tmp_path)))
    with_it, without = (lvc.compile(request, verify=verify) for verify in (True, False))
    assert with_it == without


@pytest.mark.parametrize("command", ["run", "eval"])
def test_commands_that_run_a_model_verify_it_first(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong_slope(monkeypatch)
    data = tmp_path / "data.npz"
    np.savez(data, x=np.zeros((2, *SHAPE[1:]), np.float32), y=np.zeros(2, np.int64))
    place = ["--data", str(data)] if command == "eval" else [str(data)]
    line = [command, str(small_file(tmp_path)), *place]
    assert main(line) == 3
    assert "the loaded model differs" in capsys.readouterr().err
    assert main([*line, "--no-verify"]) != 3


class Detector(torch.nn.Module):
    """Objectness that is 'no' nearly everywhere, as on noise, and a box."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return (x - 14).sigmoid(), x * 2


def test_a_saturated_sigmoid_may_be_off_by_an_ulp_of_one_and_no_more() -> None:
    """ONNX Runtime's sigmoid has an absolute error: YuNet's objectness of 1e-5 is 1.2 % off on noise."""
    model = lvc.from_module(Detector(), torch.zeros(1, 3, 8, 8))
    example = Verification.of(model, Workspace(), check=False, verify=True).examples[0]
    scores, boxes = example.outputs
    by_an_ulp = Comparison(model, example.inputs, example.outputs, [scores + 2.0**-23, boxes])
    assert by_an_ulp.difference > 1e-3
    assert by_an_ulp.explanation == "saturated functions rounded to a place of one"
    assert not Comparison(model, example.inputs, example.outputs, [scores + 2.0**-20, boxes]).agrees
    assert not Comparison(model, example.inputs, example.outputs, [scores, boxes * 1.001]).agrees


def small_differences_of_large_sums(terms: int) -> tuple[torch.nn.Linear, torch.Tensor]:
    """A layer whose bias takes away, on the input returned with it, all of its sums but a hundredth of a term."""
    random = torch.Generator().manual_seed(0)
    layer, x = torch.nn.Linear(terms, 64), torch.randn(1, terms, generator=random)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(64, terms, generator=random))
        rest = 1e-2 * torch.randn(64, generator=random).double().sign() * (1 + torch.rand(64, generator=random))
        layer.bias.copy_((rest - (layer.weight.double() @ x[0].double())).float())
    return layer, x


def terms_sum(terms: np.ndarray) -> np.ndarray:
    return np.asarray(terms.sum(1, dtype=np.float64))


def test_sums_of_one_term_after_another_round_more_and_no_wrong_one_passes_for_them() -> None:
    layer, x = small_differences_of_large_sums(8192)
    model, inputs = lvc.from_module(layer, x), (x.numpy(),)
    own = model(*inputs)
    weight, bias = layer.weight.detach().numpy(), layer.bias.detach().numpy()
    terms = (weight * x.numpy()).astype(np.float32)
    one_by_one = np.cumsum(terms, 1, dtype=np.float32)[:, -1] + bias
    exact = terms_sum(terms) + bias
    assert 0.5 < np.std(summed_outputs(model, inputs)[0][0] - exact) / np.std(one_by_one - exact) < 3
    assert max(differences([one_by_one[None]], own)) > 10 * 1e-4
    assert Comparison(model, inputs, own, [one_by_one[None]]).agrees
    without_a_term = (terms_sum(terms[:, 1:]) + bias).astype(np.float32)
    assert not Comparison(model, inputs, own, [without_a_term[None]]).agrees
    assert not Comparison(model, inputs, own, [own[0] + 10 * (one_by_one - own[0])]).agrees


class Largest(torch.nn.Module):
    """Places and sums of the sums above zero: a list whose values round as those of its layer do."""

    def __init__(self, layer: torch.nn.Linear) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = self.layer(x)[0]
        keep = torch.nonzero(y > 0)[:, 0]
        return keep, y[keep]


def test_what_a_list_holds_may_round_as_sums_do() -> None:
    layer, x = small_differences_of_large_sums(8192)
    model, inputs = lvc.from_module(Largest(layer), x), (x.numpy(),)
    assert model.counts
    own = model(*inputs)
    moved = summed_outputs(model, inputs)
    assert max(differences(moved, own)) > 10 * 1e-4
    assert Comparison(model, inputs, own, moved).agrees
    values = model.output_names.index(next(v.name for v in model.outputs if v.spec.dtype is torch.float32))
    for wrong in (own[values] * 1.5, own[values] + own[values].max()):
        other = [wrong if place == values else array for place, array in enumerate(own)]
        assert not Comparison(model, inputs, own, other).agrees


def test_what_explains_a_difference_is_told() -> None:
    record = Verified("ONNX Runtime")
    record.take(1e-6, "")
    assert "explained" not in str(record)
    record.take(1e-2, "saturated functions rounded to a place of one")
    assert str(record).startswith(
        "at most 1.0e-02 from ONNX Runtime, relative, explained by saturated functions rounded to a place of one"
    )


@pytest.mark.parametrize("name", ["mnist_cntk", "yunet_n_320", "yolox_nano"])
def test_models_from_the_field_load_as_their_files_compute(assets: Path, name: str) -> None:
    model = lvc.load_model(str(assets / "onnx" / f"{name}.onnx"))
    found = Verification.of(model, Workspace(), check=True, verify=True).source()
    assert not found.skipped
    assert found.inputs == 2


class Queries(torch.nn.Module):
    """The features of those places of an image that score best, as RT-DETR's decoder takes them, and what it makes of
    them: all scores are equal but for rounding."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.features, self.decode = torch.nn.Conv2d(3, 16, 4, stride=4), torch.nn.Linear(16, 16)
        self.boxes, self.scores = torch.nn.Linear(16, 4), torch.nn.Linear(16, 5)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        tokens = self.features(image).flatten(2).transpose(1, 2)
        order = (1 + 1e-7 * tokens.mean(2)).topk(49, dim=1).indices
        chosen = tokens.gather(1, order[..., None].expand(-1, -1, 16))
        mixed = torch.softmax(chosen @ chosen.transpose(1, 2), -1) @ self.decode(chosen)
        return self.boxes(mixed).sigmoid(), self.scores(mixed + chosen)


def test_rows_in_another_order_are_no_difference_and_faults_in_them_are() -> None:
    model = lvc.from_module(Queries(), torch.rand(1, 3, 28, 28))
    inputs = seeded_inputs(model.inputs, 0)
    own = model(*inputs)
    order = np.random.default_rng(1).permutation(49)
    moved = [(array[:, order] + np.float32(1e-7)).astype(np.float32) for array in own]
    assert max(differences(moved, own)) > 0.1
    assert Comparison(model, inputs, own, moved).explanation == "rows in another order"
    apart = [moved[0], own[1]]
    assert not Comparison(model, inputs, own, apart).agrees, "boxes have the scores of others"
    nudged = model(*(array * np.float32(1 + 1e-6) for array in inputs))
    assert Comparison(model, inputs, own, nudged).agrees

    for name in ("decode.weight", "boxes.bias", "scores.weight"):
        wrong = model.copy()
        (target,) = (key for key in wrong.module.state_dict() if key.endswith(name.replace(".", "_")) or key == name)
        store(wrong.module, target, wrong.module.state_dict()[target] * 1.02)
        faulty = [array[:, order] for array in wrong(*inputs)]
        assert max(differences(faulty, own)) > 1e-3
        assert not Comparison(model, inputs, own, faulty).agrees
