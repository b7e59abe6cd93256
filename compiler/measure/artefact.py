"""What an artefact says of itself: its layers, origin and memory. Loads no code, and imports nothing heavy."""

from __future__ import annotations

from collections.abc import Iterator

from lvc.compiler.artefact import Artefact
from lvc.compiler.errors import CompileError
from lvc.compiler.measure.layers import Layer
from lvc.compiler.measure.memory import Memory, memory_of
from lvc.compiler.serving import Batches
from lvc.compiler.text import si


def artefact_layers(artefact: Artefact) -> list[Layer]:
    """Return the layers that an artefact says it was made of; none if it does not say."""
    stored = artefact.metadata.get("layers")
    if not isinstance(stored, list):
        return []
    try:
        return [Layer.from_json(item) for item in stored]
    except (AttributeError, ValueError) as error:
        raise CompileError("the artefact's list of layers is damaged", why=str(error)) from error


def artefact_facts(artefact: Artefact) -> list[tuple[str, str]]:
    """Return what an artefact says of itself, as names and texts; loads no code."""
    metadata = artefact.metadata
    labels, source, report = (metadata.get(key) for key in ("labels", "source", "report"))
    facts = [("target", f"{artefact.target} ({artefact.backend} backend)")]
    if isinstance(source, dict):
        source = source.get("source")
    facts += [(name, str(value)) for name, value in (("source", source),) if value]
    facts += [(name, str(metadata[name])) for name in ("pipeline", "preprocessing", "task") if metadata.get(name)]
    if isinstance(labels, list):
        facts.append(("labels", f"{len(labels)} classes"))
    memory = memory_of(artefact)
    if memory:
        facts += memory_facts(memory)
    facts += variant_facts(artefact)
    if isinstance(report, dict) and isinstance(report.get("difference"), float):
        facts.append(("checked", f"largest difference to PyTorch {report['difference']:.1e} relative"))
    if isinstance(report, dict) and isinstance(report.get("notes"), list | tuple):
        facts += [("note", str(note)) for note in report["notes"]]
    return facts


def variant_facts(artefact: Artefact) -> Iterator[tuple[str, str]]:
    """For which shapes an artefact was built where these are several, and how it serves numbers of images between."""
    if not artefact.variants:
        return
    told = artefact.metadata.get("variants")
    for place, signature in enumerate(artefact.signatures):
        text = f"{signature.shapes()}: {', '.join(str(value.spec) for value in signature.outputs)}"
        known = told[place] if isinstance(told, list) and place < len(told) else None
        if isinstance(known, dict) and all(type(known.get(key)) is int for key in ("weights", "alone")):
            apart = f", {si(known['alone'], 'B')} of them for it alone" if known["alone"] else ", shared"
            text += f"; reads {si(known['weights'], 'B')} of weights{apart}"
        yield "variant", text
    for batches in Batches.of(artefact.signatures):
        *few, last = map(str, batches.sizes)
        yield (
            "any batch",
            f"other numbers of images than {', '.join(few)} and {last} run in pieces, the last filled with zeros",
        )


def memory_facts(memory: Memory) -> Iterator[tuple[str, str]]:
    """An account of memory as names and texts."""
    made = f", and {si(memory.prepared, 'B')} prepared from them on loading" if memory.prepared else ""
    yield "weights", si(memory.weights, "B") + made
    buffers = f"{si(memory.workspace, 'B')} of results and {si(memory.scratch, 'B')} of kernels' buffers a thread"
    live = f"{memory.overhead():.2f} times the {si(memory.live, 'B')} that are alive at once"
    yield "activations", f"{si(memory.activations(), 'B')} on one thread: {buffers}; {live}"
    yield "peak memory", f"{si(memory.peak(), 'B')} on one thread: weights, activations, inputs and outputs of one call"
