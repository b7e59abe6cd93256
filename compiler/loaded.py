"""An artefact in use. What it is made with stays away: running one needs NumPy and its backend's runtime."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lvc.compiler import container, dlpack
from lvc.compiler.artefact import Artefact
from lvc.compiler.backend import Executable, OnDevice
from lvc.compiler.device_array import DeviceArray
from lvc.compiler.errors import UsageError
from lvc.compiler.ir.counts import cut, visible
from lvc.compiler.ir.signature import Value, signature_of
from lvc.compiler.ir.spec import TensorSpec
from lvc.compiler.pipeline import catalogue
from lvc.compiler.serving import Batches
from lvc.compiler.threads import checked_threads

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class Loaded:
    """An artefact that can be called: arrays in, one array out (or a tuple, if the model has several outputs).

    One that was built for several numbers of images takes any number, in runs of these, see `lvc.compiler.serving`.
    Arrays are those of NumPy, or of the host by ``__dlpack__`` (PyTorch, JAX), read where they lie. A model on a GPU
    takes arrays that lie there too, by ``__cuda_array_interface__`` or ``__dlpack__``. Outputs are new
    arrays of the host, or those given as ``out``, one for each, which may lie on the GPU too and are returned.

    Calls are safe from several threads.
    """

    artefact: Artefact
    executable: Executable

    @property
    def inputs(self) -> tuple[Value, ...]:
        return self.artefact.inputs

    @property
    def outputs(self) -> tuple[Value, ...]:
        """What a call returns. One whose length depends on the data has its largest length here."""
        return visible(self.artefact.outputs, self.artefact.counts)

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        """The numbers of images for which it was built, if it takes any number of its first signature's; else none."""
        first = [value.spec for value in self.inputs]
        return next((batches.sizes for batches in self._batches if batches.images(first)), ())

    def __call__(self, *inputs: Any, out: Any = None) -> Any:
        arrays: list[Any] = [_readable(array) for array in inputs]
        given = [_spec_of(array) for array in arrays]
        is_there = any(isinstance(array, DeviceArray) for array in arrays)
        if is_there and not isinstance(self.executable, OnDevice):
            raise UsageError("an input lies on a GPU, and the model runs elsewhere", help="copy it to the host")
        if out is not None:
            return self._write(arrays, given, out)
        batches = next((batches for batches in self._batches if batches.images(given)), None)
        if batches and not is_there:
            outputs = batches.run(self.executable, arrays)
        else:
            signature_of(self.artefact.signatures, given)
            outputs = self.executable(*arrays)
        outputs = cut(self.artefact.outputs, self.artefact.counts, outputs)
        return outputs[0] if len(outputs) == 1 else outputs

    def _write(self, arrays: list[Any], given: list[TensorSpec], out: Any) -> Any:
        """Run the model, and write its outputs into arrays."""
        targets = list(out) if isinstance(out, list | tuple) else [out]
        wanted = signature_of(self.artefact.signatures, given).outputs
        if self.artefact.counts:
            raise UsageError("'out' is not for lists whose length depends on the data", help="leave it out")
        if len(targets) != len(wanted):
            raise UsageError(f"the model gives {len(wanted)} output(s), 'out' has {len(targets)}")
        places: list[Any] = [DeviceArray.of(target) or target for target in targets]
        for value, place in zip(wanted, places, strict=True):
            _check_target(value, place)
        if isinstance(self.executable, OnDevice):
            self.executable.write(arrays, places)
        elif any(isinstance(place, DeviceArray) for place in places):
            raise UsageError("'out' lies on a GPU, and the model runs elsewhere", help="give an array of the host")
        else:
            for place, made in zip(places, self.executable(*arrays), strict=True):
                place[...] = made
        return out

    @cached_property
    def _batches(self) -> list[Batches]:
        return Batches.of(self.artefact.signatures)

    def prepare(self, picture: Image | np.ndarray) -> np.ndarray:
        """Make the input, of batch 1, of a picture: ``uint8[H,W,3]``, ``uint8[H,W]`` or Pillow's, as the file says.

        It is the same to the bit with Pillow and, more slowly, without. `UsageError` if the file does not say how.
        """
        from lvc.compiler.data.images import prepare
        from lvc.compiler.data.preprocess import Preprocess
        from lvc.compiler.data.samples import Fit, missing_preprocess

        text, fits = self.artefact.metadata.get("preprocessing"), Fit.of(self.inputs)
        if not text:
            raise missing_preprocess(f"the model '{self.artefact.name}'")
        return fits(prepare(picture, "the picture", Preprocess.parse(str(text)), fits), "the picture")


def load(artefact: Artefact | str | Path, threads: int | None = None, *, emulate: bool = False) -> Loaded:
    """Make an artefact callable; loading native code runs it, so load only artefacts whose maker you trust.

    ``threads`` is how many threads one call may use (default: as many as this process has cores). With ``emulate`` code
    that this machine cannot run is run by emulation of its processor: slowly, and right to the last bit.
    """
    threads = checked_threads(threads)
    if not isinstance(artefact, Artefact):
        artefact = container.read(Path(artefact))
    backend = catalogue.BACKENDS.get(artefact.backend)
    return Loaded(artefact, (backend.emulate if emulate else backend.load)(artefact, threads))


def _readable(array: Any) -> Any:
    """An input where it lies, on a GPU or as an array of NumPy; what is neither as it is."""
    if isinstance(array, np.ndarray):
        return array
    placed: Any = DeviceArray.of(array)
    if placed is None:
        placed = dlpack.on_host(array)
    return array if placed is None else placed


def _spec_of(array: np.ndarray | DeviceArray) -> TensorSpec:
    if isinstance(array, DeviceArray):
        return TensorSpec.of_dtype(array.shape, array.dtype)
    if not isinstance(array, np.ndarray):
        raise UsageError("an input is not an array of numbers", why=f"it is a {type(array).__name__}")
    if hasattr(array, "mask"):
        raise UsageError("an input is a masked array", why="what it masks would be computed with", help="fill it")
    return TensorSpec.of_array(array)


def _check_target(value: Value, place: Any) -> None:
    """`UsageError` unless an output can be written to a place."""
    found = _spec_of(place)
    if found != value.spec:
        raise UsageError(f"'out' for the output '{value.name}' must be {value.spec}, not {found}")
    if isinstance(place, np.ndarray) and not (place.flags.c_contiguous and place.flags.writeable):
        raise UsageError(f"'out' for the output '{value.name}' is read-only or has gaps")
