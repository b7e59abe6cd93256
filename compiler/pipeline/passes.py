"""What a pass is: a frozen dataclass whose fields are its options and whose ``apply`` rewrites a model in place."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, ClassVar

from torch.fx import Graph, Node

from lvc.compiler.ir.graph import origin
from lvc.compiler.ir.model import Model
from lvc.compiler.pipeline.registry import Component
from lvc.compiler.pipeline.workspace import Workspace


class Effect(Enum):
    """How far a pass may move the outputs; the value is the largest relative drift that ``--check`` allows."""

    EXACT = 0.0
    ROUNDING = 1e-4
    LOSSY = float("inf")


@dataclass(frozen=True)
class Skip:
    """One place that a pass looked at and left alone, and why."""

    node: str
    origin: str
    reason: str

    def __str__(self) -> str:
        return f"{self.node}: {self.reason}"


@dataclass(frozen=True)
class Table:
    """Figures that a pass found: shown on request, and kept as they are in reports."""

    title: str
    headers: tuple[str, ...]
    rows: tuple[tuple[str | int | float, ...], ...]


@dataclass
class Outcome:
    """What a pass truly did: the nodes that it changed, that it took out, and that it left alone, with reasons.

    What changed and what was left alone stands in the graph under these names once the pipeline has had the pass.
    ``notes`` are sentences that every user shall read; ``tables`` are for those who ask (``--explain``, ``--json``).
    """

    changed: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    skipped: list[Skip] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)

    def change(self, node: Node | str) -> None:
        self.changed.append(node if isinstance(node, str) else node.name)

    def skip(self, node: Node, reason: str) -> None:
        self.skipped.append(Skip(node.name, origin(node), reason))

    @property
    def places(self) -> int:
        """In how many places the model is another."""
        return len(self.changed) + len(self.removed)

    def settle(self, graph: Graph) -> None:
        """Tell what was taken out from what still stands in the graph."""
        names = {node.name for node in graph.nodes}
        self.removed += [name for name in self.changed if name not in names]
        self.changed = [name for name in self.changed if name in names]
        self.skipped = [skip for skip in self.skipped if skip.node in names]


def option(default: Any, help: str) -> Any:
    """Declare an option of a pass: its default value and the one sentence that help, docs and schema show."""
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True, kw_only=True)
class Pass(Component):
    """One rewrite of a model. Fields are options; the class says what it promises.

    ``name`` is verb and object (``fold-batch-norm``); the file is named after it. ``effect`` bounds the drift.
    ``changes_signature`` must be True for a pass that may change input or output names, shapes or types.
    ``idempotent`` is False for a pass that changes its own result again. ``quantises`` is True for one that rounds
    weights or values, ``explains_integers`` for one whose skips say why a layer does not run in integers.
    ``ends`` is True for one that makes of the outputs what the task wants, and changes nothing in front of them.
    ``remedy`` completes "try ..." for a user to whom the pass costs too much. ``is_divided`` is True for one that
    several processes run together, each on its share of the images; see `lvc.compiler.pipeline.ranks`.
    """

    effect: ClassVar[Effect]
    changes_signature: ClassVar[bool] = False
    idempotent: ClassVar[bool] = True
    quantises: ClassVar[bool] = False
    explains_integers: ClassVar[bool] = False
    is_divided: ClassVar[bool] = False
    ends: ClassVar[bool] = False
    remedy: ClassVar[str] = "the pipeline without this pass"

    @property
    def trains(self) -> bool:
        """Whether it may change stored tensors in place, and so needs a model that shares none with another."""
        return self.effect is Effect.LOSSY

    @property
    def elements(self) -> frozenset[str]:
        """Names of element types, such as bfloat16, that the pass may have a model multiply that multiplied none."""
        return frozenset()

    @property
    def data_sets(self) -> frozenset[str]:
        """Names of the data sets without which the pass has nothing to go by."""
        return frozenset()

    @property
    def records(self) -> str | None:
        """The tuning database, a file or a URL, by whose records it lets kernels be made, empty for those alone that
        come with the backend; None for a pass that says nothing of that."""
        return None

    @abstractmethod
    def apply(self, model: Model, workspace: Workspace) -> Outcome:
        """Rewrite the model in place and say what changed."""
