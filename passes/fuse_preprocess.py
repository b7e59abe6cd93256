"""Take the bytes of a picture as input, so that whoever runs the model normalises nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch._ops import OpOverload
from torch.fx import GraphModule, Node

from lvc.compiler.data.batches import fed_input
from lvc.compiler.data.preprocess import Preprocess
from lvc.compiler.errors import UsageError
from lvc.compiler.ir.dialect import aten
from lvc.compiler.ir.graph import add_tensor, insert_call
from lvc.compiler.ir.model import Model
from lvc.compiler.ir.spec import TensorSpec
from lvc.compiler.pipeline.passes import Effect, Outcome, Pass
from lvc.compiler.pipeline.workspace import Workspace


@dataclass(frozen=True, kw_only=True)
class FusePreprocess(Pass):
    """Take a picture ``u8[N,H,W,C]`` of the network's size as input: layout and normalisation become operators.

    What they compute is what the model's preprocessing does, number for number; resizing, cropping and letterboxing
    stay with whoever runs the model, and its preprocessing says no more than these.
    """

    name: ClassVar[str] = "fuse-preprocess"
    effect: ClassVar[Effect] = Effect.EXACT
    changes_signature: ClassVar[bool] = True
    idempotent: ClassVar[bool] = False

    def apply(self, model: Model, workspace: Workspace) -> Outcome:
        outcome = Outcome()
        preprocess = _preprocess(model)
        value = fed_input(model.inputs)
        images, channels, *size = value.spec.shape if len(value.spec.shape) == 4 else (0, 0)
        if channels != preprocess.channels or value.spec.dtype is not torch.float32:
            wanted = f"f32[N,{preprocess.channels},H,W] for {preprocess}"
            raise UsageError("the input does not take the pictures", why=f"it is {value}, and should be {wanted}")
        node = next(node for node in model.module.graph.nodes if node.op == "placeholder")
        users = list(node.users)
        node.meta["spec"] = TensorSpec((images, *size, channels), "u8")
        found, first = node, node.next
        for overload, *others in _steps(preprocess, model.module, first):
            name = f"{node.name}_{overload._schema.name.rpartition('::')[-1]}"
            found = insert_call(first, overload, found, *others, name=name, origin="preprocessing")
            outcome.change(found)
        for user in users:
            user.replace_input_with(node, found)
        model.preprocessing = str(
            dataclasses.replace(preprocess, layout="gray" if channels == 1 else "rgb", range="255", mean=(), std=())
        )
        return outcome


def _preprocess(model: Model) -> Preprocess:
    if not model.preprocessing:
        help = "give --preprocess, for example --preprocess imagenet"
        raise UsageError("nothing says how pictures are prepared, so nothing of it can become operators", help=help)
    return Preprocess.parse(model.preprocessing)


def _steps(preprocess: Preprocess, module: GraphModule, before: Node) -> Iterator[tuple[Any, ...]]:
    """The operators of `Preprocess.to_planes` in order, each with its further operands."""
    yield aten.permute.default, [0, 3, 1, 2]
    if preprocess.layout == "bgr":
        yield aten.flip.default, [1]
    yield aten.to.dtype, torch.float32
    if preprocess.range == "1":
        yield aten.div.Tensor, 255.0
    elif preprocess.range == "symmetric":
        yield aten.div.Tensor, 127.5
        yield aten.sub.Tensor, 1.0
    for overload, numbers in ((aten.sub.Tensor, preprocess.mean), (aten.div.Tensor, preprocess.std)):
        if numbers:
            yield overload, _stored(module, before, overload, numbers)


def _stored(module: GraphModule, before: Node, overload: OpOverload, numbers: tuple[float, ...]) -> Node:
    name = "mean" if overload is aten.sub.Tensor else "std"
    return add_tensor(module, before, name, torch.tensor(numbers).reshape(-1, 1, 1), trainable=False)
