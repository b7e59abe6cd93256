"""Data sets of image files, in a folder or a zip: one folder a class, or one flat folder."""

from __future__ import annotations

import os
import re
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from lvc.compiler.data.access import Access
from lvc.compiler.data.coco import CocoFiles, truth_at
from lvc.compiler.data.geometry import to_pixels
from lvc.compiler.data.images import MAX_FILE_BYTES, decode_image, is_image_name, prepare_file, read_bounded
from lvc.compiler.data.labelled import IMAGES, labels_beside, truth_of
from lvc.compiler.data.preprocess import Preprocess
from lvc.compiler.data.samples import Fit, Sample, Samples, missing_preprocess
from lvc.compiler.errors import UsageError

_FOLDER_NUMBER = re.compile(r"(\d{1,7})(?:[_ .-].*)?", re.ASCII)
_LABELLED_FILE = re.compile(r"(\d{4})_n\d{8}(?:_.*)?\.\w+", re.ASCII)


@dataclass(frozen=True)
class Files:
    """Named image files somewhere, read one at a time."""

    where: str
    names: Sequence[str]
    read: Callable[[str], bytes]


def open_folder(folder: Path, preprocess: Preprocess | None, fits: Fit, labels: Sequence[str]) -> Samples:
    """Open the images of a folder; see `_samples` for what makes a class. Where ``images`` lies in it beside ``labels``
    or ``masks``, only the former holds images, and what they show is known."""
    if kind := labels_beside(folder):
        return _with_truth(folder, kind, preprocess, fits)
    names = sorted(_walk(folder))
    files = Files(str(folder), names, lambda name: read_bounded(folder / name))
    return _samples(files, preprocess, fits, labels)


def _with_truth(folder: Path, kind: str, preprocess: Preprocess | None, fits: Fit) -> Samples:
    images = folder / IMAGES
    names = sorted(_walk(images))
    files = Files(str(images), names, lambda name: read_bounded(images / name))
    found = _samples(files, preprocess, fits, (), f"'{folder}' holds pictures with {kind}, not with classes")
    assert preprocess is not None
    made = preprocess
    return replace(found, truth=lambda place: truth_of(folder, kind, names[place], made))


def open_coco(named: CocoFiles, preprocess: Preprocess | None, fits: Fit) -> Samples:
    """Open the pictures that COCO's annotations name, in the order of their ids; what they show is known."""
    data = named.read()
    names = [picture.relative_to(named.folder).as_posix() for picture in data.pictures]
    files = Files(str(named.folder), names, lambda name: read_bounded(named.folder / name))
    found = _samples(files, preprocess, fits, (), f"'{named.annotations}' tells of boxes, not of classes of pictures")
    assert preprocess is not None
    made = preprocess
    return replace(found, truth=lambda place: truth_at(data, place, made))


def open_zip(path: Path, preprocess: Preprocess | None, fits: Fit, labels: Sequence[str]) -> Samples:
    """Open the images of a zip file, as `open_folder` does; nothing is unpacked to disk."""
    try:
        archive = zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile, NotImplementedError) as error:
        raise UsageError(f"cannot read '{path}'", why=str(error)) from error
    names = sorted(name for name in archive.namelist() if is_image_name(name) and not _is_hidden(name))
    files = Files(str(path), names, lambda name: _read_member(archive, name))
    return _samples(files, preprocess, fits, labels)


