"""The inputs of one run: photographs, arrays in files, or seeded random numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lvc.compiler.data.batches import batches
from lvc.compiler.data.images import decode_image, is_image_name, prepare, read_bounded
from lvc.compiler.data.npy import Array, open_npy, open_npz
from lvc.compiler.data.placement import Placement
from lvc.compiler.data.preprocess import Preprocess
from lvc.compiler.data.samples import Fit, converted, missing_preprocess, numpy_dtype, sizes
from lvc.compiler.errors import UsageError
from lvc.compiler.ir.signature import Value


@dataclass(frozen=True)
class Feed:
    """The arrays of one run, with a name for each row of their batch that is not padding.

    Where these are files of pictures, named by their paths, ``placements`` say where each picture lies in its row.
    """

    names: tuple[str, ...]
    arrays: tuple[np.ndarray, ...]
    placements: tuple[Placement, ...] = ()

    @classmethod
    def whole(cls, name: str, arrays: tuple[np.ndarray, ...]) -> Feed:
        """A run without padding."""
        rows = arrays[0].shape[0] if arrays[0].ndim else 1
        return cls((name,) if rows == 1 else tuple(f"{name}[{row}]" for row in range(rows)), arrays)

    def without_padding(self, outputs: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
        """Cut the rows of padding off the outputs that have the batch as their first dimension."""
        batch = self.arrays[0].shape[:1]
        return tuple(array[: len(self.names)] if array.shape[:1] == batch else array for array in outputs)


def feeds(
    paths: Sequence[Path],
    inputs: tuple[Value, ...],
    preprocess: Preprocess | None,
    most: int = 0,
    *,
    any_shape: bool = False,
) -> Iterator[Feed]:
    """Read files into runs for a signature: each array file is one run, images, those of a folder in the order of their
    names, fill batches in order. What takes any number of images at once gets ``most``, and at last those that are
    left. With ``any_shape`` arrays are not held against the shapes of the signature."""
    paths = [file for path in paths for file in (_images_in(path) if path.is_dir() else [path])]
    images = [path for path in paths if is_image_name(path.name)]
    arrays = [path for path in paths if path not in images]
    for path in arrays:
        yield Feed.whole(str(path), read_arrays(path, inputs, any_shape=any_shape))
    if images:
        batch = most or inputs[0].spec.shape[0]
        yield from _image_feeds(images, Fit.of(inputs), batch, preprocess, fill=1 if most else batch)


def _images_in(folder: Path) -> list[Path]:
    found = sorted(path for path in folder.iterdir() if is_image_name(path.name) and path.is_file())
    if not found:
        raise UsageError(
            f"there are no images in '{folder}'", help="give images (.jpg, .png, .webp), or a folder of them"
        )
    return found


def read_arrays(path: Path, inputs: tuple[Value, ...], *, any_shape: bool = False) -> tuple[np.ndarray, ...]:
    """Read an ``.npy`` file for the one input, or an ``.npz`` with an array for each input, by name or in order."""
    suffix = path.suffix.lower()
    if not path.is_file() or suffix not in (".npy", ".npz"):
        what = f"'{path}' is not an input" if path.exists() else f"there is no file '{path}'"
        raise UsageError(what, help="give images (.jpg, .png, .webp), a .npy or a .npz file")
    found = {inputs[0].name: open_npy(path)} if suffix == ".npy" else open_npz(path)
    if len(found) != len(inputs) or (suffix == ".npy" and len(inputs) != 1):
        names = ", ".join(map(str, inputs))
        raise UsageError(f"'{path}' holds {len(found)} array(s), and the inputs are: {names}")
    ordered = [found[value.name] for value in inputs] if {v.name for v in inputs} == set(found) else found.values()
    return tuple(_read(array, value, any_shape=any_shape) for array, value in zip(ordered, inputs, strict=True))


def _read(array: Array, value: Value, *, any_shape: bool) -> np.ndarray:
    if array.shape != value.spec.shape and not any_shape:
        found, wanted = sizes(array.shape), sizes(value.spec.shape)
        raise UsageError(f"the array is {found}, and input '{value.name}' takes {wanted}", where=array.where)
    return converted(array.read(), numpy_dtype(value), value.name, array.where)


def _image_feeds(paths: list[Path], fits: Fit, batch: int, preprocess: Preprocess | None, fill: int) -> Iterator[Feed]:
    if preprocess is None:
        raise missing_preprocess(str(paths[0]))
    chosen = preprocess
    placements: dict[int, Placement] = {}

    def samples() -> Iterator[tuple[np.ndarray, int]]:
        for place, path in enumerate(paths):
            image = decode_image(read_bounded(path), str(path))
            placements[place] = chosen.placement((image.height, image.width))
            yield fits(prepare(image, str(path), chosen, fits), str(path)), place

    for array, found in batches(samples(), batch, fill):
        places = [place for place in found if place is not None]
        yield Feed(tuple(str(paths[p]) for p in places), (array,), tuple(placements.pop(p) for p in places))
