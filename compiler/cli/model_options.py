"""The options that say which model to load, shared by every command that takes one."""

from __future__ import annotations

import argparse
import ast
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lvc.compiler.errors import UsageError

if TYPE_CHECKING:
    from lvc.compiler.ir.model import Model
    from lvc.compiler.load.request import LoadRequest
    from lvc.compiler.variants import Shapes

_MOST_SEED = 2**64 - 1
MODEL_HELP = "file.onnx, file.pt2, file.lvc (of 'lvc opt'), package.module:factory, or path/to/file.py:factory"


def add_model_options(parser: argparse.ArgumentParser, *, positional: bool = True, is_optional: bool = False) -> None:
    """Add MODEL (unless it has another place), which may be left out if it ``is_optional``, and what goes with it."""
    if positional:
        parser.add_argument("model", metavar="MODEL", nargs="?" if is_optional else None, help=MODEL_HELP)
    parser.set_defaults(batch=())
    group = parser.add_argument_group("model")
    group.add_argument("--weights", metavar="FILE", help="state dict to load into what a factory returns")
    group.add_argument("--arg", metavar="NAME=VALUE", action="append", default=[], help="argument for a factory")
    group.add_argument(
        "--shape",
        metavar="[INPUT=]1x3x224x224",
        action="append",
        default=[],
        help="shape of an input; its name may be left out when there is only one. 'lvc compile' takes several, and "
        "builds one file for all",
    )
    group.add_argument(
        "--no-verify",
        dest="verify",
        action="store_false",
        help="trust what is made: do not compare a model with its source, nor code with its model",
    )
    group.add_argument("--trust", action="store_true", help="read TorchScript (.pt), which can run code as it is read")
    add_seed_option(group, "seed of random weights and of checked inputs (default 0)")


def add_seed_option(group: argparse._ActionsContainer, help: str) -> None:
    """Add what random numbers are drawn from."""
    group.add_argument("--seed", type=_seed, default=0, help=help)


def _seed(text: str) -> int:
    """Read a seed that NumPy and PyTorch both take."""
    if not (text.isascii() and text.isdecimal() and len(text) <= 20 and int(text) <= _MOST_SEED):
        raise argparse.ArgumentTypeError(f"'{text}' is not an integer from 0 to {_MOST_SEED}")
    return int(text)


def load_request(options: argparse.Namespace) -> LoadRequest:
    """Return what the options ask to load; `UsageError` if that is in several shapes."""
    first, *others = shapes_of(options.shape)
    if others:
        raise UsageError("the model is loaded in one shape here", help="'lvc compile' takes an input in several shapes")
    return _request(options, first)


def load_variants(options: argparse.Namespace) -> tuple[LoadRequest, Model, Sequence[Shapes]]:
    """Load the model that the options name in the first of their shapes; return how, and the other shapes.

    Each ``--shape`` of an input beyond the first makes another one, and so does each number of ``--batch``.
    """
    shapes: Sequence[Shapes] = shapes_of(options.shape)
    if len(shapes) > 1 and options.batch:
        raise UsageError("--batch and an input in several shapes do not go together", help="give all shapes, or one")
    request = _request(options, shapes[0])
    model = request.load()
    if options.batch:
        from lvc.compiler.variants import with_batches

        shapes = with_batches(model, options.batch)
        if any(shapes[0][value.name] != value.spec.shape for value in model.inputs):
            request = _request(options, shapes[0])
            model = request.load()
    return request, model, shapes[1:]


def _request(options: argparse.Namespace, shapes: Shapes) -> LoadRequest:
    from lvc.compiler.load.request import LoadRequest

    return LoadRequest(
        source=options.model,
        weights=options.weights,
        arguments=dict(_argument(text) for text in options.arg),
        shapes=shapes,
        seed=options.seed,
        trust=options.trust,
    )


def batch_sizes(text: str) -> tuple[int, ...]:
    """Read numbers of images, ``1,4,16``, as the value of an option."""
    parts = text.split(",")
    if not all(part.isascii() and part.isdecimal() and 0 < int(part) < 1 << 31 for part in parts):
        raise argparse.ArgumentTypeError(f"'{text}' is no list of numbers from 1, such as 1,4,16")
    return tuple(map(int, parts))


def load_model(options: argparse.Namespace) -> Model:
    """Load the model that the options name; `CheckError` if it is not what its source computes."""
    from lvc.compiler.pipeline.workspace import Workspace
    from lvc.compiler.verification.verification import Verification

    model = load_request(options).load()
    Verification.of(model, Workspace(seed=options.seed), check=False, verify=options.verify).source()
    return model


def _argument(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise UsageError(f"'--arg {text}' is not NAME=VALUE", help="for example --arg num_classes=10")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value


def shapes_of(texts: Sequence[str]) -> list[Shapes]:
    """The shapes by name that options give, one mapping after the other where inputs have several."""
    given: dict[str, list[tuple[int, ...]]] = {}
    for name, shape in map(_shape, texts):
        given.setdefault(name, []).append(shape)
    count = max(map(len, given.values()), default=1)
    if uneven := [name for name, found in given.items() if len(found) not in (1, count)]:
        raise UsageError(
            f"--shape: input '{uneven[0]}' has {len(given[uneven[0]])} shapes, and another one {count}",
            help="give each input one shape, or all the same number of shapes",
        )
    return [{name: found[min(place, len(found) - 1)] for name, found in given.items()} for place in range(count)]


def _shape(text: str) -> tuple[str, tuple[int, ...]]:
    name, _, sizes = text.rpartition("=")
    parts = sizes.replace(",", "x").split("x")
    if not all(part.strip().isdecimal() and 0 < int(part) < 1 << 31 for part in parts):
        raise UsageError(f"'--shape {text}' is not a shape", help="for example --shape input=1x3x224x224")
    return name, tuple(int(part) for part in parts)
