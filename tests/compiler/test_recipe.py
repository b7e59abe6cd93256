"""A recipe is read key by key; whatever is wrong with it is one error that says where."""

from __future__ import annotations

from pathlib import Path

import pytest

from lvc.compiler.errors import UsageError
from lvc.compiler.recipe.recipe import Recipe, builtin_names

WHOLE = """\
summary = "smaller"
target = "x86-64-v3"
precision = "bf16"
plugins = ["mine.py"]
checkpoints = "stages"
output = "small.lvc"

[model]
source = "nets.py:make"
weights = "trained.pth"
shape = {image = "1x3x32x32"}
arguments = {classes = 10}
preprocess = "cifar10"
labels = "cifar10"
seed = 3

[data]
calib = "photos"
test = {path = "test.npz", preprocess = "range=1", limit = 100}
own = "package.module:images"

[[stage]]
name = "prune"
pipeline = "prune-channels{macs=0.5},O1"

[[stage]]
name = "quantise"
pipeline = "int8-fast"

[checks]
data = "test"
metric = "agreement"
max-drop = 0.5
max-loss = "20dB"
require = "int8=0.9"
max-bytes = "1.5 MB"
max-latency = "2.5 ms"
min-speedup = 2
against = "onnxruntime"
threads = 2

[report]
latency = false
"""


def read(text: str, *given: str) -> Recipe:
    return Recipe.parse("r.toml", text, Path("folder"), given)


def test_a_recipe_says_all_that_a_compilation_needs() -> None:
    recipe = read(WHOLE)
    assert (recipe.summary, recipe.target, recipe.precision) == ("smaller", "x86-64-v3", "bf16")
    assert (recipe.plugins, recipe.checkpoints, recipe.output) == (
        ("folder/mine.py",), "folder/stages", "folder/small.lvc"
    )  # fmt: skip
    model = recipe.model
    assert (model.source, model.weights) == ("folder/nets.py:make", "folder/trained.pth")
    assert (model.shapes, model.arguments) == ({"image": "1x3x32x32"}, {"classes": 10})
    assert (model.preprocess, model.labels, model.seed) == ("cifar10", "cifar10", 3)
    assert [part.path for part in recipe.data.values()] == ["folder/photos", "folder/test.npz", "package.module:images"]
    assert (recipe.data["test"].preprocess, recipe.data["test"].limit) == ("range=1", 100)
    limits = recipe.limits
    assert (limits.data, limits.metric, limits.max_drop) == ("test", "agreement", 0.5)
    assert (limits.max_bytes, limits.max_latency) == (1.5e6, 2.5e-3)
    assert (limits.min_speedup, limits.against, limits.threads) == (2.0, "onnxruntime", 2)
    assert (limits.max_loss, limits.require) == ("20dB", "int8=0.9")
    assert not recipe.times_stages
    stages = recipe.stage_pipelines()
    assert [stage.name for stage in stages] == ["prune", "quantise"]
    assert str(stages[0].pipeline).startswith("prune-channels{macs=0.5},eliminate-dead")


def test_a_pipeline_may_be_one_text() -> None:
    (stage,) = read('pipeline = "fold-batch-norm"').stage_pipelines()
    assert (stage.name, str(stage.pipeline)) == ("pipeline", "fold-batch-norm")


def test_every_recipe_that_comes_along_can_be_read() -> None:
    names = builtin_names()
    assert {"int8", "prune-2x", "prune-factor-int8", "smallest"} <= set(names)
    for name in names:
        recipe = Recipe.find(name)
        assert recipe.summary
        assert recipe.stage_pipelines()


