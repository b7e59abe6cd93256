"""The value that everything works on: a graph, its signature, and where it came from."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch.fx import GraphModule, Node

from lvc.compiler.ir.counts import Count, to_plain
from lvc.compiler.ir.graph import spec
from lvc.compiler.ir.signature import Value, check_inputs
from lvc.compiler.ir.spec import TensorSpec

PROPERTY = "lvc."
"""What the keys of `Model.usage` begin with in the properties of an ONNX file; the values are JSON."""


@dataclass(frozen=True)
class Reference:
    """What the source of a model computes by itself: ``run`` takes arrays of the model's signature.

    ``name`` says who computes there, as in "differs from eager PyTorch". A source may share its tensors with the model
    that was loaded from it, so ``run`` holds only until that is trained or rewritten. ``run`` may raise anything.
    ``bound`` is how far its arithmetic may be from single precision, relative. ``first_difference`` names the first
    node of the source, as "node NAME (OPERATOR)", that computes something else on given inputs; empty if none is found.
    """

    name: str
    run: Callable[[Sequence[np.ndarray]], tuple[np.ndarray, ...]]
    bound: float = 1e-4
    is_slow: bool = False
    first_difference: Callable[[Sequence[np.ndarray]], str] | None = None


@dataclass
class Model:
    """A trained model in lvc's dialect.

    ``module`` is a `torch.fx.GraphModule` over the operators of `lvc.compiler.ir.dialect`: its placeholders are the
    inputs, its output is a tuple of tensors, and it can be run and trained in PyTorch at any time. ``output_names``
    names the parts of that tuple, and ``counts`` says which of them are counted by which others. ``source`` says what
    was loaded. ``preprocessing`` is the text of an image preprocessing and ``labels`` the names of the classes, where
    they are known. ``task`` is what its user says that it is for, see `lvc.compiler.ir.task`. ``reference`` is there to
    judge how the model was loaded: it is neither stored nor copied. ``records`` is the tuning database by whose records
    a backend may make its kernels, empty for the backend's own alone, None for none; it is not stored.
    """

    module: GraphModule
    name: str
    output_names: tuple[str, ...]
    source: str = ""
    preprocessing: str | None = None
    labels: tuple[str, ...] | None = None
    task: str | None = None
    counts: dict[str, Count] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    reference: Reference | None = field(default=None, compare=False, repr=False)
    records: str | None = field(default=None, compare=False, repr=False)

    @property
    def inputs(self) -> tuple[Value, ...]:
        return tuple(Value(str(n.target), spec(n)) for n in self.module.graph.nodes if n.op == "placeholder")

    @property
    def outputs(self) -> tuple[Value, ...]:
        return tuple(Value(name, spec(n)) for name, n in zip(self.output_names, self.output_nodes, strict=True))

    @property
    def output_nodes(self) -> tuple[Node, ...]:
        return tuple(self.module.graph.output_node().args[0])  # type: ignore[arg-type]

    @property
    def parameters(self) -> int:
        """Number of stored elements that the graph reads, floating-point or not."""
        return sum(spec(n).elements for n in self.module.graph.nodes if n.op == "get_attr")

    @property
    def bytes(self) -> int:
        """Bytes of the stored tensors that the graph reads."""
        return sum(spec(n).bytes for n in self.module.graph.nodes if n.op == "get_attr")

    @property
    def usage(self) -> dict[str, Any]:
        """What whoever runs the model must know, as plain data: ``preprocessing``, ``labels``, ``task`` and
        ``counts``, where there are any."""
        known = {
            "preprocessing": self.preprocessing,
            "labels": list(self.labels or ()),
            "task": self.task,
            "counts": to_plain(self.counts),
        }
        return {key: value for key, value in known.items() if value}

    def copy(self, *, share_tensors: bool = False) -> Model:
        """A copy that shares nothing with this model: rewriting one leaves the other alone.

        With ``share_tensors`` both hold the same tensors until `graph.store` gives one of them another: cheap, for
        models that nobody trains.
        """
        twin = copy.copy(self)
        stored = itertools.chain(self.module.parameters(), self.module.buffers()) if share_tensors else ()
        twin.module = copy.deepcopy(self.module, {id(tensor): tensor for tensor in stored})
        for ours, theirs in zip(self.module.graph.nodes, twin.module.graph.nodes, strict=True):
            theirs.meta = copy.copy(ours.meta)
        twin.notes, twin.counts = list(self.notes), dict(self.counts)
        twin.reference = None
        return twin

    def with_batch(self, images: int) -> Model:
        """A model for so many images at once, which shares this one's tensors as `copy` can: sizes that loading has
        baked in for its own batch are those of the new one, and image after image gives what it gave.

        `BatchError` names the call where images mix, such as statistics over a batch, or where a value is one for all.
        """
        from lvc.compiler.ir.batching.rewrite import with_batch

        return with_batch(self, images)

    def __call__(self, *inputs: np.ndarray | torch.Tensor) -> tuple[np.ndarray, ...]:
        """Run the graph in PyTorch on arrays of the signature's shapes; the oracle for every backend.

        Outputs that are counted come at their whole length: `lvc.compiler.ir.counts.cut` makes of them what a caller
        gets.
        """
        tensors = [
            torch.as_tensor(np.require(x, requirements=["C", "W"]) if isinstance(x, np.ndarray) else x) for x in inputs
        ]
        check_inputs(self.inputs, [TensorSpec.of(x) for x in tensors])
        with torch.inference_mode():
            outputs = self.module(*tensors)
        return tuple(np.asarray(out.detach().contiguous().numpy()) for out in outputs)

    def to_text(self) -> str:
        """Print the graph, one node a line; the form of dumps and golden tests, see `lvc.compiler.ir.graph_text`."""
        from lvc.compiler.ir.graph_text import format_model

        return format_model(self)
