"""List the passes with their options and effects, and the presets. `lvc passes NAME` shows one in full."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lvc.compiler.cli.console import Console
    from lvc.compiler.pipeline.passes import Pass

SUMMARY = "list passes and presets"


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", nargs="?", help="a pass or a preset to show in full")


def execute(options: argparse.Namespace, console: Console) -> int:
    from lvc.compiler.pipeline import catalogue
    from lvc.compiler.pipeline.pipeline import Pipeline

    if options.name:
        passes = Pipeline.parse(options.name).passes
        console.result("\n\n".join(_in_full(type(item)) for item in passes))
        console.json([_as_json(type(item)) for item in passes])
        return 0
    kinds = [kind for kind in map(catalogue.PASSES.find, catalogue.PASSES.names()) if kind]
    console.table(("pass", "effect", "summary"), [(k.name, k.effect.name.lower(), k.summary()) for k in kinds], "lll")
    console.result("")
    presets = {name: str(Pipeline.parse(name)) for name in catalogue.PRESETS}
    console.table(("preset", "pipeline"), list(presets.items()), "ll")
    console.json({"passes": [_as_json(kind) for kind in kinds], "presets": presets})
    return 0


def _in_full(kind: type[Pass]) -> str:
    import inspect

    lines = [f"{kind.name} ({kind.effect.name.lower()})", "", inspect.cleandoc(kind.__doc__ or "")]
    if kind.options():
        lines += ["", "options:"]
        lines += [f"  {f.name}={f.default}  {f.metadata.get('help', '')}  ({_type(f.type)})" for f in kind.options()]
    return "\n".join(lines)


def _as_json(kind: type[Pass]) -> dict[str, Any]:
    return {
        "name": kind.name,
        "effect": kind.effect.name.lower(),
        "summary": kind.summary(),
        "options": [
            {"name": f.name, "type": _type(f.type), "default": f.default, "help": f.metadata.get("help", "")}
            for f in kind.options()
        ],
    }


def _type(kind: object) -> str:
    return kind if isinstance(kind, str) else getattr(kind, "__name__", str(kind))