PIPELINE = 'pipeline = "O1"\n'
FAULTS = {
    "no toml": ('pipeline = "O1', "not sound TOML", "end of document"),
    "no toml in line 2": ('a = 1\npipeline = O1\n', "not sound TOML", "line 2"),
    "unknown key": (PIPELINE + 'targte = "native"', "there is no key 'targte'", "line 2"),
    "unknown table": (PIPELINE + "[chekcs]\nmax-drop = 1", "there is no key 'chekcs'", "line 2"),
    "unknown check": (PIPELINE + '[checks]\ndata = "a"\nmax-dorp = 1', "no key 'max-dorp' in [checks]", "line 4"),
    "unknown in data": (PIPELINE + '[data]\na = {path = "x", limt = 1}', "no key 'limt' in [data.a]", "line 3"),
    "wrong type": (PIPELINE + "[model]\nsource = 3", "'source' must be a text", "line 3"),
    "bool for number": (PIPELINE + "[checks]\nmax-drop = true", "'max-drop' must be a number", "line 3"),
    "negative": (PIPELINE + '[checks]\ndata = "a"\nmax-drop = -1', "'max-drop' must be a number from 0", "line 4"),
    "not a number": (PIPELINE + "[checks]\nmax-drop = nan", "'max-drop' must be a number from 0", "line 3"),
    "drop of what": (PIPELINE + "[checks]\nmax-drop = 1", "'max-drop' needs a data set", "line 3"),
    "faster than what": (PIPELINE + "[checks]\nmin-speedup = 2", "needs something to be faster than", "line 3"),
    "unknown engine": (PIPELINE + '[checks]\nagainst = "onnxruntine"', "'against' cannot be 'onnxruntine'", "line 3"),
    "unknown metric": (PIPELINE + '[checks]\nmetric = "top1"', "'metric' cannot be 'top1'", "line 3"),
    "no unit": (PIPELINE + '[checks]\nmax-latency = "2"', "'max-latency' cannot be '2'", "line 3"),
    "no bytes": (PIPELINE + '[checks]\nmax-bytes = "2 ms"', "'max-bytes' cannot be '2 ms'", "line 3"),
    "no loss": (PIPELINE + '[checks]\nmax-loss = "much"', "neither decibels nor percent", "line 3"),
    "no target": ('target = "x87"\n' + PIPELINE, "there is no target 'x87'", "line 1"),
    "no step": (PIPELINE + 'postprocess = "yolo"', "no step 'yolo'", "line 2"),
    "no flag": (PIPELINE + 'fuse-preprocess = "yes"', "'fuse-preprocess' must be true or false", "line 2"),
    "no task": (PIPELINE + '[model]\ntask = "detects"', "'task' cannot be 'detects'", "line 3"),
    "no preprocessing": (PIPELINE + '[model]\npreprocess = "what"', "what", "line 3"),
    "no pipeline": ('summary = "nothing"', "the recipe has no pipeline", "r.toml"),
    "two pipelines": (PIPELINE + '[[stage]]\nname = "a"\npipeline = ""', "are both given", "line 1"),
    "nameless stage": ('[[stage]]\npipeline = "O1"', "'name' is missing in [stage]", "line 1"),
    "no stage's name": ('[[stage]]\nname = "a b"\npipeline = "O1"', "cannot be called 'a b'", "line 2"),
    "name of a table": ('[[stage]]\nname = "data"\npipeline = "O1"', "cannot be called 'data'", "line 2"),
    "two of a name": (
        '[[stage]]\nname = "a"\npipeline = "O1"\n[[stage]]\nname = "a"\npipeline = "O1"', "two stages", "line 5",
    ),
    "one stage": ('[stage]\nname = "a"', "'stage' must be tables", "line 1"),
    "negative limit": (PIPELINE + '[data]\na = {path = "x", limit = 0}', "'limit' must be an integer from 1", "line 3"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_mistake_is_one_error_with_its_line(fault: str) -> None:
    text, said, where = FAULTS[fault]
    with pytest.raises(UsageError) as found:
        read(text)
    assert said in found.value.what
    assert where in found.value.where


def test_an_unknown_key_has_a_suggestion() -> None:
    with pytest.raises(UsageError) as found:
        read(PIPELINE + '[checks]\ndata = "a"\nmax-dorp = 1')
    assert "did you mean 'max-drop'?" in found.value.help


def test_a_mistake_in_a_pipeline_has_a_caret_and_its_stage() -> None:
    recipe = read('[[stage]]\nname = "a"\npipeline = "O1"\n\n[[stage]]\nname = "b"\npipeline = "O1,prune-chanels"\n')
    with pytest.raises(UsageError, match="no pass 'prune-chanels'") as found:
        recipe.stage_pipelines()
    assert found.value.where == "r.toml, line 7, the pipeline of 'b'"
    assert "^^^^" in found.value.why
    assert "prune-channels" in found.value.help


def test_the_command_line_overrides_options_and_keys() -> None:
    recipe = read(
        WHOLE,
        "prune.macs=0.25",
        "quantise.calibrate.images=8",
        "checks.max-drop=2",
        "data.calib=other",
        "model.shape=1x3x8x8",
        "target=native",
    )
    prune, quantise = (str(stage.pipeline) for stage in recipe.stage_pipelines())
    assert "prune-channels{macs=0.25}" in prune
    assert "calibrate{images=8}" in quantise
    assert "correct-bias{images=64}" in quantise
    assert (recipe.limits.max_drop, recipe.target) == (2.0, "native")
    assert recipe.data["calib"].path == "other"  # seen from the working folder, as the command line is
    assert recipe.model.shapes == {"": "1x3x8x8"}


SETTINGS = {
    "prune.macs": "is not STAGE.OPTION=VALUE",
    "pruen.macs=1": "there is no stage 'pruen'",
    "prune.mac=1": "no pass of the stage 'prune' has an option 'mac'",
    "prune.macs=much": "prune-channels: option 'macs' must be a number, not 'much'",
    "prune.macs=7": "prune-channels: macs must",
    "quantise.images=8": "several passes of the stage 'quantise' have an option 'images'",
    "quantise.calibrat.images=8": "the stage 'quantise' has no pass 'calibrat'",
    "checks.max-dorp=1": "there is no key 'max-dorp' in [checks]",
    "checks.max-drop=low": "'max-drop' must be a number",
    "target.cpu=1": "there is no stage 'target'",
    "a.b.c.d=1": "there is no stage 'a'",
}


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_wrong_override_is_one_error(setting: str) -> None:
    with pytest.raises(UsageError) as found:
        read(WHOLE, setting).stage_pipelines()
    assert SETTINGS[setting] in found.value.what
    assert "--set" in found.value.where or "--set" in found.value.what


def test_files_that_are_no_recipes_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no recipe 'int9'") as found:
        Recipe.find("int9")
    assert "did you mean 'int8'" in found.value.help
    with pytest.raises(UsageError, match="there is no file"):
        Recipe.find(str(tmp_path / "none.toml"))
    (tmp_path / "folder.toml").mkdir()
    with pytest.raises(UsageError, match="cannot read"):
        Recipe.find(str(tmp_path / "folder.toml"))
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="is no recipe"):
        Recipe.find(str(tmp_path / "bytes.toml"))
    (tmp_path / "large.toml").write_bytes(b"#" * (2 << 20))
    with pytest.raises(UsageError, match="is no recipe"):
        Recipe.find(str(tmp_path / "large.toml"))
    (tmp_path / "deep.toml").write_text("a = " + "[" * 100_000)
    with pytest.raises(UsageError, match="not sound TOML"):
        Recipe.find(str(tmp_path / "deep.toml"))
