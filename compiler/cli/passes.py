"""List the passes, the presets and the steps of --postprocess. `lvc passes NAME` shows one with its options."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lvc.compiler.cli.console import Console
    from lvc.compiler.pipeline.registry import Component

SUMMARY = "list passes, presets and steps of --postprocess"


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "name", metavar="NAME", nargs="?", help="a pass, a preset or a step of --postprocess to show in full"
    )


def execute(options: argparse.Namespace, console: Console) -> int:
    from lvc.compiler.pipeline import catalogue
    from lvc.compiler.pipeline.pipeline import Pipeline

    if options.name:
        step = catalogue.STEPS.find(options.name)
        found = [step] if step else [type(item) for item in Pipeline.parse(options.name)]
        console.result("\n\n".join(map(_in_full, found)))
        console.json([_as_json(kind) for kind in found])
        return 0
    kinds = [kind for kind in map(catalogue.PASSES.find, catalogue.PASSES.names()) if kind]
    console.table(("pass", "effect", "summary"), [(k.name, k.effect.name.lower(), k.summary()) for k in kinds], "lll")
    console.result("")
    presets = {name: str(Pipeline.parse(name)) for name in catalogue.PRESETS}
    console.table(("preset", "pipeline"), list(presets.items()), "ll")
    steps = [catalogue.STEPS.get(name) for name in catalogue.STEPS.names()]
    console.result("")
    console.table(("step of --postprocess", "summary"), [(kind.name, kind.summary()) for kind in steps], "ll")
    console.json(
        {"passes": [_as_json(kind) for kind in kinds], "presets": presets, "steps": [_as_json(kind) for kind in steps]}
    )
    return 0


def _in_full(kind: type[Component]) -> str:
    import inspect

    effect = getattr(kind, "effect", None)
    lines = [f"{kind.name} ({effect.name.lower()})" if effect else kind.name, "", inspect.cleandoc(kind.__doc__ or "")]
    if kind.options():
        lines += ["", "options:"]
        lines += [f"  {f.name}={f.default}  {f.metadata.get('help', '')}  ({_type(f.type)})" for f in kind.options()]
    return "\n".join(lines)


def _as_json(kind: type[Component]) -> dict[str, Any]:
    return {
        "name": kind.name,
        **({"effect": effect.name.lower()} if (effect := getattr(kind, "effect", None)) else {}),
        "summary": kind.summary(),
        "options": [
            {"name": f.name, "type": _type(f.type), "default": f.default, "help": f.metadata.get("help", "")}
            for f in kind.options()
        ],
    }


def _type(kind: object) -> str:
    return kind if isinstance(kind, str) else getattr(kind, "__name__", str(kind))
