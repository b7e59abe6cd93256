"""Show what a model or an artefact is made of: layers with shapes, parameters, MACs and bytes. Runs no native code."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lvc.compiler.cli.model_options import add_model_options
from lvc.compiler.cli.subject import positive
from lvc.compiler.text import printable, si

if TYPE_CHECKING:
    from lvc.compiler.artefact import Artefact
    from lvc.compiler.cli.console import Console
    from lvc.compiler.files import Content
    from lvc.compiler.ir.signature import Value
    from lvc.compiler.measure.layers import Layer, Totals

_APART = ("layers", "memory", "kernels")  # of metadata, which are shown by themselves
SUMMARY = "show layers, sizes and work of a model or an artefact"


def configure(parser: argparse.ArgumentParser) -> None:
    add_model_options(parser)
    parser.add_argument("--top", metavar="N", type=positive, help="show only the N layers with the most MACs")
    parser.add_argument("--groups", action="store_true", help="show which channels of a model can be removed together")
    help = "show what each kernel of an artefact for a GPU takes of it, and how long it takes by estimate"
    parser.add_argument("--per-op", action="store_true", help=help)


def execute(options: argparse.Namespace, console: Console) -> int:
    from lvc.compiler.container import is_artefact, read

    path = Path(options.model)
    if options.groups:
        _show_groups(options, console)
    elif options.per_op:
        _show_kernels(options, console)
    elif is_artefact(path):
        _inspect_artefact(read(path), path, options, console)
    else:
        _inspect_model(options, console)
    return 0


def _inspect_model(options: argparse.Namespace, console: Console) -> None:
    from lvc.compiler.cli.model_options import load_request
    from lvc.compiler.measure.inspection import layers
    from lvc.compiler.measure.layers import totals
    from lvc.compiler.running.memory import peak_activation_bytes

    model = load_request(options).load()
    found = layers(model)
    summed = totals(found, peak_activation_bytes(model))
    console.result(f"{model.name}, from {printable(model.source)}")
    _show_facts(console, _signature(model.inputs, model.outputs))
    _show_layers(console, found, summed, options.top)
    console.json(
        {
            "model": model.name,
            "source": model.source,
            **_signature_json(model.inputs, model.outputs),
            "preprocessing": model.preprocessing,
            "labels": len(model.labels or ()),
            "notes": model.notes,
            **_layers_json(found, summed, options.top),
        }
    )


def _show_groups(options: argparse.Namespace, console: Console) -> None:
    """Show what the analysis `channel-groups` finds in a model."""
    from lvc.compiler.cli.model_options import load_request
    from lvc.compiler.container import is_artefact
    from lvc.compiler.errors import UsageError
    from lvc.compiler.pipeline.analysis import find_analysis

    if is_artefact(Path(options.model)):
        raise UsageError("an artefact has no groups of channels", help="give the model that it was made from")
    model = load_request(options).load()
    found = find_analysis("channel-groups")(model)
    console.result(f"{model.name}, from {printable(model.source)}\n")
    for table in found.tables:
        console.table(table.headers, table.rows, "lrrrll")
    for note in found.notes:
        console.result(note)
    console.json({"model": model.name, "source": model.source, "groups": found.data})


def _show_kernels(options: argparse.Namespace, console: Console) -> None:
    """Show what the kernels of an artefact for a GPU take."""
    from lvc.compiler.container import read
    from lvc.compiler.errors import UsageError
    from lvc.compiler.measure.kernels import kernels_of

    path = Path(options.model)
    if path.suffix != ".lvc":
        raise UsageError("--per-op is for what was built", why=f"'{printable(options.model)}' is no artefact")
    artefact = read(path)
    found = kernels_of(artefact)
    if found is None:
        why = f"it is for {artefact.target}, and files for GPUs have one"
        raise UsageError(
            "the artefact has no account of its kernels", why=why, help="'lvc bench --per-op' times kernels"
        )
    console.result(f"{artefact.name}, {path}, for {artefact.target}\n")
    console.result(found.describe())
    console.json({"artefact": artefact.name, "target": artefact.target, **found.to_json()})


def _inspect_artefact(artefact: Artefact, path: Path, options: argparse.Namespace, console: Console) -> None:
    from lvc.compiler.measure.artefact import artefact_facts, artefact_layers
    from lvc.compiler.measure.layers import totals

    found = artefact_layers(artefact)
    facts = artefact_facts(artefact)
    summed = totals(found)
    console.result(f"{artefact.name}, {path} ({si(path.stat().st_size, 'B')})")
    _show_facts(console, [*facts, *_signature(artefact.inputs, artefact.outputs)])
    files = {name: {"bytes": len(content), "sha256": digest(content)} for name, content in artefact.files.items()}
    rows = [(name, si(len(content), "B"), files[name]["sha256"]) for name, content in artefact.files.items()]
    console.result("")
    console.table(("file", "bytes", "sha256"), rows, "lrl")
    if found:
        _show_layers(console, found, summed, options.top)
    console.json(
        {
            "artefact": artefact.name,
            "backend": artefact.backend,
            "target": artefact.target,
            **_signature_json(artefact.inputs, artefact.outputs),
            **(
                {"variants": [_signature_json(v.inputs, v.outputs) for v in artefact.variants]}
                if artefact.variants
                else {}
            ),
            "files": files,
            **_memory_json(artefact),
            "metadata": {name: value for name, value in artefact.metadata.items() if name not in _APART},
            **(_layers_json(found, summed, options.top) if found else {}),
        }
    )


def _memory_json(artefact: Artefact) -> dict[str, Any]:
    from lvc.compiler.measure.memory import memory_of

    memory = memory_of(artefact)
    if memory is None:
        return {}
    summed = {"activations": memory.activations(), "overhead": round(memory.overhead(), 3), "peak": memory.peak()}
    return {"memory": {**memory.to_json(), **summed}}


def digest(content: Content) -> str:
    import hashlib

    return hashlib.sha256(content).hexdigest()


def _signature(inputs: tuple[Value, ...], outputs: tuple[Value, ...]) -> list[tuple[str, str]]:
    return [*(("input", str(value)) for value in inputs), *(("output", str(value)) for value in outputs)]


def _signature_json(inputs: tuple[Value, ...], outputs: tuple[Value, ...]) -> dict[str, Any]:
    return {
        "inputs": [{"name": value.name, "spec": str(value.spec)} for value in inputs],
        "outputs": [{"name": value.name, "spec": str(value.spec)} for value in outputs],
    }


def _show_facts(console: Console, facts: list[tuple[str, str]]) -> None:
    width = max(len(name) for name, _ in facts)
    for name, text in facts:
        console.result(f"  {name:<{width}}  {printable(text)}")


def _show_layers(console: Console, found: list[Layer], summed: Totals, top: int | None) -> None:
    from lvc.compiler.measure.layers import heaviest

    shown = heaviest(found, top) if top else found
    grouped = any(layer.group for layer in found)
    headers = ["layer", "operator", "output", "parameters", "MACs", "weights", "output bytes"]
    rows = [_row(layer, grouped) for layer in shown]
    sums = [f"{summed.layers} layers", "", "", si(summed.parameters), si(summed.macs), si(summed.weight_bytes, "B"), ""]
    console.result("")
    console.table([*headers, *(["group"] if grouped else []), "node"], [*rows, sums + [""] * (1 + grouped)], "lllrrrrl")
    if summed.peak_activation_bytes is not None:
        console.result(f"peak memory of intermediate results, unfused: {si(summed.peak_activation_bytes, 'B')}")


def _row(layer: Layer, grouped: bool) -> list[str]:
    return [
        layer.title,
        layer.op,
        layer.output,
        si(layer.parameters) if layer.parameters else "",
        si(layer.macs) if layer.macs else "",
        si(layer.weight_bytes, "B") if layer.weight_bytes else "",
        si(layer.activation_bytes, "B"),
        *([layer.group] if grouped else []),
        layer.node,
    ]


def _layers_json(found: list[Layer], summed: Totals, top: int | None) -> dict[str, Any]:
    from dataclasses import asdict

    from lvc.compiler.measure.layers import heaviest

    return {
        "layers": [layer.to_json() for layer in (heaviest(found, top) if top else found)],
        "totals": asdict(summed),
    }
