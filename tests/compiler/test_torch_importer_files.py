"""Exported programs: read back as they were, and nothing in them is run."""

from __future__ import annotations

import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from traced import draw

import lvc
from lvc.compiler.cli import main
from lvc.compiler.errors import CompileError, UsageError
from lvc.compiler.ir.verify import verify
from lvc.compiler.load import from_module, load
from lvc.compiler.writing import write_model


class Net(nn.Module):
    """Shared weights, an in-place write, several outputs, a constant, infinities, lists of tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.bn = nn.BatchNorm2d(4)
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.second.weight = self.first.weight
        self.register_buffer("scale", torch.tensor([2.0]), persistent=False)

    def forward(self, image: Tensor) -> dict[str, Any]:
        x = self.bn(self.conv(image)).relu_()
        a, b = x.chunk(2, 1)
        x = torch.cat([b, a], 1).mean((2, 3))
        x[:, 0] = x[:, 0] + torch.tensor(3.0)
        x = x.masked_fill(x < 0, float("-inf"))
        return {"best": tuple(x.max(1)), "out": self.second(self.first(x * self.scale))}


Edit = Callable[[str, bytes], bytes | None]


@cache
def _exported() -> bytes:
    torch.manual_seed(0)
    buffer = io.BytesIO()
    torch.export.save(torch.export.export(Net().eval(), tuple(draw((1, 3, 6, 6))), strict=False), buffer)
    return buffer.getvalue()


def _archive(path: Path, edit: Edit = lambda _, content: content, add: dict[str, bytes] | None = None) -> Path:
    """Export the net to a file, its entries changed (or left out) by ``edit`` and others added."""
    with zipfile.ZipFile(io.BytesIO(_exported())) as whole, zipfile.ZipFile(path, "w") as changed:
        root = whole.namelist()[0].split("/")[0]
        for name in whole.namelist():
            content = edit(name.partition("/")[2], whole.read(name))
            if content is not None:
                changed.writestr(name, content)
        for name, content in (add or {}).items():
            changed.writestr(f"{root}/{name}", content)
    return path


def _change_graph(change: Callable[[dict[str, Any]], None]) -> Edit:
    def edit(name: str, content: bytes) -> bytes:
        if not name.startswith("models/"):
            return content
        program = json.loads(content)
        change(program)
        return json.dumps(program).encode()

    return edit


def test_program_is_what_it_was(tmp_path: Path) -> None:
    model = load(str(_archive(tmp_path / "net.pt2")))
    verify(model)
    torch.manual_seed(0)
    (image,) = draw((1, 3, 6, 6))
    wanted = Net().eval()(image.clone())
    assert model.output_names == ("best_0", "best_1", "out")
    assert [str(value) for value in model.inputs] == ["image: f32[1,3,6,6]"]
    for ours, theirs in zip(model(image), [*wanted["best"], wanted["out"]], strict=True):
        assert torch.allclose(torch.from_numpy(ours), theirs.detach(), equal_nan=True)
    assert sum("weight" in str(n.target) for n in model.module.graph.nodes if n.op == "get_attr") == 3


def test_written_model_is_read_back_the_same(tmp_path: Path) -> None:
    torch.manual_seed(0)
    (image,) = draw((1, 3, 6, 6))
    model = from_module(Net().eval(), image)
    write_model(model, tmp_path / "net.pt2")
    again = load(str(tmp_path / "net.pt2"))
    assert [str(v.spec) for v in again.outputs] == [str(v.spec) for v in model.outputs]
    for ours, theirs in zip(again(image), model(image), strict=True):
        assert torch.equal(torch.from_numpy(ours).nan_to_num(), torch.from_numpy(theirs).nan_to_num())


def test_shape_may_be_confirmed_and_not_changed(tmp_path: Path) -> None:
    file = str(_archive(tmp_path / "net.pt2"))
    assert load(file, shapes={"": (1, 3, 6, 6)}).inputs[0].spec.shape == (1, 3, 6, 6)
    with pytest.raises(UsageError, match="was fixed when the file was exported"):
        load(file, shapes={"image": (1, 3, 8, 8)})
    with pytest.raises(UsageError, match="no input 'picture'"):
        load(file, shapes={"picture": (1, 3, 6, 6)})


class Open(nn.Module):
    """Computes with the sizes of its input in every way that convolutional networks do."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        y = self.conv(x).relu()
        batch, channels, height, width = y.shape
        rows = y.reshape(batch, channels, height * width).transpose(1, 2)
        resized = nn.functional.interpolate(y, (height // 2, width * 2))
        return rows[:, : height // 2], resized, y.new_ones(batch, 2), torch.arange(width) - 1


def _open_program(path: Path) -> Path:
    torch.manual_seed(0)
    sizes = {0: torch.export.Dim("batch"), 2: torch.export.Dim("height", min=4, max=64), 3: torch.export.Dim("width")}
    program = torch.export.export(Open().eval(), (torch.zeros(2, 3, 8, 6),), dynamic_shapes=(sizes,))
    torch.export.save(program, path)
    return path


def test_open_sizes_are_fixed_by_a_shape(tmp_path: Path) -> None:
    file = str(_open_program(tmp_path / "net.pt2"))
    torch.manual_seed(0)
    module = Open().eval()
    for shape in ((4, 3, 10, 7), (2, 3, 8, 6), (1, 3, 16, 16)):
        model = load(file, shapes={"": shape})
        verify(model)
        (image,) = draw(shape)
        assert model.reference
        for ours, theirs, wanted in zip(
            model(image), model.reference.run([image.numpy()]), module(image.clone()), strict=True
        ):
            assert torch.allclose(torch.from_numpy(ours), wanted.detach(), atol=1e-6)
            assert torch.allclose(torch.from_numpy(theirs), wanted.detach(), atol=1e-6)


def test_open_sizes_without_a_shape_say_how_to_fix_them(tmp_path: Path) -> None:
    file = str(_open_program(tmp_path / "net.pt2"))
    with pytest.raises(UsageError, match=r"the shape of input 'x' is open: \?x3x\?x\?") as caught:
        load(file)
    assert caught.value.help.startswith("--shape x=2x3x8x6")
    with pytest.raises(UsageError, match="was fixed when the file was exported"):
        load(file, shapes={"x": (2, 4, 8, 6)})
    with pytest.raises(UsageError, match="exported for sizes from 4 to 64, not 65"):
        load(file, shapes={"x": (2, 3, 65, 6)})


@pytest.mark.parametrize(("least", "wanted"), [(1, 1), (3, 3)])
def test_an_open_batch_alone_needs_no_shape(tmp_path: Path, least: int, wanted: int) -> None:
    sizes = {0: torch.export.Dim("batch", min=least, max=9)}
    module, file = nn.Conv2d(3, 2, 1).eval(), tmp_path / "net.pt2"
    torch.export.save(torch.export.export(module, (torch.zeros(4, 3, 5, 6),), dynamic_shapes=(sizes,)), file)
    model = load(str(file))
    assert str(model.inputs[0].spec) == f"f32[{wanted},3,5,6]"
    assert model.notes == [f"input 'input': the open batch size was fixed to {wanted}"]
    assert load(str(file), shapes={"": (5, 3, 5, 6)}).notes == []
    target = str(tmp_path / "net.lvc")
    assert main(["compile", str(file), "--batch", "3,5", "-o", target]) == 0
    assert lvc.load(target).batch_sizes == (3, 5)
    assert main(["compile", str(file), "--batch", "10,12", "-o", target]) == 2


def test_sizes_do_not_grow_without_bound(tmp_path: Path) -> None:
    def change(program: dict[str, Any]) -> None:
        calls = program["graph_module"]["graph"]["nodes"]
        square = next(call for call in calls if call["target"] == "_operator.mul")
        name = {"as_sym_int": {"as_name": square["outputs"][0]["as_sym_int"]["as_name"]}}
        again = {**square, "inputs": [{"name": side, "arg": name, "kind": 1} for side in "ab"]}
        for _ in range(60):
            calls.insert(calls.index(square) + 1, again)

    whole = _open_program(tmp_path / "whole.pt2")
    file = tmp_path / "net.pt2"
    with zipfile.ZipFile(whole) as old, zipfile.ZipFile(file, "w") as new:
        for name in old.namelist():
            new.writestr(name, _change_graph(change)(name.partition("/")[2], old.read(name)))
    with pytest.raises(CompileError, match="a size that no tensor has"):
        load(str(file), shapes={"x": (2, 3, 8, 6)})


def test_open_sizes_of_two_inputs_go_together(tmp_path: Path) -> None:
    class Sum(nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return x + y

    batch = torch.export.Dim("batch")
    examples = (torch.zeros(4, 3), torch.zeros(4, 3))
    torch.export.save(torch.export.export(Sum(), examples, dynamic_shapes=({0: batch}, {0: batch})), tmp_path / "s.pt2")
    model = load(str(tmp_path / "s.pt2"), shapes={"x": (7, 3), "y": (7, 3)})
    assert str(model.outputs[0].spec) == "f32[7,3]"
    with pytest.raises(UsageError, match="do not go together"):
        load(str(tmp_path / "s.pt2"), shapes={"x": (7, 3), "y": (8, 3)})


class Hostile:
    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.trace),)


def test_pickled_example_inputs_are_never_opened(tmp_path: Path) -> None:
    trace = tmp_path / "was-run"
    payload = pickle.dumps(Hostile(trace))
    file = _archive(
        tmp_path / "net.pt2", lambda name, content: payload if name.startswith("data/sample_inputs/") else content
    )
    assert load(str(file)).output_names
    assert not trace.exists()


def test_pickled_weight_is_refused(tmp_path: Path) -> None:
    trace = tmp_path / "was-run"

    def edit(name: str, content: bytes) -> bytes:
        if name.endswith("weights_config.json"):
            return content.replace(b'"use_pickle": false', b'"use_pickle": true')
        return pickle.dumps(Hostile(trace)) if name.startswith("data/weights/weight_") else content

    with pytest.raises(CompileError, match="refused") as caught:
        load(str(_archive(tmp_path / "net.pt2", edit)))
    assert "stored as a pickle" in caught.value.why
    assert not trace.exists()


def test_guards_of_the_file_are_not_executed(tmp_path: Path) -> None:
    trace = tmp_path / "was-run"

    def change(program: dict[str, Any]) -> None:
        program["guards_code"] = [f"__import__('os').mkdir({str(trace)!r}) is None"]

    assert load(str(_archive(tmp_path / "net.pt2", _change_graph(change)))).output_names
    assert not trace.exists()


@pytest.mark.parametrize("target", ["torch.hub.load", "torch.ops.aten.from_file.default", "math.sqrt", "os.mkdir"])
def test_operators_are_looked_up_among_the_known_ones_only(target: str, tmp_path: Path) -> None:
    def change(program: dict[str, Any]) -> None:
        program["graph_module"]["graph"]["nodes"][0]["target"] = target

    with pytest.raises(CompileError, match="1 operator that lvc cannot express") as caught:
        load(str(_archive(tmp_path / "net.pt2", _change_graph(change))))
    assert target.removeprefix("torch.ops.") in caught.value.where


def test_symbolic_expressions_are_not_evaluated(tmp_path: Path) -> None:
    trace = tmp_path / "was-run"

    def change(program: dict[str, Any]) -> None:
        sizes = program["graph_module"]["graph"]["tensor_values"]["image"]["sizes"]
        sizes[0] = {"as_expr": {"expr_str": f"__import__('os').mkdir({str(trace)!r})", "hint": None}}

    file = str(_archive(tmp_path / "net.pt2", _change_graph(change)))
    assert load(file).notes == ["input 'image': the open batch size was fixed to 1"]
    assert load(file, shapes={"image": (1, 3, 6, 6)}).output_names
    assert not trace.exists()


def test_constant_of_enormous_size_is_refused(tmp_path: Path) -> None:
    def change(program: dict[str, Any]) -> None:
        nodes = program["graph_module"]["graph"]["nodes"]
        conv = next(node for node in nodes if node["target"] == "torch.ops.aten.lift_fresh_copy.default")
        size = {"name": "size", "arg": {"as_ints": [1 << 20, 1 << 20]}, "kind": 1}
        conv.update(target="torch.ops.aten.expand.default", inputs=[conv["inputs"][0], size])

    with pytest.raises(CompileError, match="a constant is too large"):
        load(str(_archive(tmp_path / "net.pt2", _change_graph(change))))


def _cut(at: float) -> Callable[[Path], None]:
    def cut(path: Path) -> None:
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * at)])

    return cut


