"""A model as training runs it: several images at once, normalisations by the batch, dropout active.

Both graphs made here hold the very tensors of the model, so that what training does to them is done to the model: its
own graph, which has every operator in evaluation mode, is never changed. Whether batch normalisations were folded does
not matter; those that are left take the statistics of the batch, and remember them by a moving average.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace

import torch
from torch.fx import GraphModule, Node

from lvc.compiler.data.batches import fed_input
from lvc.compiler.errors import CompileError
from lvc.compiler.ir.dialect import aten
from lvc.compiler.ir.graph import arguments, calls, free_name, set_argument, tensor
from lvc.compiler.ir.layers import LAYERS, weight_node
from lvc.compiler.ir.model import Model
from lvc.compiler.pipeline.ranks import ALONE, Ranks
from lvc.passes.training.division import Dropout, Normalisation, joined
from lvc.passes.training.fake_quantisation.places import Places, Scales, parameter_names
from lvc.passes.training.optimisation import copies

_CPU = torch.device("cpu")
MOMENTUM = 0.1
"""The share of each batch in the moving averages of a batch normalisation."""


@dataclass(frozen=True)
class TrainingForm:
    """Two graphs of one model for ``images`` at once in each of the ``ranks``, and the tensors of both.

    Each gives its outputs, and then the values of the nodes that are watched. ``trained`` are the parameters by name,
    ``state`` all floating-point tensors that may change: those and the statistics of batch normalisations. ``masks``
    are where the weights of a sparse layer may be other than zero. ``places`` are where values are rounded: their
    quantisation parameters are trained too, and written into the model in the end.
    """

    model: Model

    images: int
    training: GraphModule
    evaluation: GraphModule
    trained: dict[str, torch.nn.Parameter]
    state: dict[str, torch.Tensor]
    masks: dict[str, torch.Tensor]
    places: Places
    ranks: Ranks
    device: torch.device = _CPU

    @classmethod
    def of(
        cls,
        model: Model,
        images: int,
        watched: Sequence[Node] = (),
        apart: Sequence[Node] = (),
        *,
        freeze_batch_norm: bool,
        keep_zeros: bool,
        scales: Scales = "learn",
        freeze_scales: float = 1.0,
        ranks: Ranks = ALONE,
    ) -> TrainingForm:
        """Write a model for training; ``watched`` are nodes of it whose values are wanted, and behind those that are
        ``apart`` no gradient passes.

        `BatchError` where images would mix, and `CompileError` if there is nothing to train.
        """
        fed_input(model.inputs)
        batched = model.with_batch(images)
        training, evaluation = (watching(batched.copy(share_tensors=True), watched) for _ in range(2))
        if not freeze_batch_norm:
            _set_training(training, ranks)
        _stop_gradients(training, apart)
        places = Places.of(model, scales, freeze_scales)
        places.put_into(training, training=True, ranks=ranks)
        places.put_into(evaluation, training=False)
        statistics = _statistics(model)
        others = parameter_names(model.module) | statistics.keys()
        trained = {
            name: parameter
            for name, parameter in sorted(model.module.named_parameters())
            if name not in others and parameter.is_floating_point()
        }
        if not trained:
            raise CompileError("there is nothing to train", why="no weight of the model is in floating point")
        for name, parameter in model.module.named_parameters():
            parameter.requires_grad_(name in trained)
        masks = _masks(model) if keep_zeros else {}
        state = {**trained, **statistics, **places.state}
        return cls(model, images, training, evaluation, {**trained, **places.trained}, state, masks, places, ranks)

    def parts(self, given: Sequence[torch.Tensor]) -> tuple[Sequence[torch.Tensor], Sequence[torch.Tensor]]:
        """Tell the outputs of what a graph gives from the watched values."""
        outputs = len(self.model.output_names)
        return given[:outputs], given[outputs:]

    @contextmanager
    def on(self, device: torch.device) -> Iterator[TrainingForm]:
        """This form with all that it holds on a device within the ``with`` block, and back on the CPU afterwards."""
        try:
            yield self._moved(device)
        finally:
            self._moved(_CPU)

    def _moved(self, device: torch.device) -> TrainingForm:
        for graph in (self.training, self.evaluation):
            graph.to(device)  # of parameters the values move: every module that has one has it there
        masks = {name: mask.to(device) for name, mask in self.masks.items()}
        return replace(self, masks=masks, device=device)

    def here(self) -> AbstractContextManager[object]:
        """Tensors that are made within the ``with`` block are where the form is."""
        return nullcontext() if self.device == _CPU else self.device

    def run(self, graph: GraphModule, inputs: torch.Tensor) -> Sequence[torch.Tensor]:
        """Run one of the graphs on this process's share of some images; return what it gives for all of them."""
        return [joined(value.float() if value.is_floating_point() else value, self.ranks) for value in graph(inputs)]

    def snapshot(self) -> dict[str, torch.Tensor]:
        """Copies of all tensors as they are now."""
        return copies(self.state)

    @torch.no_grad()
    def restore(self, values: dict[str, torch.Tensor]) -> None:
        """Give all tensors the values of a snapshot."""
        for name, value in self.state.items():
            value.copy_(values[name])

    @contextmanager
    def holding(self, values: dict[str, torch.Tensor] | None) -> Iterator[None]:
        """Have the values of a snapshot within the ``with`` block; None leaves them as they are."""
        if values is None:
            yield
            return
        own = self.snapshot()
        self.restore(values)
        try:
            yield
        finally:
            self.restore(own)

    @torch.no_grad()
    def keep_valid(self) -> None:
        """Set to zero again what is to stay zero, and bring quantisation parameters to where they mean something."""
        for name, mask in self.masks.items():
            self.state[name].mul_(mask)
        self.places.keep_valid()

    def settle(self) -> None:
        """End training: no gradients, and every tensor in the order of its dimensions."""
        for parameter in self.trained.values():
            parameter.grad = None
            parameter.data = parameter.data.contiguous()
        self.places.store(self.model)

    def lay_out(self, layout: torch.memory_format) -> None:
        """Store the weights of convolutions in a memory format."""
        for parameter in self.trained.values():
            if parameter.ndim == 4:
                parameter.data = parameter.data.contiguous(memory_format=layout)


