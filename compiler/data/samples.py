"""The contract between a data set and a model: what a sample is, and that it fits the model's input."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lvc.compiler.data.batches import fed_input
from lvc.compiler.errors import UsageError

if TYPE_CHECKING:
    from lvc.compiler.data.access import Access
    from lvc.compiler.data.labelled import Truth
    from lvc.compiler.ir.signature import Value

Sample = tuple[str, np.ndarray, int | None]
"""Where a sample is from (for errors), its input of batch 1, and its class if that is known."""

MAX_SAMPLE_BYTES = 256 << 20
_CHANNELS = (1, 3)


@dataclass(frozen=True)
class Samples:
    """A data set: checked inputs of batch 1 with their classes, read anew each time it is iterated."""

    read: Callable[[], Iterator[Sample]]
    count: Callable[[], int]
    fits: Fit
    classes: tuple[str, ...] = ()
    unlabelled: str = ""
    """Why no sample has a class, where that is known from the start."""
    by_place: Callable[[], Access] | None = None
    """Reads samples in any order, where the form of the data can; see `lvc.compiler.data.access`."""
    truth: Callable[[int], Truth] | None = None
    """What the picture at a place shows, where the data have boxes or masks."""

    def __len__(self) -> int:
        return self.count()

    def __iter__(self) -> Iterator[tuple[np.ndarray, int | None]]:
        for where, array, label in self.read():
            yield self.fits(array, where), label

    def access(self) -> Access:
        """Return the samples by place."""
        from lvc.compiler.data.access import held

        return self.by_place() if self.by_place else held(self)


@dataclass(frozen=True)
class Fit:
    """Brings a sample to the input of a model: its type, its shape with batch 1, finite numbers only."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]

    @classmethod
    def of(cls, inputs: tuple[Value, ...]) -> Fit:
        """The fit for a model's signature, which must have one input."""
        value = fed_input(inputs)
        return cls(value.name, (1, *value.spec.shape[1:]), numpy_dtype(value))

    @property
    def is_channels_last(self) -> bool:
        """Whether the input takes images as ``[N,H,W,C]``, told from where 1 or 3 channels stand."""
        return len(self.shape) == 4 and self.shape[3] in _CHANNELS and self.shape[1] not in _CHANNELS

    @property
    def picture_size(self) -> tuple[int, int]:
        """Height and width of the images that the input takes; `UsageError` if it takes none."""
        if len(self.shape) != 4:
            why = f"input '{self.name}' is {sizes(self.shape)}, not images [N,C,H,W]"
            raise UsageError("the model takes no images", why=why)
        height, width = self.shape[1:3] if self.is_channels_last else self.shape[2:]
        return height, width

    def takes_as_it_is(self, dtype: np.dtype[np.generic], shape: tuple[int, ...], *, prepared: bool) -> bool:
        """Whether an array is an input and no image to prepare.

        Bytes in the shape of the input are both where channels come last: then they are images if there is a way to
        prepare them.
        """
        if dtype != np.uint8:
            return True
        return shape in (self.shape, self.shape[1:]) and not (prepared and self.is_channels_last)

    def __call__(self, array: np.ndarray, where: str) -> np.ndarray:
        """Return the sample as the model takes it; `UsageError` naming it if it does not fit."""
        if array.shape == self.shape[1:]:
            array = array[None]
        if array.shape != self.shape:
            raise UsageError(
                f"a sample is {sizes(array.shape)}, and input '{self.name}' takes {sizes(self.shape)}",
                where=where,
                help=self._advice(array.shape),
            )
        if array.dtype.kind not in "fiub":
            raise UsageError(f"a sample holds {array.dtype}, not numbers", where=where)
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise UsageError("a sample holds NaN or infinity", where=where, help="mend it or leave it out")
        return converted(array, self.dtype, self.name, where)

    def _advice(self, found: tuple[int, ...]) -> str:
        if len(found) != 4 or len(self.shape) != 4:
            return f"arrays are fed as they are: give each as {sizes(self.shape[1:])}"
        axis = 3 if self.is_channels_last else 1
        channels, (height, width) = self.shape[axis], self.picture_size
        if found[axis] != channels:
            layout = {1: "gray", 3: "rgb"}.get(channels)
            if layout is None:
                return f"images have 1 or 3 channels: give arrays of {sizes(self.shape[1:])} in a .npz or by a callable"
            return f"give the channels with --preprocess ...,layout={layout}"
        return f"give the size with --preprocess ...,resize={height}x{width} or a crop, or compile for another --shape"


def converted(array: np.ndarray, dtype: np.dtype[np.generic], name: str, where: str) -> np.ndarray:
    """Return an array in the type of the input ``name``; `UsageError` naming ``where`` if that cannot hold its numbers.

    Floats may be rounded to other floats, and integers to floats.
    """
    if array.dtype == dtype:
        return np.ascontiguousarray(array).reshape(array.shape)  # numpy gives a scalar a dimension
    if array.dtype.kind == "f" and dtype.kind not in "fc":
        raise UsageError(
            f"the array holds {array.dtype}, and input '{name}' takes {dtype}",
            where=where,
            help=f"store the array as {dtype}",
        )
    with np.errstate(over="ignore"):
        made = np.asarray(array.astype(dtype, "C"))
    lost = np.isinf(made) & np.isfinite(array) if dtype.kind in "fc" else made != array
    if lost.any():
        found = f"the array holds {array.dtype} {array[lost][0]}"
        raise UsageError(f"{found}, and input '{name}' takes {dtype}, which cannot hold it", where=where)
    return made


def numpy_dtype(value: Value) -> np.dtype[np.generic]:
    """Return numpy's element type of a model's input; `UsageError` for one that numpy itself does not have."""
    name = value.spec.type_name
    try:
        found = np.dtype(name)
    except TypeError:
        found = np.dtype("V")
    if found.kind not in "biufc":  # a bfloat16 that another package has brought is no number to numpy
        raise UsageError(f"input '{value.name}' is {name}", why="arrays of that type cannot be made")
    return found


def check_label(label: object, where: str) -> int | None:
    """Return a class index as an int; None stays None."""
    if label is None:
        return None
    array = np.asarray(label)
    if array.size != 1 or array.dtype.kind not in "iub" or array.item() < 0:
        raise UsageError(f"a label is {label!r:.40}", where=where, why="it must be a class index, an integer from 0")
    return int(array.item())


def missing_preprocess(where: str) -> UsageError:
    return UsageError(
        "nothing says how to prepare the images for the model",
        where=where,
        help="give --preprocess, for example imagenet for a classifier, or letterbox=640 for most detectors",
    )


def check_row(dtype: np.dtype[np.generic], shape: tuple[int, ...], where: str) -> int:
    """Return the bytes of one sample of an array; `UsageError` if that is more than a sample may have."""
    size = math.prod(shape) * dtype.itemsize
    if size > MAX_SAMPLE_BYTES:
        raise UsageError("one sample is too large", where=where, why=f"{size} bytes, at most {MAX_SAMPLE_BYTES}")
    return size


def sizes(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "scalar"