@pytest.mark.parametrize("damage", [_cut(0.0), _cut(0.5), _cut(0.99), lambda path: path.write_text("{}")])
def test_damaged_file_is_one_clear_error(damage: Callable[[Path], None], tmp_path: Path) -> None:
    file = _archive(tmp_path / "net.pt2")
    damage(file)
    with pytest.raises(CompileError, match="not an exported program"):
        load(str(file))


CHANGES: dict[str, Callable[[dict[str, Any]], object]] = {
    "no-graph": lambda program: program["graph_module"].pop("graph"),
    "version": lambda program: program["schema_version"].update(major=3),
    "no-outputs": lambda program: program["graph_module"]["signature"].update(output_specs=[{"user_output": {}}]),
    "unknown-value": lambda program: program["graph_module"]["graph"]["nodes"].pop(0),
    "arguments": lambda program: program["graph_module"]["graph"]["nodes"][0]["inputs"].pop(1),
    "type": lambda program: program["graph_module"]["graph"]["nodes"][1]["inputs"][1].update(arg={"as_string": "x"}),
    "list": lambda program: program.update(graph_module=[1]),
}


@pytest.mark.parametrize("change", CHANGES)
def test_graph_that_makes_no_sense_is_one_clear_error(change: str, tmp_path: Path) -> None:
    file = _archive(tmp_path / "net.pt2", _change_graph(lambda program: CHANGES[change](program) and None))
    with pytest.raises(CompileError, match=r"damaged|another version|cannot take these operands"):
        load(str(file))


def test_missing_or_short_weights_are_one_clear_error(tmp_path: Path) -> None:
    def short(name: str, content: bytes) -> bytes:
        return content[:8] if name.startswith("data/weights/weight_") else content

    with pytest.raises(CompileError, match="damaged"):
        load(str(_archive(tmp_path / "short.pt2", short)))
    with pytest.raises(CompileError, match="damaged"):
        load(str(_archive(tmp_path / "none.pt2", lambda n, c: None if n.startswith("data/weights/weight_") else c)))


def test_weights_file_with_the_wrong_suffix_is_no_program(tmp_path: Path) -> None:
    torch.save(Net().state_dict(), tmp_path / "net.pt2")
    with pytest.raises(CompileError, match="not an exported program"):
        load(str(tmp_path / "net.pt2"))
