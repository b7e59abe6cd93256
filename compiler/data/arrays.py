"""Data sets in one ``.npz`` file: ``x`` with images or ready inputs, and ``y`` with class indexes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from lvc.compiler.data.access import MOST_BYTES, Access, Target, too_large
from lvc.compiler.data.geometry import to_pixels
from lvc.compiler.data.images import prepare
from lvc.compiler.data.npy import Array, open_npz
from lvc.compiler.data.preprocess import Preprocess
from lvc.compiler.data.samples import Fit, Sample, Samples, check_label, missing_preprocess
from lvc.compiler.errors import UsageError


def open_arrays(path: Path, preprocess: Preprocess | None, fits: Fit) -> Samples:
    """Open ``x`` and ``y`` of an ``.npz`` file.

    ``x`` is ``uint8[N,H,W,3]`` or ``uint8[N,H,W]``, images to be preprocessed, or any numbers ``[N,...]`` in the shape
    that the model takes, which are used as they are (`Fit.takes_as_it_is`). ``y`` is ``int[N]``, and may be missing; of
    more dimensions it holds what training aims at, such as masks, and no sample has a class.
    """
    arrays = open_npz(path)
    if "x" not in arrays:
        found = ", ".join(sorted(arrays)) or "none"
        help = "name the inputs x and the classes, if they are known, y: np.savez(path, x=images, y=classes)"
        raise UsageError("the file has no array 'x'", where=str(path), why=f"its arrays are: {found}", help=help)
    images, aims = arrays["x"], arrays.get("y")
    labels = _read_labels(aims) if aims and len(aims.shape) == 1 else None
    if not images.shape or images.shape[0] == 0:
        raise UsageError("the data set is empty", where=images.where)
    if aims and aims.shape[:1] != images.shape[:1]:
        count = str(aims.shape[0]) if aims.shape else "no row of"
        raise UsageError(f"{images.shape[0]} inputs have {count} labels", where=str(path))
    are_images = not fits.takes_as_it_is(images.dtype, images.shape[1:], prepared=preprocess is not None)
    if are_images and preprocess is None:
        raise missing_preprocess(str(path))

    def read() -> Iterator[Sample]:
        for index, row in enumerate(images.rows()):
            where = f"{images.where}, row {index}"
            array = prepare(row, where, preprocess, fits) if are_images and preprocess else row
            yield where, array, None if labels is None else int(labels[index])

    def by_place() -> Access:
        if images.bytes + (aims.bytes if aims else 0) > MOST_BYTES:
            raise too_large("a .npz file has to be read as a whole")
        x = images.stack()
        target = _reader(aims.stack() if aims and labels is None else labels)

        def place_of(row: int) -> str:
            return f"{images.where}, row {row}"

        if not (are_images and preprocess):
            return Access(range(len(x)), lambda row: fits(x[row], place_of(row)), target)
        made: Preprocess = preprocess
        return Access(
            range(len(x)),
            lambda row: fits(prepare(x[row], place_of(row), made, fits), place_of(row)),
            target,
            lambda row: to_pixels(x[row], made.channels),
            made,
        )

    unlabelled = "'y' holds arrays, not class indexes" if aims and labels is None else ""
    return Samples(read, lambda: images.shape[0], fits, unlabelled=unlabelled, by_place=by_place)


def _reader(targets: np.ndarray | None) -> Callable[[int], Target]:
    """Read what the samples are to give by their rows: classes as integers, anything else as arrays."""
    if targets is None:
        return lambda _: None
    if targets.ndim == 1:
        return lambda row: int(targets[row])
    return lambda row: targets[row]


def _read_labels(labels: Array) -> np.ndarray:
    if labels.dtype.kind not in "iu":
        raise UsageError(
            f"'y' is {labels.dtype} of shape {labels.shape}, not a row of class indexes", where=labels.where
        )
    values = labels.read()
    if len(values):
        check_label(values.min(), labels.where)
    return values
