"""Recipes: a model, data sets, the stages of a pipeline, a target and checks in one TOML file.

lvc recipe list                          those that come with lvc
lvc recipe show int8                     the text of one
lvc recipe new int8 -o mine.toml         a file of your own to begin with
lvc recipe check mine.toml               read it and look for all that it names; nothing runs
lvc compile --recipe mine.toml
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from lvc.compiler.errors import UsageError

if TYPE_CHECKING:
    from lvc.compiler.cli.console import Console
    from lvc.compiler.recipe.recipe import Recipe
    from lvc.compiler.recipe.stages import Stage

SUMMARY = "list, show, check and begin recipes"

_ACTIONS = ("list", "show", "check", "new")
_FIRST = "int8"
_PARTS = """\
[model]
source = "{model}"
# weights = "trained.pth"
# shape = "1x3x224x224"
preprocess = "imagenet"
# labels = "imagenet"

[data]
calib = "photos/"
# test = "labelled/"

"""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", metavar="ACTION", choices=_ACTIONS, help=", ".join(_ACTIONS))
    parser.add_argument("name", metavar="RECIPE", nargs="?", help="a file, or the name of one that comes with lvc")
    parser.add_argument("-o", "--output", metavar="FILE", type=Path, help="of 'new': the file (default: NAME.toml)")
    parser.add_argument("--model", metavar="MODEL", default="net.onnx", help="of 'new': the model that it compiles")
    parser.add_argument("--set", metavar="STAGE.OPTION=VALUE", action="append", default=[], help="as of 'lvc compile'")


def execute(options: argparse.Namespace, console: Console) -> int:
    if options.action == "list":
        return _list(console)
    if options.action == "new":
        return _new(options, console)
    if not options.name:
        raise UsageError(f"'lvc recipe {options.action}' needs a recipe", help="'lvc recipe list' shows some")
    return _show(options, console) if options.action == "show" else _check(options, console)


def _list(console: Console) -> int:
    from lvc.compiler.recipe.recipe import Recipe, builtin_names

    recipes = {name: Recipe.find(name) for name in builtin_names()}
    rows = [(name, recipe.summary, _stage_names(recipe)) for name, recipe in recipes.items()]
    console.table(("recipe", "what it makes", "stages"), rows, "lll")
    console.json([_as_json(name, recipe) for name, recipe in recipes.items()])
    return 0


def _show(options: argparse.Namespace, console: Console) -> int:
    from lvc.compiler.recipe.recipe import Recipe

    recipe = Recipe.find(options.name, options.set)
    console.result(recipe.source.text.rstrip())
    console.json({**_as_json(options.name, recipe), "text": recipe.source.text})
    return 0


def _check(options: argparse.Namespace, console: Console) -> int:
    """Look for all that a recipe names; what the command line still has to give is told."""
    from lvc.compiler.cli.pipeline_options import passes_of
    from lvc.compiler.recipe.recipe import Recipe

    recipe = Recipe.find(options.name, options.set)
    stages = recipe.stage_pipelines(kind for file in recipe.plugins for kind in passes_of(Path(file)))
    needed = {name for stage in stages for item in stage.pipeline for name in item.data_sets}
    missing = sorted(needed - set(recipe.data))
    recipe.check_places(missing)
    recipe.check_model()
    console.table(("stage", "passes"), [(stage.name, str(stage.pipeline)) for stage in stages], "ll")
    to_give = ["MODEL"] if not recipe.model.source else []
    to_give += [f"--data {name}=PATH" for name in missing]
    if to_give:
        console.result(f"to be given: {', '.join(to_give)}")
    console.json({**_as_json(options.name, recipe, stages), "to_be_given": to_give})
    return 0


def _new(options: argparse.Namespace, console: Console) -> int:
    """Write a recipe that comes with lvc, with places for a model and data."""
    from lvc.compiler.files import write_atomically
    from lvc.compiler.recipe.recipe import builtin_text

    name = options.name or _FIRST
    text = builtin_text(name)
    output = options.output or Path(f"{name}.toml")
    if output.suffix != ".toml":
        raise UsageError(f"cannot write a recipe as '{output}'", help="end the name in .toml")
    if output.exists():
        raise UsageError(f"'{output}' exists already", help="name another file with -o")
    before, bracket, after = text.partition("[")
    quoted = options.model.replace("\\", "\\\\").replace('"', '\\"')
    write_atomically(output, (before + _PARTS.format(model=quoted) + bracket + after).encode())
    console.result(f"wrote {output}: say what to compile under [model], on which images under [data]; then")
    console.result(f"  lvc recipe check {output}\n  lvc compile --recipe {output} --checkpoints stages/")
    console.json({"output": str(output)})
    return 0


def _stage_names(recipe: Recipe) -> str:
    return ", ".join(stage.name for stage in recipe.stages)


def _as_json(name: str, recipe: Recipe, stages: tuple[Stage, ...] = ()) -> dict[str, object]:
    texts = {stage.name: str(stage.pipeline) for stage in stages} or {s.name: s.pipeline for s in recipe.stages}
    listed = [{"name": stage, "pipeline": text} for stage, text in texts.items()]
    return {"name": name, "summary": recipe.summary, "stages": listed}
