"""Traces a PyTorch module with `torch.export`, and says in the user's terms why it could not."""

from __future__ import annotations

import contextlib
import io
import logging
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind

from lvc.compiler.errors import CompileError, LvcError
from lvc.compiler.ir.spec import TensorSpec
from lvc.compiler.load.advice import WRAP, advice
from lvc.compiler.load.normalise.refusal import depends_on_data
from lvc.compiler.load.normalise.trace import Stored, Trace
from lvc.compiler.load.origins import is_library, modules_of, origin_of
from lvc.compiler.load.outputs import changes_state, name_outputs
from lvc.compiler.load.regions import inline_regions
from lvc.compiler.load.scripted import forward_signature
from lvc.compiler.load.static_forms import static_forms

_PREFIX = "wrapped."
_DATA_DEPENDENT = ("data-dependent", "GuardOnDataDependent", "_local_scalar_dense", "DynamicOutputShape", "unbacked")


class _Flat(torch.nn.Module):
    """A module with its results as one flat tuple of tensors, whose names it tells while it is traced."""

    def __init__(self, wrapped: torch.nn.Module, tell: Callable[[tuple[str, ...]], None]) -> None:
        super().__init__()
        self.wrapped = wrapped
        self.tell = tell

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        named = name_outputs(self.wrapped(*inputs))
        self.tell(tuple(name for name, _ in named))
        return tuple(tensor for _, tensor in named)


def trace(module: torch.nn.Module, examples: Sequence[torch.Tensor]) -> Trace:
    """Trace a module, in evaluation mode, on example inputs; the trace shares the module's tensors."""
    names = input_names(module, len(examples))
    told: list[tuple[str, ...]] = []
    flat = _Flat(module, told.append).eval()
    try:
        with _quiet():
            program = _exported(flat, examples)
    except LvcError:
        raise
    except Exception as error:  # torch.export and the model may raise anything
        raise explain(error, examples, module) from error
    return read_program(program, names, told[-1])


def _exported(flat: _Flat, examples: Sequence[torch.Tensor]) -> ExportedProgram:
    """A program of fixed shapes: where a length depends on the data, the forms of fixed length are traced."""
    try:
        program = torch.export.export(flat, tuple(examples), strict=False)
        if not _has_open_lengths(program):
            return program
    except Exception as error:  # torch.export and the model may raise anything
        if not depends(error):
            raise
    with static_forms():
        return torch.export.export(flat, tuple(examples), strict=False)


def _has_open_lengths(program: ExportedProgram) -> bool:
    values = (node.meta.get("val") for node in program.graph.nodes)
    return any(
        isinstance(size, torch.SymInt) for value in values if isinstance(value, torch.Tensor) for size in value.shape
    )


def depends(error: Exception) -> bool:
    """Whether tracing failed since it would have had to know a value."""
    text = "\n".join(str(part) or type(part).__name__ for part in _chain(error))
    return any(sign in text for sign in _DATA_DEPENDENT)


def input_names(module: torch.nn.Module, count: int) -> list[str]:
    """Names of the first arguments of ``forward``; those taken as ``*args`` are numbered."""
    names = []
    for parameter in forward_signature(module).parameters.values():
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            names.append(parameter.name)
        elif parameter.kind is parameter.VAR_POSITIONAL:
            names.extend(f"{parameter.name}_{i}" for i in range(max(0, count - len(names))))
    if len(names) < count:
        raise CompileError(
            f"the model takes {len(names)} input(s), {count} given",
            why=f"inputs are: {', '.join(names)}" if names else "no argument of forward can be given by its place",
            help="" if names else WRAP,
        )
    return names[:count]


def read_program(program: ExportedProgram, names: Sequence[str], output_names: tuple[str, ...]) -> Trace:
    inline_regions(program.graph_module)
    signature = program.graph_signature
    placeholders = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
    traced = Trace(program.graph, {}, {}, output_names)
    waiting = iter(names)
    for given in signature.input_specs:
        node = placeholders[given.arg.name]
        if given.kind is InputKind.USER_INPUT:
            traced.inputs[node] = (next(waiting), TensorSpec.of(node.meta["val"]))
            continue
        assert given.target is not None
        value = program.state_dict.get(given.target, program.constants.get(given.target))
        assert isinstance(value, torch.Tensor)
        trainable = given.kind is InputKind.PARAMETER and value.is_floating_point()
        traced.stored[node] = Stored(given.target.removeprefix(_PREFIX), value, trainable)
    for made in signature.output_specs:
        if made.kind is not OutputKind.USER_OUTPUT:
            raise changes_state((made.target or made.arg.name).removeprefix(_PREFIX))
    for node in program.graph.nodes:
        if node.op == "call_function":
            modules = [(path.removeprefix("wrapped").removeprefix("."), kind) for path, kind in modules_of(node.meta)]
            stack = node.meta.get("stack_trace") or ""
            node.meta["origin"], node.meta["path"] = origin_of(modules, stack, node.name)
    return traced


def explain(error: Exception, examples: Sequence[torch.Tensor], module: torch.nn.Module) -> CompileError:
    """The one error that a failed trace becomes; it names the user's line that could not be traced."""
    reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    where = next(filter(None, map(_user_frame, reversed(_chain(error)))), "")
    if depends(error):
        return depends_on_data(where)
    shapes = ", ".join(str(TensorSpec.of(example)) for example in examples)
    return CompileError(
        f"the model cannot be traced on {shapes}",
        where=where,
        why=f"{type(error).__name__}: {reason}",
        help=advice(reason, module),
    )


def _chain(error: BaseException) -> list[BaseException]:
    """An error and those that led to it, the last first."""
    chain: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in chain:
        chain.append(current)
        current = current.__cause__ or current.__context__
    return chain


def _user_frame(error: BaseException) -> str:
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not is_library(f.filename)]
    if not frames:
        return ""
    last = frames[-1]
    return f"{last.filename}:{last.lineno}" + (f": {last.line}" if last.line else "")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep what tracing prints, warns and logs (whole graphs, after an error) from the user, who cannot act on it."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