def to_layout(inputs: torch.Tensor, layout: torch.memory_format) -> torch.Tensor:
    """Inputs in a memory format, if they are images."""
    return inputs.contiguous(memory_format=layout) if inputs.ndim == 4 else inputs


def watching(model: Model, watched: Sequence[Node]) -> GraphModule:
    """Return the graph of a model, which gives the values of nodes of those names behind its outputs."""
    module = model.module
    found = {node.name: node for node in module.graph.nodes}
    output = module.graph.output_node()
    output.args = ((*output.args[0], *(found[node.name] for node in watched)),)  # type: ignore[misc]
    module.recompile()
    return module


def _stop_gradients(module: GraphModule, nodes: Sequence[Node]) -> None:
    """Have everything but the outputs read values of nodes of those names without their derivatives."""
    names = {node.name for node in nodes}
    for node in [node for node in module.graph.nodes if node.name in names]:
        with module.graph.inserting_after(node):
            stopped = module.graph.call_method("detach", (node,))
        readers = (stopped, module.graph.output_node())
        node.replace_all_uses_with(stopped, delete_user_cb=lambda user, readers=readers: user not in readers)
    module.recompile()


def _set_training(module: GraphModule, ranks: Ranks) -> None:
    for node in calls(module.graph, aten.batch_norm.default):
        if ranks.count == 1:
            set_argument(node, "training", True)
            set_argument(node, "momentum", MOMENTUM)
        else:
            _put(module, node, Normalisation(MOMENTUM, arguments(node)["eps"], ranks), 5)
    for node in calls(module.graph, aten.dropout.default):
        _put(module, node, Dropout(arguments(node)["p"], ranks), 1)
    module.recompile()


def _put(module: GraphModule, node: Node, other: torch.nn.Module, operands: int) -> None:
    """Let a module compute a node from its first operands."""
    name = free_name(module, f"{node.name}_in_training")
    module.add_module(name, other)
    node.op, node.target, node.args, node.kwargs = "call_module", name, node.args[:operands], {}


def _statistics(model: Model) -> dict[str, torch.Tensor]:
    """The running statistics of all batch normalisations by name."""
    found: dict[str, torch.Tensor] = {}
    for node in calls(model.module.graph, aten.batch_norm.default):
        for operand in node.args[3:5]:
            stored = tensor(model.module, operand)
            if stored is not None:
                assert isinstance(operand, Node)
                found[str(operand.target)] = stored
    return found


def _masks(model: Model) -> dict[str, torch.Tensor]:
    """Where the weights of layers are not zero, of layers that have zeros."""
    found = {}
    for layer in calls(model.module.graph, *LAYERS):
        weight = weight_node(layer)
        stored = tensor(model.module, weight)
        if stored is not None and stored.is_floating_point() and (stored == 0).any():
            found[str(weight.target)] = stored != 0
    return found
