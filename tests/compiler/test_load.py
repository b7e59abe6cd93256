"""The load entry: what a source text may name, and one clear error for all else."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch

from lvc.compiler.errors import CompileError, LvcError, UsageError
from lvc.compiler.load import from_module, load
from lvc.compiler.writing import write_model

NET = """
import torch
from torch import nn

answer = 42

class Net(nn.Module):
    def __init__(self, width=4, channels=1):
        super().__init__()
        self.conv = nn.Conv2d(channels, width, 3)

    def forward(self, image, mask=None):
        x = self.conv(image)
        return x if mask is None else x * mask

class Two(nn.Module):
    def forward(self, left, right):
        return left + right

def network(): return {"not": "a module"}
def explodes(size=1): raise ValueError("no such size")
def leaves(): raise SystemExit(3)
def fixed():
    return nn.ReLU()
"""


@pytest.fixture
def net(tmp_path: Path) -> str:
    (tmp_path / "net.py").write_text(NET)
    return str(tmp_path / "net.py")


def test_factory_in_a_file_with_arguments_and_shapes(net: str) -> None:
    model = load(f"{net}:Net", arguments={"width": 6}, shapes={"image": (2, 1, 5, 5), "mask": (3, 3)})
    assert [str(value) for value in model.inputs] == ["image: f32[2,1,5,5]", "mask: f32[3,3]"]
    assert str(model.outputs[0]) == "output: f32[2,6,3,3]"
    assert (model.name, model.source) == ("Net", f"{net}:Net")


@pytest.mark.parametrize("key", ["", "input", "image"])
def test_shape_of_an_only_input_needs_no_name(net: str, key: str) -> None:
    assert load(f"{net}:Net", shapes={key: (1, 1, 8, 8)}).inputs[0].spec.shape == (1, 1, 8, 8)


def test_default_shape_is_an_image_with_the_channels_of_the_first_convolution(net: str) -> None:
    assert load(f"{net}:Net").inputs[0].spec.shape == (1, 1, 224, 224)


def test_random_weights_are_seeded_and_noted(net: str) -> None:
    state = torch.random.get_rng_state()
    first, again = (load(f"{net}:Net", shapes={"": (1, 1, 4, 4)}, seed=5) for _ in range(2))
    other = load(f"{net}:Net", shapes={"": (1, 1, 4, 4)}, seed=6)
    image = torch.ones(1, 1, 4, 4)
    assert (first(image)[0] == again(image)[0]).all()
    assert (first(image)[0] != other(image)[0]).any()
    assert "random (seed 5)" in first.notes[0]
    assert load(f"{net}:fixed").notes == []
    assert torch.equal(torch.random.get_rng_state(), state)


def test_weights_are_loaded(net: str, tmp_path: Path) -> None:
    state = {"conv.weight": torch.full((4, 1, 3, 3), 2.0), "conv.bias": torch.zeros(4)}
    torch.save({"state_dict": state}, tmp_path / "w.pth")
    model = load(f"{net}:Net", weights=tmp_path / "w.pth", shapes={"": (1, 1, 3, 3)})
    assert model(torch.ones(1, 1, 3, 3))[0].reshape(-1).tolist() == [18.0] * 4
    assert model.notes == []


REFUSED: dict[str, tuple[str, dict[str, Any], type[LvcError], str]] = {
    "missing file": ("{folder}/none.onnx", {}, UsageError, "there is no file"),
    "missing module file": ("{folder}/none.py:net", {}, UsageError, "there is no file"),
    "folder": ("{folder}", {}, UsageError, "is not a file"),
    "no factory named": ("{net}", {}, UsageError, "names no factory"),
    "misspelt factory": ("{net}:netwrok", {}, UsageError, "did you mean 'network'"),
    "not callable": ("{net}:answer", {}, UsageError, "is not a factory"),
    "no module": ("no_such_package.models:net", {}, UsageError, "there is no Python module 'no_such_package"),
    "not a name": ("no such:net", {}, UsageError, "there is no file and no Python module"),
    "no torch module": ("{net}:network", {}, CompileError, "returned a value of type dict"),
    "raises": ("{net}:explodes", {}, CompileError, "ValueError: no such size"),
    "exits": ("{net}:leaves", {}, CompileError, "SystemExit: 3"),
    "unknown argument": ("{net}:Net", {"arguments": {"depth": 3}}, CompileError, "unexpected keyword argument 'depth'"),
    "unknown input": ("{net}:Net", {"shapes": {"img": (1, 1, 4, 4)}}, UsageError, "has no input 'img'"),
    "several inputs": ("{net}:Two", {}, UsageError, "the shape of inputs left, right is not known"),
    "wrong shape": ("{net}:Net", {"shapes": {"": (1, 2, 4, 4)}}, CompileError, "give the right input size"),
    "pickle": ("{folder}/model.pth", {}, UsageError, "--weights"),
    "unknown suffix": ("{folder}/model.h5", {}, UsageError, "'.h5' is no known suffix"),
    "weights for a file": ("{folder}/model.onnx", {"weights": Path("w.pth")}, UsageError, "--weights is for factories"),
    "arguments for a file": ("{folder}/model.onnx", {"arguments": {"a": 1}}, UsageError, "--arg is for factories"),
    "broken module": ("{folder}/broken.py:net", {}, CompileError, "SyntaxError"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_loaded_is_one_clear_error(case: str, net: str, tmp_path: Path) -> None:
    for name in ("model.pth", "model.h5", "model.onnx"):
        (tmp_path / name).write_bytes(b"?")
    (tmp_path / "broken.py").write_text("def net(:\n")
    source, options, kind, text = REFUSED[case]
    with pytest.raises(LvcError) as caught:
        load(source.format(folder=tmp_path, net=net), **options)
    assert type(caught.value) is kind
    assert text in str(caught.value)


def test_error_in_a_factory_names_its_line(net: str) -> None:
    with pytest.raises(CompileError) as caught:
        load(f"{net}:explodes")
    line = NET.splitlines().index('def explodes(size=1): raise ValueError("no such size")') + 1
    assert caught.value.where == f"{net}:{line}"


def test_file_may_import_its_neighbours(tmp_path: Path) -> None:
    name = f"neighbour_{random.randrange(1 << 30)}"
    (tmp_path / f"{name}.py").write_text("from torch import nn\n")
    (tmp_path / "net.py").write_text(f"from {name} import nn\ndef make(): return nn.ReLU()\n")
    assert load(f"{tmp_path}/net.py:make").outputs


def test_a_stored_model_keeps_its_shapes(tmp_path: Path) -> None:
    file = tmp_path / "net.lvc"
    write_model(from_module(torch.nn.ReLU(), torch.zeros(1, 3, 4, 4)), file)
    assert load(file, shapes={"": (1, 3, 4, 4)}).inputs == load(str(file)).inputs
    with pytest.raises(UsageError, match="was fixed when the model was stored") as caught:
        load(file, shapes={"input": (2, 3, 4, 4)})
    assert caught.value.why == "it is 1x3x4x4, and 2x3x4x4 was asked for"
    with pytest.raises(UsageError, match="no input 'other'"):
        load(file, shapes={"other": (1, 3, 4, 4)})
