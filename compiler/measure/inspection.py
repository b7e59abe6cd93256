"""What a model is made of: every operator with its output, stored elements, work and memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch.fx import Node

from lvc.compiler.artefact import Artefact
from lvc.compiler.errors import CompileError
from lvc.compiler.ir.graph import behind_widening, calls, is_widening, op_name, origin, spec
from lvc.compiler.ir.model import Model
from lvc.compiler.measure.counts import macs
from lvc.compiler.measure.memory import Memory, memory_of
from lvc.compiler.text import si


@dataclass(frozen=True)
class Layer:
    """One operator call. ``output`` is its spec as text; a tensor that several calls read counts for the first."""

    node: str
    op: str
    origin: str
    output: str
    parameters: int
    macs: int
    weight_bytes: int
    activation_bytes: int
    group: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Layer:
        """Read what `to_json` made; `ValueError` for anything else."""
        fields = {name: data.get(name, "") for name in cls.__dataclass_fields__}
        counts = ("parameters", "macs", "weight_bytes", "activation_bytes")
        for name, value in fields.items():
            if type(value) is not (int if name in counts else str):
                raise ValueError(f"'{name}' of a layer is {type(value).__name__}")
        return cls(**fields)


@dataclass(frozen=True)
class Totals:
    """Sums over all layers, and the most bytes of intermediate results that are alive at once."""

    layers: int
    parameters: int
    macs: int
    weight_bytes: int
    peak_activation_bytes: int | None = None


def layers(model: Model) -> list[Layer]:
    """Return every operator call of a model, in order; reading a shorter type is a part of what reads it."""
    seen: set[Node] = set()
    return [_layer(node, seen) for node in calls(model.module.graph) if not is_widening(node)]


def totals(found: Sequence[Layer], peak_activation_bytes: int | None = None) -> Totals:
    return Totals(
        layers=len(found),
        parameters=sum(layer.parameters for layer in found),
        macs=sum(layer.macs for layer in found),
        weight_bytes=sum(layer.weight_bytes for layer in found),
        peak_activation_bytes=peak_activation_bytes,
    )


def peak_activation_bytes(model: Model) -> int:
    """Return the most bytes of inputs and results alive at once when the graph runs in order, nothing fused.

    A result lives from its call to its last reader; inputs live as long as they are read, outputs to the end.
    """
    kinds = ("placeholder", "call_function")
    order = [node for node in model.module.graph.nodes if node.op in kinds and not is_widening(node)]
    last_reader = {operand: place for place, node in enumerate(order) for operand in _operands(node)}
    last_reader |= dict.fromkeys(model.output_nodes, len(order))
    alive = peak = 0
    for place, node in enumerate(order):
        alive += spec(node).bytes
        peak = max(peak, alive)
        ended = {n for n in (node, *_operands(node)) if n.op != "get_attr" and last_reader.get(n, place) == place}
        alive -= sum(spec(n).bytes for n in ended)
    return peak


def heaviest(found: Iterable[Layer], most: int) -> list[Layer]:
    """Return the layers with the most MACs, the heaviest first."""
    return sorted(found, key=lambda layer: -layer.macs)[:most]


def _operands(node: Node) -> list[Node]:
    return [behind_widening(operand) for operand in node.all_input_nodes]


def _layer(node: Node, seen: set[Node]) -> Layer:
    stored = [n for n in _operands(node) if n.op == "get_attr" and n not in seen]
    seen.update(stored)
    return Layer(
        node=node.name,
        op=op_name(node),
        origin=origin(node),
        output=str(spec(node)),
        parameters=sum(spec(n).elements for n in stored),
        macs=macs(node),
        weight_bytes=sum(spec(n).bytes for n in stored),
        activation_bytes=spec(node).bytes,
        group=str(node.meta.get("group", "")),
    )


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
    facts += [(name, str(metadata[name])) for name in ("pipeline", "preprocessing") if metadata.get(name)]
    if isinstance(labels, list):
        facts.append(("labels", f"{len(labels)} classes"))
    memory = memory_of(artefact)
    if memory:
        facts += memory_facts(memory)
    if isinstance(report, dict) and isinstance(report.get("difference"), float):
        facts.append(("checked", f"largest difference to PyTorch {report['difference']:.1e} relative"))
    if isinstance(report, dict) and isinstance(report.get("notes"), list | tuple):
        facts += [("note", str(note)) for note in report["notes"]]
    return facts


def memory_facts(memory: Memory) -> Iterator[tuple[str, str]]:
    """An account of memory as names and texts."""
    made = f", and {si(memory.prepared, 'B')} prepared from them on loading" if memory.prepared else ""
    yield "weights", si(memory.weights, "B") + made
    buffers = f"{si(memory.workspace, 'B')} of results and {si(memory.scratch, 'B')} of kernels' buffers a thread"
    live = f"{memory.overhead():.2f} times the {si(memory.live, 'B')} that are alive at once"
    yield "activations", f"{si(memory.activations(), 'B')} on one thread: {buffers}; {live}"
    yield "peak memory", f"{si(memory.peak(), 'B')} on one thread: weights, activations, inputs and outputs of one call"
