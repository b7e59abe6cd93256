"""Digests of what a stage depends on: models, data sets, files. Equal contents have equal ones, wherever they lie."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Iterable, Iterator
from dataclasses import fields, replace
from pathlib import Path

from lvc.compiler.errors import LvcError, UsageError
from lvc.compiler.ir.model import Model
from lvc.compiler.pipeline.passes import Pass

_PART = 1 << 20


def of_model(model: Model) -> str:
    """The digest of a graph with its weights, preprocessing and labels; not of where it came from."""
    from lvc.compiler.ir.serialise import to_files

    digest = hashlib.sha256()
    for name, content in sorted(to_files(replace(model, source="")).items()):
        digest.update(f"{name} {len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()


def of_data(place: str, *settings: object) -> str:
    """The digest of a data set: of every byte of a file or folder, or of the file that defines a callable.

    ``settings`` are what else its samples depend on. What a callable reads is not seen.
    """
    digest = hashlib.sha256(repr(settings).encode())
    path = Path(place)
    if not path.exists():
        digest.update(place.encode())
        path = _defining(place.rpartition(":")[0]) or path
    for name, file in _files(path):
        digest.update(f"{name}\n".encode())
        _update(digest, file)
    return digest.hexdigest()


def of_files(passes: Iterable[Pass], plugins: Iterable[str] = ()) -> str:
    """The digest of the files that options of passes name, and of the plug-ins that define passes; empty for none."""
    texts = [str(getattr(item, field.name)) for item in passes for field in fields(item)]
    named = [path for text in texts for path in (Path(text), Path(text.partition(":")[0])) if _is_file(path)]
    files = sorted({*named, *map(Path, plugins)})
    digest = hashlib.sha256()
    for file in files:
        _update(digest, file)
    return digest.hexdigest() if files else ""


def of_texts(*texts: str) -> str:
    """The digest of some texts."""
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()


def _files(path: Path) -> Iterator[tuple[str, Path]]:
    if path.is_dir():
        inside = sorted(file for file in path.rglob("*") if file.is_file())
        yield from ((file.relative_to(path).as_posix(), file) for file in inside)
    elif path.is_file():
        yield "", path


def _update(digest: hashlib._Hash, file: Path) -> None:
    try:
        with file.open("rb") as stream:
            while part := stream.read(_PART):
                digest.update(part)
    except OSError as error:
        raise UsageError(f"cannot read '{file}'", why=error.strerror or str(error)) from error


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a text that can be no path
        return False


def _defining(module: str) -> Path | None:
    """The file of a module, without running it; None if it is not found."""
    if module.endswith(".py"):
        return Path(module)
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError, AttributeError, LvcError):
        return None
    return Path(spec.origin) if spec and spec.origin and _is_file(Path(spec.origin)) else None
