"""What `lvc bench` times artefacts on: the shapes that all of them take, with numbers or pictures for each."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from lvc.compiler.errors import UsageError
from lvc.compiler.text import counted

if TYPE_CHECKING:
    import numpy as np

    from lvc.compiler.ir.signature import Signature
    from lvc.compiler.load.request import LoadRequest
    from lvc.compiler.loaded import Loaded
    from lvc.compiler.variants import Shapes


@dataclass(frozen=True)
class Case:
    """One shape and what is put in; ``is_first`` if it is the first of the first artefact."""

    signature: Signature
    inputs: tuple[np.ndarray, ...]
    text: str
    is_first: bool

    def request(self, request: LoadRequest) -> LoadRequest:
        """How the model is loaded for this shape, where ``request`` says how for the first."""
        if self.is_first:
            return request
        return replace(request, shapes={value.name: value.spec.shape for value in self.signature.inputs})

    def nothing_found(self, loaded: Loaded) -> bool:
        """Whether an artefact gives lists, and all of them are empty for these inputs."""
        from lvc.compiler.ir.counts import cut, visible

        artefact = loaded.artefact
        if not artefact.counts:
            return False
        arrays = cut(artefact.outputs, artefact.counts, loaded.executable(*self.inputs))
        values = visible(artefact.outputs, artefact.counts)
        lists = [array for value, array in zip(values, arrays, strict=True) if value.name in artefact.counts]
        return not any(array.size for array in lists)


def cases(options: argparse.Namespace, loaded: Sequence[Loaded]) -> list[Case]:
    """The shapes that all artefacts were built for, or those of them that the options name."""
    first = loaded[0].artefact
    signatures = [one for one in first.signatures if all(_takes(other, one) for other in loaded[1:])]
    if not signatures:
        path, other = next((p, o) for p, o in zip(options.artefacts, loaded, strict=True) if _is_apart(o, loaded[0]))
        why = ", ".join(map(str, other.inputs))
        raise UsageError(f"'{path}' takes other inputs than '{options.artefacts[0]}'", why=why)
    chosen = _chosen(options, signatures)
    found = [_case(options, loaded[0], one, is_first=one == first.signatures[0]) for one in chosen]
    if options.per_op and not found[0].is_first:
        raise UsageError(
            "the kernels of that shape cannot be timed", why="--per-op times those of the first", help="leave it out"
        )
    return found


def _takes(loaded: Loaded, signature: Signature) -> bool:
    return any(one.fits([value.spec for value in signature.inputs]) for one in loaded.artefact.signatures)


def _is_apart(loaded: Loaded, first: Loaded) -> bool:
    return not any(_takes(loaded, one) for one in first.artefact.signatures)


def _chosen(options: argparse.Namespace, signatures: Sequence[Signature]) -> Sequence[Signature]:
    """Those of the shapes that ``--shape`` names; all where it names none, or is of a model that takes one."""
    from lvc.compiler.cli.model_options import shapes_of

    if not options.shape:
        return signatures
    found = []
    for shapes in shapes_of(options.shape):
        fitting = [one for one in signatures if _has(one, shapes)]
        if not fitting:
            wanted = ", ".join("x".join(map(str, shape)) for shape in shapes.values())
            there = " and ".join(one.shapes() for one in signatures)
            raise UsageError(f"no artefact was built for {wanted}", help=f"there is {there}")
        found += [one for one in fitting if one not in found]
    return found


def _has(signature: Signature, shapes: Shapes) -> bool:
    """Whether a signature has inputs of these shapes by name; the only input has any name."""
    known = {value.name: value.spec.shape for value in signature.inputs}
    if len(known) == 1 == len(shapes):
        return next(iter(known.values())) == tuple(next(iter(shapes.values())))
    return all(known.get(name) == tuple(shape) for name, shape in shapes.items())


def _case(options: argparse.Namespace, loaded: Loaded, signature: Signature, *, is_first: bool) -> Case:
    from lvc.compiler.data.seeded import seeded_inputs

    text = ", ".join(map(str, signature.inputs))
    if options.data is None:
        return Case(signature, seeded_inputs(signature.inputs, options.seed), text, is_first)
    from lvc.compiler.data.feed import feeds
    from lvc.compiler.data.preprocess import Preprocess

    told = options.preprocess or loaded.artefact.metadata.get("preprocessing")
    feed = next(feeds([Path(options.data)], signature.inputs, Preprocess.parse(str(told)) if told else None))
    names = ", ".join(Path(name).name for name in feed.names[:3])
    more = f" and {counted(len(feed.names) - 3, 'other')}" if len(feed.names) > 3 else ""
    return Case(signature, feed.arrays, f"{text}, of {names}{more}", is_first)
