"""Data sets in one ``.npz`` file: ``x`` with images or ready inputs, and ``y`` with class indexes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from lvc.compiler.data.images import prepare
from lvc.compiler.data.npy import Array, open_npz
from lvc.compiler.data.preprocess import Preprocess
from lvc.compiler.data.samples import Fit, Sample, Samples, check_label, missing_preprocess
from lvc.compiler.errors import UsageError


def open_arrays(path: Path, preprocess: Preprocess | None, fits: Fit) -> Samples:
    """Open ``x`` and ``y`` of an ``.npz`` file.

    ``x`` is ``uint8[N,H,W,3]`` or ``uint8[N,H,W]``, images to be preprocessed, or any numbers ``[N,...]`` in the shape
    that the model takes, which are used as they are (`Fit.takes_as_it_is`). ``y`` is ``int[N]``, and may be missing.
    """
    arrays = open_npz(path)
    if "x" not in arrays:
        found = ", ".join(sorted(arrays)) or "none"
        help = "name the inputs x and the classes, if they are known, y: np.savez(path, x=images, y=classes)"
        raise UsageError("the file has no array 'x'", where=str(path), why=f"its arrays are: {found}", help=help)
    images, labels = arrays["x"], _read_labels(arrays)
    if not images.shape or images.shape[0] == 0:
        raise UsageError("the data set is empty", where=images.where)
    if labels is not None and len(labels) != images.shape[0]:
        raise UsageError(f"{images.shape[0]} inputs have {len(labels)} labels", where=str(path))
    are_images = not fits.takes_as_it_is(images.dtype, images.shape[1:], prepared=preprocess is not None)
    if are_images and preprocess is None:
        raise missing_preprocess(str(path))

    def read() -> Iterator[Sample]:
        for index, row in enumerate(images.rows()):
            where = f"{images.where}, row {index}"
            array = prepare(row, where, preprocess, fits) if are_images and preprocess else row
            yield where, array, None if labels is None else int(labels[index])

    return Samples(read, lambda: images.shape[0], fits)


def _read_labels(arrays: dict[str, Array]) -> np.ndarray | None:
    if "y" not in arrays:
        return None
    labels = arrays["y"]
    if len(labels.shape) != 1 or labels.dtype.kind not in "iu":
        raise UsageError(
            f"'y' is {labels.dtype} of shape {labels.shape}, not a row of class indexes", where=labels.where
        )
    values = labels.read()
    if len(values):
        check_label(values.min(), labels.where)
    return values
