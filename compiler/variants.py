"""A model in several shapes of its inputs, to be built into one artefact.

Where only the number of images differs, a variant is the same graph with another batch, `Model.with_batch`: also behind
passes that learnt from data, and with its images proven to be apart. For another height or width the model is loaded
anew, and goes through the passes as the first did.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from lvc.compiler.backend import Target
from lvc.compiler.errors import CompileError, UsageError
from lvc.compiler.ir.batching.batching import BatchError
from lvc.compiler.ir.model import Model
from lvc.compiler.load.request import LoadRequest
from lvc.compiler.pipeline import catalogue
from lvc.compiler.pipeline.passes import Effect
from lvc.compiler.pipeline.pipeline import Pipeline

Shapes = Mapping[str, Sequence[int]]
"""Shapes of inputs by name, as `LoadRequest` has them."""


@dataclass(frozen=True)
class Variant:
    """A model as it was loaded, for other shapes than the first of a list of such; ``like`` is the place in the list of
    the one that it differs from in the number of images alone, None if it was loaded by itself."""

    model: Model
    like: int | None


def with_batches(model: Model, batches: Sequence[int]) -> list[Shapes]:
    """The shapes of all inputs of a model for these numbers of images."""
    return [{value.name: (images, *value.spec.shape[1:]) for value in model.inputs} for images in batches]


def check_variants(variants: Sequence[Shapes], target: Target) -> None:
    """Raise `UsageError` if what is built for a target takes one shape."""
    if variants and (why := catalogue.BACKENDS.get(target.backend).one_shape(target)):
        raise UsageError("several shapes cannot be built into one file", why=why, help="compile each for itself")


def load_variants(
    first: Model, variants: Sequence[Shapes], request: LoadRequest | None, pipeline: Pipeline
) -> list[Variant]:
    """Load a model for more shapes, of which none may be there twice; the first is at place 0 of what is returned."""
    found = [Variant(first, None)]
    for shapes in variants:
        wanted = _named(first, shapes)
        if any(_shapes(known.model) == wanted for known in found):
            raise UsageError(f"the shape {_text(wanted)} is there twice")
        like = next((place for place, known in enumerate(found) if _differs_in_images(known.model, wanted)), None)
        if like is not None:
            found.append(Variant(_with_batch(found[like].model, next(iter(wanted.values()))[0]), like))
        else:
            found.append(Variant(_loaded(first, wanted, request, pipeline), None))
    return found


def rewritten_variants(
    rewritten: Model, variants: Sequence[Variant], optimise: Callable[[Model], Model]
) -> list[Model]:
    """The variants as the first was ``rewritten``, itself first; ``optimise`` rewrites one that was loaded anew."""
    made = [rewritten]
    for variant in variants[1:]:
        if variant.like is None:
            made.append(optimise(variant.model))
        else:
            made.append(_with_batch(made[variant.like], variant.model.inputs[0].spec.shape[0]))
    return made


def _loaded(first: Model, wanted: Shapes, request: LoadRequest | None, pipeline: Pipeline) -> Model:
    if request is None:
        help = "variants of a model that is loaded already differ in their number of images alone"
        raise UsageError(
            f"the model cannot be loaded for {_text(wanted)}", why="where it is from is not known", help=help
        )
    if lossy := next((item for item in pipeline if item.effect is Effect.LOSSY), None):
        raise UsageError(
            f"the shape {_text(wanted)} differs from {_text(_shapes(first))} in more than the number of images",
            why=f"'{lossy.name}' moves outputs, and would do so for each size in another way",
            help="compile each size for itself, or leave the pass out",
        )
    model = dataclasses.replace(request, shapes=wanted).load()
    model.preprocessing, model.labels, model.task = first.preprocessing, first.labels, first.task
    return model


def _with_batch(model: Model, images: int) -> Model:
    try:
        return model.with_batch(images)
    except BatchError as error:
        raise CompileError(
            f"the model cannot be built for {images} images at once as well",
            where=error.where,
            why=f"{error.what}: {error.why}" if error.why else error.what,
            help="compile each number of images for itself",
        ) from error


def _named(model: Model, shapes: Shapes) -> dict[str, tuple[int, ...]]:
    """The shape of every input, as given or else as in a model; `UsageError` for names that it has not."""
    known = _shapes(model)
    if len(known) == 1:
        shapes = {next(iter(known)) if name in ("", "input") else name: shape for name, shape in shapes.items()}
    if unknown := [name for name in shapes if name not in known]:
        raise UsageError(f"the model has no input '{unknown[0]}'", help=f"its inputs are: {', '.join(known)}")
    return {name: tuple(shapes.get(name, shape)) for name, shape in known.items()}


def _shapes(model: Model) -> dict[str, tuple[int, ...]]:
    return {value.name: value.spec.shape for value in model.inputs}


def _differs_in_images(model: Model, wanted: Shapes) -> bool:
    pairs = [(value.spec.shape, tuple(wanted[value.name])) for value in model.inputs]
    sizes = {(ours[:1], theirs[:1]) for ours, theirs in pairs}
    return len(sizes) == 1 and all(
        ours and len(ours) == len(theirs) and ours[1:] == theirs[1:] for ours, theirs in pairs
    )


def _text(shapes: Shapes) -> str:
    return ", ".join("x".join(map(str, shape)) or "scalar" for shape in shapes.values())
