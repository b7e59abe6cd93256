"""What a recipe demands is checked before anything is written, and each built-in recipe makes an artefact that runs."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recipe_files import RECIPE, write_folder

import lvc
from lvc.compiler import container
from lvc.compiler.cli import main
from lvc.compiler.recipe import checks
from lvc.compiler.recipe.recipe import builtin_names

Run = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recipe")
    write_folder(folder)
    return folder


@pytest.fixture
def folder(made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, in which stages are kept from test to test."""
    monkeypatch.chdir(made)
    (made / "r.toml").write_text(RECIPE)
    return made


@pytest.fixture
def run(folder: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Compile the recipe; return the exit code and what is printed as JSON."""

    def compiled(*options: str) -> tuple[int, dict[str, Any]]:
        Path("out.lvc").unlink(missing_ok=True)
        capsys.readouterr()
        code = main(["compile", "--recipe", "r.toml", "--checkpoints", "kept", "-o", "out.lvc", "--json", *options])
        found: dict[str, Any] = json.loads(capsys.readouterr().out)
        return code, found

    return compiled


LOSSY = ["prune.macs=0.2", "prune.criterion=random", "prune.reconstruct=false", "checks.max-drop=100"]


def test_a_check_that_fails_leaves_nothing(run: Run, folder: Path) -> None:
    lossy = [part for text in LOSSY for part in ("--set", text)]
    code, report = run(*lossy)
    assert (code, Path("out.lvc").exists()) == (0, True)
    score, size = report["stages"][-1]["score"], report["stages"][-1]["bytes"]
    before = set(folder.iterdir()) - {folder / "out.lvc"}

    code, error = run(*lossy, "--set", f"checks.max-bytes={size - 1}", "--report", "report.json")
    assert (code, set(folder.iterdir())) == (3, before)
    assert error["error"] == f"{size:,} bytes, at most {size - 1:,} allowed"
    code, error = run(*lossy, "--set", f"checks.min-accuracy={score * 100 + 0.01}")
    assert (code, set(folder.iterdir())) == (3, before)
    assert error["error"].startswith(f"top-1 on 'test' {score:.2%}".replace("%", " %"))
    drop = 100 - score * 100
    assert drop > 0
    assert run(*lossy, "--set", f"checks.max-drop={drop - 0.01}")[0] == 3
    code, error = run(*lossy, "--set", f"checks.max-drop={drop - 0.01}", "--set", "checks.max-bytes=3")
    assert error["error"] == "2 checks of the recipe fail"
    assert "at most 3 allowed" in error["why"]
    assert f"at most {drop - 0.01:g} allowed" in error["why"]
    assert set(folder.iterdir()) == before

    bounds = [f"checks.max-drop={drop}", f"checks.max-bytes={size}", f"checks.min-accuracy={score * 100}"]
    code, report = run(*lossy, *(part for bound in bounds for part in ("--set", bound)))
    assert (code, [check["holds"] for check in report["checks"]]) == (0, [True] * 3)


def test_old_files_stay_where_a_check_fails(run: Run) -> None:
    Path("old.lvc").write_text("precious")
    assert run("-o", "old.lvc", "--set", "checks.max-bytes=3")[0] == 3
    assert Path("old.lvc").read_text() == "precious"


def test_bounds_of_the_command_line_hold_in_a_recipe(run: Run) -> None:
    assert "100 dB are wanted" in run("--set", "checks.max-loss=100dB")[1]["error"]
    code, error = run("--set", "checks.require=int8=0.9")
    assert (code, Path("out.lvc").exists()) == (3, False)
    assert "run in integers" in error["error"]


HEAD = """\
import torch
from torch import nn
class Head(nn.Module):
    def __init__(self):
        super().__init__()
        self.levels = nn.ModuleList(nn.Conv2d(3, 7, stride, stride) for stride in (8, 16, 32))
    def forward(self, image):
        rows = [level(image).flatten(2) for level in self.levels]
        return torch.cat(rows, 2).transpose(1, 2)
"""
DETECTOR = """\
target = "reference"
postprocess = "yolox{logits=true},nms"
fuse-preprocess = true
[model]
source = "head.py:Head"
shape = "1x3x64x96"
preprocess = "range=255"
task = "detect"
[[stage]]
name = "fold"
pipeline = "O1"
[report]
latency = false
"""


def test_steps_behind_the_outputs_stand_behind_all_stages(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("head.py").write_text(HEAD)
    Path("d.toml").write_text(DETECTOR)
    assert main(["compile", "--recipe", "d.toml", "-o", "d.lvc", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [stage["name"] for stage in report["stages"]] == ["as loaded", "fold", "postprocess", "compiled"]
    artefact = container.read(Path("d.lvc"))
    assert [str(value.spec) for value in artefact.inputs] == ["u8[1,64,96,3]"]
    assert {"boxes", "scores", "labels"} <= {value.name for value in artefact.outputs}
    assert artefact.metadata["task"] == "detect"

    assert main(["compile", "--recipe", "d.toml", "--postprocess", "yolox,nms", "-o", "d.lvc", "--json"]) == 0
    assert "yolox,nms" in str(json.loads(capsys.readouterr().out)["pipeline"])


def test_pictures_as_inputs_are_not_scored_on_prepared_ones(run: Run) -> None:
    code, error = run("--set", "fuse-preprocess=true")
    assert (code, error["error"]) == (2, "the recipe checks the top-1")
    assert "--fuse-preprocess" in error["why"]


def test_agreement_needs_no_labels(run: Run) -> None:
    code, report = run("--set", "checks.metric=agreement", "--set", "data.test=calib.npz")
    assert code == 0
    assert report["stages"][0]["score"] == 1.0
    code, error = run("--set", "data.test=calib.npz")
    assert (code, error["error"]) == (2, "the images have no labels")
    assert error["where"] == "the data set 'test'"


def test_code_is_timed_beside_what_it_is_to_be_faster_than(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "_SECONDS", 0.1)
    options = ["--target", "native", "--set", "checks.against=original", "--set", "report.latency=true"]
    code, report = run(*options, "--set", "checks.min-speedup=0.001", "--set", "checks.max-latency=1 s")
    assert code == 0
    loaded, prune, quantise, compiled = report["stages"]
    assert all(line["latency"] > 0 for line in (loaded, prune, quantise, compiled))
    assert prune["share"] > 0
    assert quantise["bytes"] < 0.5 * prune["bytes"]  # as they are stored once it is built
    assert "times as fast as the original compiled by lvc on 1 thread" in report["checks"][-1]["text"]
    code, error = run(*options, "--set", "checks.min-speedup=1e6", "--set", "checks.max-latency=0.01 us")
    assert (code, Path("out.lvc").exists()) == (3, False)
    assert "2 checks of the recipe fail" in error["error"]
    assert "at least 1e+06 wanted" in error["why"]


def test_what_cannot_be_checked_here_is_said_first(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    foreign = ["--target", "cortex-a72", "--set", "checks.max-latency=1 s"]
    code, error = run(*foreign)
    assert (code, error["error"]) == (2, "the recipe checks how fast the code is")
    from lvc.compiler.bench.engines import onnxruntime

    monkeypatch.setattr(type(onnxruntime.ENGINE), "package", "no-such-package")
    code, error = run("--set", "checks.min-speedup=1", "--set", "checks.against=onnxruntime")
    assert (code, error["error"]) == (2, "onnxruntime is not installed")
    code, error = run("--set", "checks.data=tset")
    assert (code, error["error"]) == (2, "there is no data set 'tset'")
    assert "did you mean 'test'" in error["help"]


def test_passes_do_not_see_what_only_checks_name(run: Run) -> None:
    Path("plugin.py").write_text(
        "from dataclasses import dataclass\n"
        "from lvc.compiler.pipeline.passes import Effect, Outcome, Pass, option\n"
        "@dataclass(frozen=True, kw_only=True)\n"
        "class Look(Pass):\n"
        "    '''Look at the data.'''\n"
        "    name = 'look'\n"
        "    effect = Effect.EXACT\n"
        "    data: str = option('', 'a data set')\n"
        "    def apply(self, model, workspace):\n"
        "        return Outcome(notes=['sees ' + ','.join(workspace.data)])\n"
    )
    add = ["--plugin", "plugin.py", "--set"]
    code, report = run(*add, 'stage=[{name="look", pipeline="look"}]')
    assert (code, report["passes"][0]["notes"]) == (0, ["sees calib"])
    code, report = run(*add, 'stage=[{name="look", pipeline="look{data=test}"}]')
    assert (code, report["passes"][0]["notes"]) == (0, ["sees calib,test"])


def test_paths_are_seen_from_the_recipe(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (made / "r.toml").write_text(RECIPE)
    monkeypatch.chdir(tmp_path)
    path = os.path.relpath(made / "r.toml", tmp_path)
    assert main(["compile", "--recipe", path, "-o", "here.lvc", "--checkpoints", str(made / "kept")]) == 0
    assert (tmp_path / "here.lvc").exists()


MISUSE = {
    "-p": (["--recipe", "r.toml", "-p", "O2"], "--recipe and -p are both given"),
    "-O": (["--recipe", "r.toml", "-O1"], "--recipe and -O are both given"),
    "stop": (["--recipe", "r.toml", "--stop-after", "1"], "--recipe and --stop-after are both given"),
    "set": (["net.lvc", "--set", "prune.macs=1"], "--set changes a recipe, and none is given"),
    "no model": (["--recipe", "int8"], "there is no model to compile"),
    "neither": ([], "there is no model to compile"),
    "no data": (["net.lvc", "--recipe", "int8"], "no data set named 'calib'"),
    "data nowhere": (["--recipe", "r.toml", "--set", "data.calib=none.npz"], "there is no data set 'none.npz'"),
    "model nowhere": (["--recipe", "r.toml", "--set", "model.source=none.onnx"], "there is no file 'none.onnx'"),
    "no classifier": (["flat.lvc", "--recipe", "r.toml"], "the model is not a classifier"),
}


@pytest.mark.parametrize("misuse", MISUSE)
def test_wrong_usage_is_one_error(misuse: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if misuse == "no classifier":
        import torch

        from lvc.compiler.load import from_module
        from lvc.compiler.writing import write_model

        write_model(from_module(torch.nn.Conv2d(3, 4, 1), torch.zeros(1, 3, 16, 16)), folder / "flat.lvc")
    arguments, said = MISUSE[misuse]
    assert main(["compile", *arguments]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("name", builtin_names())
def test_each_recipe_that_comes_along_makes_an_artefact(
    name: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quick = json.loads((Path(__file__).parent / "recipe_settings.json").read_text())
    settings = [part for text in ("report.latency=false", "target=reference", *quick[name]) for part in ("--set", text)]
    data = [part for text in quick["data"] for part in ("--data", text)]
    model = ["net.lvc", "--preprocess", "cifar10", "--threads", "1"]
    capsys.readouterr()
    assert main(["compile", *model, "--recipe", name, *data, *settings, "-o", f"{name}.lvc", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert len(report["stages"]) > 2
    before, after = report["stages"][0], report["stages"][-2]
    assert after["bytes"] < before["bytes"] or after["macs"] < before["macs"]
    loaded = lvc.load(f"{name}.lvc")
    with np.load("test.npz") as test:
        scores = np.concatenate([np.asarray(loaded(loaded.prepare(image))) for image in test["x"]])
        right = float((scores.argmax(1) == test["y"]).mean())
    assert right > 0.5


def test_recipes_are_listed_shown_checked_and_begun(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipe", "list"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in builtin_names())
    assert main(["recipe", "show", "int8"]) == 0
    assert 'pipeline = "int8"' in capsys.readouterr().out
    assert main(["recipe", "check", "r.toml"]) == 0
    assert "prune-channels{macs=0.8" in capsys.readouterr().out
    assert main(["recipe", "check", "int8", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["to_be_given"] == ["MODEL", "--data calib=PATH"]

    (folder / "mine.toml").unlink(missing_ok=True)
    assert main(["recipe", "new", "int8", "-o", "mine.toml", "--model", "net.lvc"]) == 0
    capsys.readouterr()
    assert main(["recipe", "check", "mine.toml"]) == 2  # the images are not there yet
    assert "mine.toml, line 1" in capsys.readouterr().err
    assert main(["recipe", "check", "mine.toml", "--set", "data.calib=calib.npz"]) == 0
    assert main(["recipe", "new", "-o", "mine.toml"]) == 2
    assert "exists already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["shwo", "int8"], "there is no action 'shwo'"),
        (["show"], "needs a recipe"),
        (["check", "int9"], "there is no recipe 'int9'"),
        (["new", "-o", "recipe.txt"], "cannot write a recipe as"),
        (["new", "-o", "none/recipe.toml"], "there is no folder"),
        (["check", "r.toml", "--set", "model.source=none.onnx"], "there is no file 'none.onnx'"),
        (["check", "r.toml", "--set", "plugins=[\"none.py\"]"], "there is no file 'none.py'"),
    ],
)  # fmt: skip
def test_wrong_usage_of_the_command_is_one_error(
    arguments: list[str], said: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["recipe", *arguments]) == 2
    assert said in capsys.readouterr().err
