"""The importers: a model file or a factory becomes a `Model` in lvc's dialect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lvc.compiler.errors import UsageError
from lvc.compiler.load.archive import is_script_file

if TYPE_CHECKING:
    import torch

    from lvc.compiler.ir.model import Model

PICKLES = (".pt", ".pth", ".pkl", ".pickle", ".th", ".ckpt", ".bin", ".tar")
SCRIPTS = (".pt", ".pth", ".ts", ".torchscript")
_HELP = "give file.onnx, file.pt2, file.lvc, package.module:factory or path/to/file.py:factory"


def load(
    source: str | Path,
    *,
    shapes: Mapping[str, Sequence[int]] | None = None,
    weights: Path | None = None,
    arguments: Mapping[str, Any] | None = None,
    seed: int = 0,
    trust: bool = False,
) -> Model:
    """Load ``file.onnx``, ``file.pt2``, ``file.lvc``, ``package.module:factory`` or ``path/to/file.py:factory``.

    ``shapes`` gives input shapes by input name; a model of one input also takes the key ``input`` or an empty one.
    ``weights`` is a state dict for what a factory returns, ``arguments`` are the factory's own, and ``seed`` fixes the
    random weights that it may draw. With ``trust`` TorchScript is taken as well, a file of which can run code as it is
    read.
    """
    shapes, arguments = shapes or {}, arguments or {}
    source, path = str(source), Path(source)
    if ":" in source and not path.exists():
        from lvc.compiler.load.factory import load_factory

        return load_factory(source, shapes=shapes, weights=weights, arguments=arguments, seed=seed)
    if weights is not None or arguments:
        option = "--weights" if weights is not None else "--arg"
        raise UsageError(f"{option} is for factories", why=f"'{source}' is a file that holds its weights already")
    return _load_file(path, shapes, trust=trust)


def from_module(
    module: torch.nn.Module, *examples: torch.Tensor | Sequence[torch.Tensor], name: str = "", source: str = ""
) -> Model:
    """Trace a PyTorch module on example inputs, one by one or in one tuple, in evaluation mode."""
    from lvc.compiler.load import torch_importer
    from lvc.compiler.load.examples import check_examples

    name = name or type(module).__name__
    return torch_importer.from_module(module, check_examples(examples), name=name, source=source)


def _load_file(path: Path, shapes: Mapping[str, Sequence[int]], *, trust: bool) -> Model:
    suffix = path.suffix.lower()
    if not path.exists():
        raise UsageError(f"there is no file '{path}'", help=_HELP)
    if not path.is_file():
        raise UsageError(f"'{path}' is not a file", help=_HELP)
    if suffix == ".onnx":
        from lvc.compiler.load.onnx_importer import from_onnx

        return from_onnx(path, shapes)
    if suffix == ".pt2":
        from lvc.compiler.load.exported_file import from_exported_file

        return from_exported_file(path, shapes)
    if suffix == ".lvc":
        return _load_stored(path, shapes)
    if suffix == ".py":
        raise UsageError(f"'{path}' names no factory", help=f"say which function makes the model: {path}:NAME")
    if suffix in SCRIPTS and is_script_file(path):
        from lvc.compiler.load.script_file import from_script_file

        return from_script_file(path, shapes, trust=trust)
    if suffix in PICKLES:
        raise UsageError(
            f"'{path}' is not a model that lvc can load",
            why="such files hold weights without a network, or a network as a pickle, which runs code when it is read",
            help=f"give the factory that makes the network, and the weights with --weights {path}",
        )
    raise UsageError(f"'{path}' is not a model that lvc can load", why=f"'{suffix}' is no known suffix", help=_HELP)


def _load_stored(path: Path, shapes: Mapping[str, Sequence[int]]) -> Model:
    from lvc.compiler import container
    from lvc.compiler.ir import serialise

    artefact = container.read(path)
    if serialise.GRAPH not in artefact.files:
        raise UsageError(f"'{path}' holds compiled code, not a model", help="give what it was compiled from")
    model = serialise.from_files(artefact.files)
    _check_shapes(model, shapes)
    return model


def _check_shapes(model: Model, shapes: Mapping[str, Sequence[int]]) -> None:
    """Raise `UsageError` for a shape that an input of a stored model does not have."""
    known = {value.name: value.spec.shape for value in model.inputs}
    for key, shape in shapes.items():
        name = next(iter(known)) if len(known) == 1 and key in ("", "input") else key
        if name not in known:
            raise UsageError(f"--shape: the model has no input '{name}'", help=f"its inputs are: {', '.join(known)}")
        if tuple(shape) != known[name]:
            raise UsageError(
                f"--shape: the shape of input '{name}' was fixed when the model was stored",
                why=f"it is {'x'.join(map(str, known[name]))}, and {'x'.join(map(str, shape))} was asked for",
                help="give the shape where the model is loaded from its source",
            )
