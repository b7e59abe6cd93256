"""What a model keeps of a module: names, structure, shared weights; and what it leaves alone."""

from __future__ import annotations

from collections import namedtuple
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from traced import draw, op_names, traced

from lvc.compiler.errors import CompileError, UsageError
from lvc.compiler.ir.graph import calls, origin
from lvc.compiler.load import from_module

Pair = namedtuple("Pair", ["left", "right"])


@dataclass
class Detections:
    boxes: Tensor
    scores: list[Tensor]
    masks: Tensor | None = None


class Returns(nn.Module):
    """Returns what a function of its input makes of it."""

    def __init__(self, shape: object) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, image: Tensor) -> object:
        x = image * 2
        return self.shape(x, x + 1)  # type: ignore[operator]


@pytest.mark.parametrize(
    ("shape", "names"),
    [
        (lambda x, y: x + y, ["output"]),
        (lambda *pair: [pair[0]], ["output"]),
        (lambda x, y: (x, y), ["output_0", "output_1"]),
        (lambda x, y: {"out": x, "aux": y}, ["out", "aux"]),
        (lambda x, y: {"levels": [x, y], "image": y}, ["levels_0", "levels_1", "image"]),
        (Pair, ["left", "right"]),
        (lambda x, y: Detections(x, [x, y]), ["boxes", "scores_0", "scores_1"]),
        (lambda x, y: {"a_0": x, "a": (y, x)}, ["a_0", "a_0_", "a_1"]),
        (lambda *pair: (pair[0], None), ["output_0"]),
    ],
)
def test_outputs_are_named_by_the_structure_of_the_result(shape: object, names: list[str]) -> None:
    model = from_module(Returns(shape), *draw((2, 3)))
    assert list(model.output_names) == names
    assert [value.name for value in model.inputs] == ["image"]


def test_result_that_is_no_tensor_is_refused() -> None:
    with pytest.raises(CompileError, match="returns a value of type int"):
        from_module(Returns(lambda *pair: (pair[0], 3)), *draw((2, 3)))


def test_inputs_keep_the_names_of_forward_even_if_python_has_them_too() -> None:
    class Sum(nn.Module):
        def forward(self, input: Tensor, id: Tensor, unused: Tensor, scale: float = 2.0) -> Tensor:
            return input + id * scale

    model = traced(Sum(), *draw((2, 3), (2, 3), (4,)))
    assert [str(value) for value in model.inputs] == ["input: f32[2,3]", "id: f32[2,3]", "unused: f32[4]"]
    assert model.copy().inputs == model.inputs


def test_tied_weights_are_one_tensor() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(4, 4)
            self.second = nn.Linear(4, 4, bias=False)
            self.second.weight = self.first.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.second(self.first(x))

    model = traced(Tied(), *draw((2, 4)))
    stored = [node for node in model.module.graph.nodes if node.op == "get_attr"]
    assert [node.target for node in stored] == ["first.weight", "first.bias"] or len(stored) == 2
    assert model.parameters == 20


def test_parameters_train_and_buffers_do_not() -> None:
    model = traced(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)), *draw((1, 3, 2, 2)))
    assert [name for name, _ in model.module.named_parameters()] == ["0.weight", "0.bias", "1.weight", "1.bias"]
    assert [name for name, _ in model.module.named_buffers()] == ["1.running_mean", "1.running_var"]


def test_module_is_left_as_it_was() -> None:
    module = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5)).train()
    before = module[0].weight.clone()
    model = from_module(module, *draw((2, 4)))
    with torch.no_grad():
        next(iter(model.module.parameters())).add_(1)
    assert module.training
    assert module[0].weight.requires_grad
    assert torch.equal(module[0].weight, before)


def test_origins_are_module_paths_and_source_lines() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1)

        def forward(self, x: Tensor) -> Tensor:
            return x + self.conv(x)

    model = traced(nn.Sequential(Block(), nn.ReLU()), *draw((1, 3, 2, 2)))
    conv, add, relu = (origin(node) for node in calls(model.module.graph))
    assert (conv, relu) == ("0.conv", "1")
    assert add.startswith("0 (test_torch_importer.py:")


