"""Let contractions multiply numbers of a shorter type, and let kernels hand them on in that type."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch.fx import Graph, GraphModule, Node

from lvc.compiler.errors import UsageError
from lvc.compiler.ir.cook_toom import PAIRS
from lvc.compiler.ir.dialect import Family, aten
from lvc.compiler.ir.graph import (
    WINOGRAD,
    arguments,
    calls,
    family,
    infer_spec,
    insert_call,
    is_widening,
    op_name,
    spec,
    store,
    tensor,
)
from lvc.compiler.ir.layers import factors, is_depthwise
from lvc.compiler.ir.model import Model
from lvc.compiler.ir.spec import TensorSpec, dtype_name
from lvc.compiler.measure.filtering import rounding
from lvc.compiler.pipeline.passes import Effect, Outcome, Pass, option
from lvc.compiler.pipeline.workspace import Workspace
from lvc.passes.analysis.largest import Largest
from lvc.passes.analysis.narrowing import Narrowing, Places, can_move
from lvc.passes.analysis.patterns import left_out

_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, kw_only=True)
class LowerPrecision(Pass):
    """Round the factors of contractions, and what kernels hand on between them, to a shorter floating-point type.

    All arithmetic of the graph stays float32, and that of kernels for bfloat16: products of two rounded numbers are
    exact in it and are summed in it. In float16 kernels sum up to 256 products before they add them to a sum in
    float32, and what would not fit there stays as it is: weights, and values by what the model makes of seeded inputs
    and of a few images of the data set ``calib`` if there is one. Bias, activation, normalisation, pooling and
    additions work on float32, and only what a kernel hands on is rounded. So the graph says what is computed: a value
    is rounded where it is converted to the shorter type, and converted back where it is read. Inputs and outputs,
    operands of softmax, places at which images are sampled, biases and the weights of depthwise convolutions (where
    arithmetic is not the bottleneck) stay float32. Runs after `fuse-operators`, since it rounds what leaves a group.

    Convolutions that `allow-winograd` marked keep the mark of the smallest tile where factors are bfloat16 and there
    are no groups: what is multiplied is then rounded once more, in the domain that F(2x2, 3x3) brings it to. What that
    costs is measured with the layer's own weights on seeded normal data, and must be within ``winograd``.
    """

    name: ClassVar[str] = "lower-precision"
    effect: ClassVar[Effect] = Effect.LOSSY

    dtype: Literal["bfloat16", "float16"] = option("bfloat16", "the shorter type")
    winograd: float = option(0.01, "largest error that Winograd's algorithm may add to a layer, of its largest output")
    skip: tuple[str, ...] = option((), "patterns of contractions to leave alone, by node or origin, as 'layer4.*'")

    def __post_init__(self) -> None:
        if self.winograd < 0:
            raise UsageError("winograd must not be negative")

    @property
    def elements(self) -> frozenset[str]:
        return frozenset({self.dtype})

    def apply(self, model: Model, workspace: Workspace) -> Outcome:
        graph, outcome = model.module.graph, Outcome()
        contractions = [node for node in calls(graph) if family(node) is Family.CONTRACTION]
        skipped = left_out(contractions, (), self.skip)
        places, largest = Places.of(graph), Largest.of(model, workspace) if self.dtype == "float16" else Largest()
        chosen = []
        for node in contractions:
            reason = skipped.get(node) or check(model.module, node, places)
            if reason is None:
                reason = largest.refusal(model.module, node)
            if reason is None:
                chosen.append(node)
                self._mark(model.module, node, workspace.seed)
                outcome.change(node)
            elif reason:
                outcome.skip(node, reason)
        rewrite(model.module, Narrowing(graph, tuple(chosen), largest.too_large), _DTYPES[self.dtype])
        return outcome

    def _mark(self, module: GraphModule, node: Node, seed: int) -> None:
        """Let a convolution keep the mark of Winograd's algorithm, for the smallest tile, if it is exact enough."""
        tile = min(node.meta.pop(WINOGRAD, 0), *PAIRS)
        if not tile or self.dtype != "bfloat16" or arguments(node)["groups"] > 1:
            return
        weight = tensor(module, arguments(node)["weight"])
        if weight is not None and rounding(weight.detach(), tile, seed, torch.bfloat16) <= self.winograd:
            node.meta[WINOGRAD] = tile


def check(module: GraphModule, node: Node, places: Places) -> str | None:
    """Why a contraction stays as it is; empty if its factors are short already, None if they can be."""
    if spec(node).dtype is not torch.float32:
        return f"it computes in {spec(node).dtype}".replace("torch.", "")
    if is_depthwise(node):
        return "it is depthwise: few products for each number read, so its weights stay float32"
    if all(map(is_widening, factors(node))):
        return ""
    if node in places.moved:
        return "it gives the places at which an image is sampled, which would be wrong by pixels"
    for factor in factors(node):
        if tensor(module, factor) is None:
            continue
        readers = [user for user in factor.users if family(user) is not Family.CONTRACTION or is_depthwise(user)]
        if readers:
            return f"its weight is read by '{readers[0].name}' ({op_name(readers[0])}) too"
    return None


def rewrite(module: GraphModule, plan: Narrowing, dtype: torch.dtype) -> None:
    """Store short what the plan says, and read it as float32 wherever it was read."""
    stored, copied = plan.stored, plan.copied
    narrow = _Narrow(module.graph, dtype)
    for node in stored:
        narrow.store(node, stored)
    for node in stored:
        short = narrow.of[node]
        for user in list(node.users):
            if user is not short and narrow.of.get(user) is not user:
                _read(user, node, short)
    for contraction in plan.contractions:
        for factor in factors(contraction):
            if factor in copied:
                _read(contraction, factor, narrow.copy(factor))
            elif (weight := tensor(module, factor)) is not None:
                if weight.dtype is not dtype:
                    store(module, str(factor.target), weight.detach().to(dtype))
                    factor.meta["spec"] = TensorSpec(tuple(weight.shape), dtype)
                _read(contraction, factor, factor)


@dataclass
class _Narrow:
    """Makes the short form of values; ``of`` are those that there are."""

    graph: Graph
    dtype: torch.dtype
    of: dict[Node, Node] = field(default_factory=dict)

    def store(self, node: Node, stored: tuple[Node, ...]) -> None:
        """Round a value where its kernel hands it on, or let it be moved in the shorter type if it comes so."""
        operands = [n for n in node.all_input_nodes if n in self.of or spec(n).dtype is torch.float32]
        if can_move(node) and any(operand in self.of for operand in operands):
            for operand in operands:
                node.replace_input_with(operand, self.copy(operand))
            node.meta["spec"] = infer_spec(node)
            self.of[node] = node
            return
        short = self.copy(node)
        if family(node) is not Family.MOVEMENT:
            short.meta["group"] = node.meta.setdefault("group", node.name)

    def copy(self, node: Node) -> Node:
        """The short form of a value, made right after it."""
        if node not in self.of:
            self.of[node] = insert_call(
                _next(node),
                aten.to.dtype,
                node,
                self.dtype,
                origin=node.meta.get("origin", ""),
                name=f"{node.name}_{dtype_name(self.dtype)}",
            )
        return self.of[node]


def _next(node: Node) -> Node:
    """The node after one; of inputs, that after all of them."""
    following = node.next
    while node.op == "placeholder" and following.op == "placeholder":
        following = following.next
    return following


def _read(user: Node, value: Node, short: Node) -> None:
    """Let a call read the short form of a value, as float32."""
    user.replace_input_with(value, insert_call(user, aten.to.dtype, short, torch.float32, name=f"{value.name}_f32"))
