"""From the text that names a data set to the data set."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lvc.compiler.data.coco import CocoFiles
from lvc.compiler.data.preprocess import Preprocess
from lvc.compiler.data.samples import Fit, Samples
from lvc.compiler.data.synthesised import WORD, Synthesis, is_synthesised
from lvc.compiler.errors import UsageError

if TYPE_CHECKING:
    from lvc.compiler.ir.signature import Value

FORMS = (
    "a folder or .zip of images, pictures with COCO's annotations as FOLDER:FILE.json, a .npz file with x and y, "
    "package.module:callable, or file.py:callable"
)
_CALLABLE = re.compile(r"(?:.+\.py|[\w.]+):\w+")


def open_data(
    text: str, preprocess: Preprocess | None, inputs: tuple[Value, ...], labels: Sequence[str] = ()
) -> Samples:
    """Open a data set for a model with those inputs: a folder, ``.zip``, ``.npz``, COCO's annotations, or a
    callable.

    Iterating yields ``(input of batch 1, class or None)``, one sample in memory at a time. ``labels`` are the names of
    the model's classes: class folders of these names take their places. `UsageError` for anything that cannot be fed.
    """
    fits, path = Fit.of(inputs), Path(text)
    if path.is_dir():
        from lvc.compiler.data.image_files import open_folder

        return open_folder(path, preprocess, fits, labels)
    if path.suffix.lower() == ".zip" and path.is_file():
        from lvc.compiler.data.image_files import open_zip

        return open_zip(path, preprocess, fits, labels)
    if path.suffix.lower() == ".npz" and path.is_file():
        from lvc.compiler.data.arrays import open_arrays

        return open_arrays(path, preprocess, fits)
    if named := CocoFiles.named(text):
        from lvc.compiler.data.image_files import open_coco

        return open_coco(named, preprocess, fits)
    if _CALLABLE.fullmatch(text):
        from lvc.compiler.data.callables import open_callable

        return open_callable(text, preprocess, fits)
    if is_synthesised(text):
        raise UsageError(
            f"{WORD} images are for passes alone",
            why="they are made from the model, and what is measured on them is not what real images would show",
            help="give real ones here",
        )
    raise _unknown(text)


def check_data(text: str) -> None:
    """Raise `UsageError` for a text that names no data set, before any work is done."""
    if is_synthesised(text):
        Synthesis.parse(text)
    elif named := CocoFiles.named(text):
        named.check()
    elif not Path(text).exists() and not _CALLABLE.fullmatch(text):
        raise _unknown(text)


def _unknown(text: str) -> UsageError:
    what = f"'{text}' is not a data set" if Path(text).exists() else f"there is no data set '{text}'"
    return UsageError(what, help=f"name {FORMS}")