def test_control_flow_on_data_names_the_line(capfd: pytest.CaptureFixture[str]) -> None:
    class Flow(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            if x.sum() > 0:
                return x
            return -x

    with pytest.raises(CompileError) as caught:
        from_module(Flow(), *draw((2, 3)))
    assert caught.value.what == "the model's control flow or shapes depend on the values in a tensor"
    assert caught.value.where.startswith(__file__)
    assert caught.value.where.endswith("if x.sum() > 0:")
    assert capfd.readouterr() == ("", "")


def test_shapes_that_depend_on_data_are_refused() -> None:
    with pytest.raises(CompileError, match=r"depend on the values|cannot express"):
        from_module(Returns(lambda *pair: pair[0].unique()), *draw((2, 3)))


def test_unknown_operators_are_listed_together_with_their_places() -> None:
    class Head(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, ...]:
            values, places = torch.linalg.eigh(x.mT @ x)
            return values.digamma().lgamma(), places, torch.linalg.eigh(x @ x.mT)[0]

    with pytest.raises(CompileError) as caught:
        from_module(nn.Sequential(nn.ReLU(), Head()), *draw((2, 3)))
    lines = caught.value.where.splitlines()
    assert caught.value.what.startswith("the model uses 3 operators")
    assert lines[0].startswith("aten.linalg_eigh.default: 1 (test_torch_importer.py:")
    assert lines[0].count("test_torch_importer.py") == 2
    assert lines[1].startswith("aten.digamma.default: 1 (")


def test_wrong_example_says_give_a_shape() -> None:
    with pytest.raises(CompileError) as caught:
        from_module(nn.Sequential(nn.Flatten(), nn.Linear(12, 2)), *draw((1, 5)))
    assert caught.value.what == "the model cannot be traced on f32[1,5]"
    assert "--shape" in caught.value.help


class ByNumpy(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.from_numpy(x.numpy().clip(0, 1))


class OfList(nn.Module):
    def forward(self, images: list[Tensor]) -> Tensor:
        return torch.cat(images, 1)


class OfPair(nn.Module):
    def forward(self, pair: Any) -> Tensor:
        left, right, more = pair
        return left + right + more


class Scaled(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * x.max().item()


class ByKeyword(nn.Module):
    def forward(self, *, pixels: Tensor) -> Tensor:
        return pixels


class Breaks(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise ValueError("no such mode")


@pytest.mark.parametrize(
    ("module", "help"),
    [
        (ByNumpy(), "PyTorch's operators"),
        (OfList(), "write a factory that wraps the model"),
        (OfPair(), "write a factory that wraps the model"),
        (ByKeyword(), "write a factory that wraps the model"),
        (Scaled(), "decide by shapes"),
        (Breaks(), "must run in evaluation mode"),
        (nn.Linear(5, 2), "give the right input size"),
    ],
)
def test_what_cannot_be_traced_says_what_to_do(module: nn.Module, help: str) -> None:
    with pytest.raises(CompileError) as caught:
        from_module(module, *draw((2, 3)))
    assert help in caught.value.help


@pytest.mark.filterwarnings("ignore")
def test_layers_quantised_by_pytorch_are_told_a_way() -> None:
    quantised = torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(3, 2)), {nn.Linear})
    with pytest.raises(CompileError) as caught:
        from_module(quantised, *draw((2, 3)))
    assert "-p int8" in caught.value.help


def test_control_flow_in_a_package_is_told_a_way() -> None:
    from torchvision.models.detection.roi_heads import heatmaps_to_keypoints

    with pytest.raises(CompileError) as caught:
        from_module(Returns(lambda *pair: heatmaps_to_keypoints(pair[0], pair[0][0, 0, :1])), torch.rand(1, 1, 4, 4))
    assert "the line is in an installed package" in caught.value.help


def test_random_numbers_in_evaluation_are_refused() -> None:
    with pytest.raises(CompileError) as caught:
        from_module(Returns(lambda *pair: nn.functional.dropout(pair[0])), *draw((2, 3)))
    assert "it draws random numbers" in caught.value.where


def test_what_is_not_a_module_is_refused() -> None:
    with pytest.raises(UsageError, match=r"not a torch\.nn\.Module"):
        from_module(lambda x: x, *draw((2, 3)))  # type: ignore[arg-type]


def test_transformer_layer() -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    model = traced(layer, *draw((2, 5, 8)), bound=1e-5)
    assert "softmax" in op_names(model)


def test_names_that_python_reserves() -> None:
    """Keys of a ModuleDict are free, as are names of registered parameters."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleDict({"class": nn.Linear(3, 4), "in": nn.Linear(4, 3)})
            self.register_parameter("self", nn.Parameter(torch.full((3,), 2.0)))

        def forward(self, x: Tensor) -> Tensor:
            return self.layers["in"](self.layers["class"](x)) * self._parameters["self"]

    names = dict(traced(Net(), *draw((2, 3))).module.named_parameters()).keys()
    assert {"layers.class_.weight", "layers.in_.bias", "self_"} <= names
