"""The command line as a user meets it: what works, and one clear error with the right exit code for the rest."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from lvc.compiler.cli import main

FACTORIES = """
import torch
from torch import nn

class Tiny(nn.Module):
    def __init__(self, classes=4):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.bn = nn.BatchNorm2d(8)
        self.fc = nn.Linear(8, classes)

    def forward(self, image):
        return self.fc(torch.relu(self.bn(self.conv(image))).mean((2, 3)))

class Undecided(nn.Module):
    def forward(self, image):
        if image.sum() > 0:
            return image
        return -image

def tiny(classes=4):
    return Tiny(classes)

def undecided():
    return Undecided()

def broken():
    raise RuntimeError("no such size")

def number():
    return 42
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder with a file of factories."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nets.py").write_text(FACTORIES)
    return tmp_path


TINY = ["nets.py:tiny", "--shape", "1x3x16x16"]


def test_the_folders_of_headers_and_of_the_cmake_package_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    for kind in ("include", "cmake"):
        with pytest.raises(SystemExit) as left:
            main([f"--{kind}-dir"])
        assert not left.value.code
    include, cmake = map(Path, capsys.readouterr().out.splitlines())
    assert (include / "lvc.h").is_file()
    assert cmake == include.parent / "cmake"


def lvc(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(arguments)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def refused(capsys: pytest.CaptureFixture[str], folder: Path, *arguments: str) -> tuple[int, str]:
    """Run a command that must fail: one error, no traceback, no new file."""
    before = sorted(folder.rglob("*"))
    code, _, err = lvc(capsys, *arguments)
    assert "Traceback" not in err
    assert err.count("error:") == 1
    assert [path for path in sorted(folder.rglob("*")) if "__pycache__" not in path.parts] == before
    return code, err


def test_compile_for_the_reference_backend(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    code, out, _ = lvc(capsys, "compile", *TINY, "-t", "reference", "-o", "t.lvc", "--check", "--report", "r.json")
    assert code == 0
    assert "wrote t.lvc" in out
    report = json.loads((folder / "r.json").read_text())
    assert report["pipeline"] == ",".join(item["text"] for item in report["passes"])
    assert report["difference"] <= 1e-4
    assert sum(len(item["removed"]) for item in report["passes"] if item["text"] == "fold-batch-norm") == 1


@pytest.mark.parametrize(
    ("text", "fits"),
    [("letterbox=33", False), ("letterbox=16", True), ("resize=20,crop=18", False), ("resize=24", True),
     ("resize=16x17", False)],
)  # fmt: skip
def test_pictures_of_another_size_than_the_input_are_refused(
    capsys: pytest.CaptureFixture[str], folder: Path, text: str, fits: bool
) -> None:
    code, _, err = lvc(capsys, "compile", *TINY, "-t", "reference", "-o", "t.lvc", "--preprocess", text)
    assert code == (0 if fits else 2)
    assert fits or "--preprocess makes pictures of" in err
    assert fits == (folder / "t.lvc").exists()


def test_same_inputs_make_the_same_file(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    for name in ("a.lvc", "b.lvc"):
        assert lvc(capsys, "compile", *TINY, "-t", "reference", "-o", name)[0] == 0
    assert (folder / "a.lvc").read_bytes() == (folder / "b.lvc").read_bytes()


def test_opt_writes_onnx_that_can_be_read_again(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    assert lvc(capsys, "opt", *TINY, "-o", "t.onnx")[0] == 0
    code, out, _ = lvc(capsys, "opt", "t.onnx", "-O0")
    assert code == 0
    assert "conv2d" in out
    assert "batch_norm" not in out


def test_stages_combine_through_files(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    assert lvc(capsys, "opt", *TINY, "-p", "fold-batch-norm", "-o", "half.lvc")[0] == 0
    assert lvc(capsys, "compile", "half.lvc", "-t", "reference", "-o", "whole.lvc", "--check")[0] == 0


def test_json_is_the_only_thing_on_stdout(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    code, out, _ = lvc(capsys, "compile", *TINY, "-t", "reference", "--json")
    assert code == 0
    assert json.loads(out)["output"] == "tiny.lvc"


def test_dump_and_stop_after(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    arguments = ["opt", *TINY, "-p", "fold-batch-norm,eliminate-dead", "--dump", "graphs", "--stop-after", "1"]
    assert lvc(capsys, *arguments)[0] == 0
    assert sorted(path.name for path in (folder / "graphs").iterdir()) == ["00-input.txt", "01-fold-batch-norm.txt"]


def test_plugin_file_adds_a_pass(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    (folder / "mine.py").write_text(
        "from __future__ import annotations\n"
        "from dataclasses import dataclass\n"
        "from typing import ClassVar\n"
        "from lvc.compiler.pipeline.passes import Effect, Outcome, Pass\n"
        "@dataclass(frozen=True, kw_only=True)\n"
        "class CountCalls(Pass):\n"
        '    """Count the calls."""\n'
        '    name: ClassVar[str] = "count-calls"\n'
        "    effect: ClassVar[Effect] = Effect.EXACT\n"
        "    most: int = 100\n"
        "    def apply(self, model, workspace):\n"
        "        names = [n.name for n in model.module.graph.nodes if n.op == 'call_function']\n"
        "        return Outcome(changed=names[: self.most])\n"
    )
    code, _, _ = lvc(capsys, "opt", *TINY, "--plugin", "mine.py", "-p", "count-calls{most=4}", "--report", "r.json")
    assert code == 0
    assert len(json.loads((folder / "r.json").read_text())["passes"][0]["changed"]) == 4


def test_passes_and_targets_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = lvc(capsys, "passes")
    assert code == 0
    assert "fold-batch-norm" in out
    assert "O2" in out
    code, out, _ = lvc(capsys, "targets", "--json")
    assert code == 0
    assert {"native", "onnx", "reference"} <= {row["target"] for row in json.loads(out)}


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["compile", "none.onnx"], 2, ["none.onnx"]),
        (["compile", "none.py:tiny"], 2, ["none.py"]),
        (["compile", "no_such_package.nets:tiny"], 2, ["no_such_package"]),
        (["compile", "nets.py:absent"], 2, ["absent", "it defines Tiny, Undecided, tiny"]),
        (["compile", "nets.py:number"], 1, ["nets.py:number", "int"]),
        (["compile", "nets.py:broken"], 1, ["no such size"]),
        (["compile", "nets.py:tiny", "--arg", "colours=3"], 1, ["colours"]),
        (["compile", "nets.py:tiny", "--arg", "classes"], 2, ["NAME=VALUE"]),
        (["compile", "nets.py:tiny", "--shape", "1x3xlarge"], 2, ["--shape"]),
        (["compile", "nets.py:tiny", "--shape", "1x5x16x16"], 1, ["--shape"]),
        (["compile", "nets.py:tiny", "--shape", "photo=1x3x16x16"], 2, ["photo", "image"]),
        (["compile", *TINY, "-p", "fold-bach-norm"], 2, ["^^^^", "did you mean 'fold-batch-norm'?"]),
        (["compile", *TINY, "-p", "O2{x=1}"], 2, ["no options"]),
        (["compile", *TINY, "-p", "O2", "-O1"], 2, ["both"]),
        (["compile", *TINY, "-t", "x86-64-v9"], 2, ["x86-64-v9", "did you mean"]),
        (["compile", *TINY, "-o", "no/such/folder/t.lvc"], 2, ["no/such/folder"]),
        (["compile", *TINY, "-o", "."], 2, ["cannot write"]),
        (["compile", *TINY, "--weights", "none.pth"], 2, ["none.pth"]),
        (["opt", *TINY, "-o", "t.tflite"], 2, [".onnx"]),
        (["compile"], 2, ["MODEL", "--help"]),
        (["bake", "x"], 2, ["bake"]),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, list) and len(value) > 1 else None,
)
def test_bad_input_is_refused(
    capsys: pytest.CaptureFixture[str], folder: Path, arguments: list[str], code: int, words: list[str]
) -> None:
    found, err = refused(capsys, folder, *arguments)
    assert found == code, err
    for word in words:
        assert word in err


def test_files_and_options_stand_in_any_order(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    assert (
        lvc(capsys, "compile", "-O1", "nets.py:tiny", "--shape", "1x3x16x16", "-t", "reference", "-o", "t.lvc")[0] == 0
    )
    for name, value in (("a", 0.0), ("b", 1.0)):
        np.save(folder / f"{name}.npy", np.full((1, 3, 16, 16), value, np.float32))
    straight = json.loads(lvc(capsys, "run", "t.lvc", "a.npy", "b.npy", "--top", "2", "--json")[1])["results"]
    assert [result["input"] for result in straight] == ["a.npy", "b.npy"]
    for order in (
        ["--top", "2", "t.lvc", "a.npy", "b.npy", "--json"],
        ["t.lvc", "--top", "2", "a.npy", "b.npy", "--json"],
        ["t.lvc", "--json", "a.npy", "--top", "2", "b.npy"],
        ["t.lvc", "--json", "--top", "2", "--", "a.npy", "b.npy"],
    ):
        code, out, err = lvc(capsys, "run", *order)
        assert code == 0, err
        assert json.loads(out)["results"] == straight
    code, out, _ = lvc(capsys, "bench", "t.lvc", "--repeats", "1", "t.lvc", "--json")
    assert (code, len(json.loads(out)["engines"])) == (0, 2)


def test_an_option_without_its_value_or_a_model_is_one_error(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    code, err = refused(capsys, folder, "run", "--top", "2")
    assert (code, "MODEL" in err) == (2, True)
    code, err = refused(capsys, folder, "run", "t.lvc", "a.npy", "--top")
    assert (code, "--top" in err) == (2, True)
    code, err = refused(capsys, folder, "inspect", "t.onnx", "--json", "u.onnx")
    assert (code, "nothing takes u.onnx" in err) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "what", "help"),
    [
        (["compil", "t.onnx"], "there is no command 'compil'", "did you mean 'compile'?"),
        (["compile", "t.onnx", "--prepocess=imagenet"], "'lvc compile' has no option --prepocess", "'--preprocess'?"),
        (["bench", "t.lvc", "--key", "0123"], "'lvc bench' has no option --key", "'--key-file'?"),
        (["compile", "t.onnx", "--precision", "bf61"], "--precision cannot be 'bf61'", "did you mean 'bf16'?"),
        (["inspect", "t.onnx", "u.onnx"], "nothing takes u.onnx", "'lvc inspect --help'"),
    ],
)
def test_a_slip_of_the_keyboard_gets_a_suggestion(
    capsys: pytest.CaptureFixture[str], folder: Path, arguments: list[str], what: str, help: str
) -> None:
    code, err = refused(capsys, folder, *arguments)
    assert code == 2
    assert what in err
    assert help in err


def test_the_table_has_drift_only_where_it_was_measured(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    compile_tiny = ["compile", *TINY, "-t", "reference", "-o", "t.lvc"]
    assert "drift" not in lvc(capsys, *compile_tiny)[1]
    assert "drift" in lvc(capsys, *compile_tiny, "--check")[1]


def test_small_files_and_networks_have_a_size(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    _, out, _ = lvc(capsys, "compile", *TINY, "-t", "reference", "-o", "t.lvc")
    assert "; 260 parameters" in out
    assert f"wrote t.lvc ({(folder / 't.lvc').stat().st_size / 1000:.2f} kB)" in out


def test_truncated_onnx_is_refused(capsys: pytest.CaptureFixture[str], folder: Path, assets: Path) -> None:
    whole = (assets / "onnx" / "mnist_cntk.onnx").read_bytes()
    (folder / "cut.onnx").write_bytes(whole[: len(whole) // 2])
    code, err = refused(capsys, folder, "compile", "cut.onnx")
    assert code == 1
    assert "cut.onnx" in err


def test_unknown_onnx_operators_are_all_listed(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    nodes = [
        helper.make_node("Whirl", ["x"], ["a"], name="first", domain="my.ops"),
        helper.make_node("Relu", ["a"], ["b"], name="fine"),
        helper.make_node("Twirl", ["b"], ["y"], name="second", domain="my.ops"),
    ]
    value = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3]) for name in "xy"}
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("my.ops", 1)]
    graph = helper.make_graph(nodes, "g", [value["x"]], [value["y"]])
    onnx.save(helper.make_model(graph, opset_imports=opsets), folder / "custom.onnx")
    code, err = refused(capsys, folder, "compile", "custom.onnx")
    assert code == 1
    for word in ("Whirl", "first", "Twirl", "second"):
        assert word in err


class Exploit:
    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (Path("owned"),)


@pytest.mark.parametrize("name", ["w.pth", "w.bin", "w.npz"])
def test_a_pickle_is_not_weights(capsys: pytest.CaptureFixture[str], folder: Path, name: str) -> None:
    (folder / name).write_bytes(pickle.dumps({"conv.weight": Exploit()}))
    code, err = refused(capsys, folder, "compile", *TINY, "--weights", name)
    assert code == 1
    assert name in err


def test_a_pickled_module_is_refused(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    torch.save(torch.nn.Conv2d(3, 8, 3), folder / "module.pth")
    code, err = refused(capsys, folder, "compile", *TINY, "--weights", "module.pth")
    assert code == 1
    assert "module.pth" in err


def test_weights_that_do_not_fit_are_all_named(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    torch.save({"conv.weight": torch.zeros(8, 3, 5, 5), "head.bias": torch.zeros(4)}, folder / "w.pth")
    code, err = refused(capsys, folder, "compile", *TINY, "--weights", "w.pth")
    assert code == 1
    for word in ("conv.weight", "head.bias", "bn.weight"):
        assert word in err


def test_data_dependent_control_flow_names_its_line(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    code, err = refused(capsys, folder, "compile", "nets.py:undecided", "--shape", "1x3x8x8")
    assert code == 1
    line = FACTORIES.splitlines().index("        if image.sum() > 0:") + 1
    assert f"nets.py:{line}" in err or f"line {line}" in err


def test_running_on_what_is_no_artefact(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    (folder / "fake.lvc").write_bytes(b"PK\x03\x04 and then nothing")
    np.save(folder / "x.npy", np.zeros((1, 3, 16, 16), np.float32))
    assert refused(capsys, folder, "run", "fake.lvc", "x.npy")[0] == 1
    assert refused(capsys, folder, "run", "none.lvc", "x.npy")[0] == 2


def test_run_refuses_an_input_of_another_shape(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    assert lvc(capsys, "compile", *TINY, "-t", "reference", "-o", "t.lvc")[0] == 0
    np.save(folder / "x.npy", np.zeros((1, 3, 8, 8), np.float32))
    code, err = refused(capsys, folder, "run", "t.lvc", "x.npy")
    assert code == 2
    assert "1x3x16x16" in err


def test_threads_are_bounded_and_do_not_spin_for_long(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    assert lvc(capsys, "bench", "missing.lvc")[0] == 2
    assert "GOMP_SPINCOUNT" not in os.environ
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        assert lvc(capsys, "opt", *TINY, "-p", "O1", "--threads", "1", "-o", "tiny.onnx")[0] == 0
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
    assert os.environ["GOMP_SPINCOUNT"] == "5000"
    code, _, error = lvc(capsys, "opt", *TINY, "--threads", "0")
    assert code == 2
    assert "'0' is not an integer from 1" in error