def _samples(
    files: Files, preprocess: Preprocess | None, fits: Fit, labels: Sequence[str], unlabelled: str = ""
) -> Samples:
    """Make a data set of image files.

    With folders, each is a class; without, a file named as in ``0207_n02099601_golden_retriever.webp`` has the class of
    its first number, and any other has none. Where images lie beside folders, or for another reason they are
    ``unlabelled``, none has a class.
    """
    if not files.names:
        raise UsageError(
            f"there are no images in '{files.where}'", help="name a folder or zip of .jpg, .png or .webp files"
        )
    if preprocess is None:
        raise missing_preprocess(files.where)
    inside = _without_common_folder(files.names)
    mixed = unlabelled or _mixture(inside.values())
    classes = {} if mixed else _classes(inside.values(), labels)

    def samples() -> Iterator[Sample]:
        for name, path in inside.items():
            where = f"{files.where}/{name}"
            label = None if mixed else _label(path, classes)
            yield where, prepare_file(files.read(name), where, preprocess, fits), label

    def by_place() -> Access:
        names, made = list(inside), preprocess

        def where(place: int) -> str:
            return f"{files.where}/{names[place]}"

        return Access(
            range(len(names)),
            lambda place: fits(prepare_file(files.read(names[place]), where(place), made, fits), where(place)),
            lambda place: None if mixed else _label(inside[names[place]], classes),
            lambda place: to_pixels(decode_image(files.read(names[place]), where(place)), made.channels),
            made,
            decodes=True,
        )

    names = tuple(sorted(classes, key=classes.__getitem__))
    return Samples(samples, lambda: len(inside), fits, names, mixed, by_place)


def _without_common_folder(names: Sequence[str]) -> dict[str, PurePosixPath]:
    """Map each name to its path, less the one folder that a zip made of a folder has around everything."""
    paths = {name: PurePosixPath(name) for name in names}
    while len({path.parts[0] for path in paths.values()}) == 1 and all(len(p.parts) > 2 for p in paths.values()):
        paths = {name: PurePosixPath(*path.parts[1:]) for name, path in paths.items()}
    return paths


def _mixture(paths: Iterable[PurePosixPath]) -> str:
    """Say how images lie beside folders of images, if they do."""
    folders = sorted({path.parts[0] for path in paths if len(path.parts) > 1})
    loose = sum(len(path.parts) == 1 for path in paths)
    return f"{loose} images lie beside the folders '{folders[0]}', ..." if loose and folders else ""


def _classes(paths: Iterable[PurePosixPath], labels: Sequence[str]) -> dict[str, int]:
    """Number the class folders; a flat folder has none.

    Folders named as the model's labels have the label's place, and ``17`` or ``17_pelican`` has 17, if that holds for
    all of them; otherwise the sorted names are numbered from 0.
    """
    folders = sorted({path.parts[0] for path in paths if len(path.parts) > 1})
    places = {label: place for place, label in enumerate(labels)}
    if all(folder in places for folder in folders):
        return {folder: places[folder] for folder in folders}
    numbers = [_FOLDER_NUMBER.fullmatch(folder) for folder in folders]
    if all(numbers):
        return {folder: int(number[1]) for folder, number in zip(folders, numbers, strict=True) if number}
    return {folder: place for place, folder in enumerate(folders)}


def _label(path: PurePosixPath, classes: dict[str, int]) -> int | None:
    if len(path.parts) > 1:
        return classes[path.parts[0]]
    named = _LABELLED_FILE.fullmatch(path.name)
    return int(named[1]) if named else None


def _walk(folder: Path) -> Iterator[str]:
    """Yield the images below a folder as relative paths with ``/``; hidden ones and linked folders are left out."""
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        inside = PurePosixPath(Path(place).relative_to(folder).as_posix())
        yield from (str(inside / name) for name in files if is_image_name(name) and not name.startswith("."))


def _is_hidden(name: str) -> bool:
    return any(part.startswith((".", "__MACOSX")) for part in PurePosixPath(name).parts)


def _read_member(archive: zipfile.ZipFile, name: str) -> bytes:
    where = f"{archive.filename}/{name}"
    try:
        with archive.open(name) as member:
            content = member.read(MAX_FILE_BYTES + 1)
    except (OSError, RuntimeError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise UsageError("the image cannot be read", where=where, why=str(error)) from error
    if len(content) > MAX_FILE_BYTES:
        raise UsageError("the image is too large", where=where, why=f"more than {MAX_FILE_BYTES} bytes")
    return content
