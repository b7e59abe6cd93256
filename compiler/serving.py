"""Calls of a model that was built for several numbers of images: any other number is served by runs of these."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lvc.compiler.ir.signature import Signature
from lvc.compiler.ir.spec import TensorSpec

if TYPE_CHECKING:  # 'lvc inspect' tells of them without NumPy
    import numpy as np

    Run = Callable[..., tuple[np.ndarray, ...]]


@dataclass(frozen=True)
class Batches:
    """Variants of a model that differ in how many images they take: ``signature`` is that of the smallest, ``sizes``
    are those of all in ascending order.

    The images of every input and output lie one behind the other along its first dimension, and none depends on
    another: such variants are made by `Model.with_batch` alone, which proves it.
    """

    signature: Signature
    sizes: tuple[int, ...]

    @classmethod
    def of(cls, signatures: Sequence[Signature]) -> list[Batches]:
        """Those of a model: variants whose inputs are alike but for the number of images, where there are several."""
        groups: dict[tuple[TensorSpec, ...], dict[int, Signature]] = {}
        for one in signatures:
            images = {value.spec.shape[:1] for value in one.inputs}
            ends = [value.spec.shape[:1] for value in one.outputs]
            if len(images) == 1 and () not in {*images, *ends}:
                alike = tuple(_for(1, value.spec) for value in one.inputs)
                groups.setdefault(alike, {}).setdefault(images.pop()[0], one)
        return [cls(found[min(found)], tuple(sorted(found))) for found in groups.values() if len(found) > 1]

    def images(self, given: Sequence[TensorSpec]) -> int:
        """How many images there are in values of these types and shapes; 0 if they are no inputs of these variants."""
        count = given[0].shape[0] if given and given[0].shape else 0
        return count if [_for(count, value.spec) for value in self.signature.inputs] == list(given) else 0

    def pieces(self, images: int) -> list[int]:
        """The sizes of the runs for so many images: the largest as often as it is filled, and for those that are left
        the runs that compute the fewest images, and of these the fewest runs."""
        often, left = divmod(images, self.sizes[-1])
        best: list[tuple[int, list[int]]] = [(0, [])]
        for count in range(1, left + 1):
            before = [(size, best[max(0, count - size)]) for size in self.sizes]
            ways = [(size + computed, [size, *runs]) for size, (computed, runs) in before]
            best.append(min(ways, key=lambda way: (way[0], len(way[1]))))
        return [self.sizes[-1]] * often + sorted(best[left][1], reverse=True)

    def run(self, run: Run, arrays: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
        """The outputs of all images; behind the last one zeros fill the run that it is in."""
        import numpy as np

        images, done = arrays[0].shape[0], 0
        parts: list[tuple[np.ndarray, ...]] = []
        for size in self.pieces(images):
            some = min(size, images - done)
            outputs = run(*(_filled(array[done : done + some], size) for array in arrays))
            parts.append(tuple(array[: some * array.shape[0] // size] for array in outputs))
            done += some
        return tuple(np.concatenate(each) if len(each) > 1 else each[0] for each in zip(*parts, strict=True))


def _for(images: int, spec: TensorSpec) -> TensorSpec:
    return TensorSpec((images, *spec.shape[1:]), spec.element)


def _filled(array: np.ndarray, size: int) -> np.ndarray:
    import numpy as np

    missing = size - array.shape[0]
    return np.concatenate([array, np.zeros((missing, *array.shape[1:]), array.dtype)]) if missing else array
