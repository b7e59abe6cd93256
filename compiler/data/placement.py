"""Where a picture lies in the input of a network, and the way back from there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Placement:
    """A picture of ``size``, height and width, was scaled by ``scale`` and moved up and left by ``shift`` pixels, each
    as vertical and horizontal."""

    size: tuple[int, int]
    scale: tuple[float, float] = (1.0, 1.0)
    shift: tuple[int, int] = (0, 0)

    def boxes(self, boxes: np.ndarray) -> np.ndarray:
        """Corners ``[n, 4]``, x1 y1 x2 y2, in pixels of the picture, of those in the input; within the picture."""
        height, width = self.size
        corners = self.points(boxes.reshape(-1, 2, 2)).reshape(-1, 4)
        return np.asarray(corners.clip(0, [width, height, width, height]))

    def points(self, points: np.ndarray) -> np.ndarray:
        """Places ``[..., 2]``, x and y, in pixels of the picture, of those in the input."""
        (down, across), (top, left) = self.scale, self.shift
        return np.asarray((points.astype(np.float64) + np.array([left, top])) / [across, down])

    def classes(self, classes: np.ndarray, input_size: tuple[int, int]) -> np.ndarray:
        """The class of each pixel of the picture, ``i64[height, width]``, of a map of classes that covers an input of a
        size; -1 where the input does not show the picture. The nearest class is taken."""
        rows, columns = (self._along(axis, classes.shape[axis], input_size[axis]) for axis in (0, 1))
        found = classes[rows.clip(0, None)][:, columns.clip(0, None)].astype(np.int64)
        return np.where((rows < 0)[:, None] | (columns < 0), -1, found)

    def spread(self, classes: np.ndarray, input_size: tuple[int, int], outside: int) -> np.ndarray:
        """The class of each pixel of the input, ``i64[height, width]``, of those of the picture; the nearest is taken,
        and ``outside`` where the picture is not."""
        sides = zip(self.size, input_size, self.scale, self.shift, strict=True)
        rows, columns = (
            np.floor((np.arange(length) + 0.5 + shift) / scale).astype(np.int64) for _, length, scale, shift in sides
        )
        known = [(at >= 0) & (at < size) for at, size in zip((rows, columns), self.size, strict=True)]
        found = classes[rows.clip(0, self.size[0] - 1)][:, columns.clip(0, self.size[1] - 1)].astype(np.int64)
        return np.where(known[0][:, None] & known[1], found, outside)

    def _along(self, axis: int, length: int, input_length: int) -> np.ndarray:
        """For each row or column of the picture that of a map, or -1."""
        middles = (np.arange(self.size[axis]) + 0.5) * self.scale[axis] - self.shift[axis]
        places = np.floor(middles * (length / input_length)).astype(np.int64)
        return np.where((places >= 0) & (places < length), places, -1)
