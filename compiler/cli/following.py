"""What a process does that follows another one: its share of the passes that are divided."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Collection
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lvc.compiler.cli.console import Console
    from lvc.compiler.cli.recipe_options import Plan
    from lvc.compiler.ir.model import Model
    from lvc.compiler.pipeline.passes import Pass
    from lvc.compiler.pipeline.workspace import Workspace


def follow_pipeline(options: argparse.Namespace, console: Console, plan: Plan | None = None) -> int:
    """Follow the process that runs the passes of `opt` or `compile`; return the exit code."""
    from lvc.compiler.cli.model_options import load_variants
    from lvc.compiler.cli.pipeline_options import describe_data, make_workspace, plugin_passes
    from lvc.compiler.measure.device import ThisMachine

    options.checkpoints = None  # the leading process keeps what is to be kept
    _, model, _ = load_variants(options)
    describe_data(options, model)
    data = plan.for_passes(plan.sets(model)) if plan else None
    kinds = plan.kinds if plan else plugin_passes(options)
    return follow(model, make_workspace(options, model, console, ThisMachine(), data), kinds)


def follow(model: Model, workspace: Workspace, kinds: Collection[type[Pass]] = ()) -> int:
    """Run passes, which may be of other ``kinds`` as well, whenever the leading process comes to a divided one."""
    from lvc.compiler.pipeline.pipeline import Pipeline

    own = dataclasses.replace(workspace, original=model)
    workspace.ranks.follow(lambda text, given: Pipeline.parse(text, kinds).passes[0].apply(given, own))
    return 0
