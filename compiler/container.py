"""The file ``model.lvc``: a plain zip of a manifest and the backend's files.

``manifest.json`` holds the format's version, names, target, signature, metadata, and size and SHA-256 of every other
entry. What gets smaller by a tenth is deflated: code and plans, to a third and less, and weights of 8 bits, whose
values are not all as frequent, to about three quarters; weights in float32 are stored, and what is stored begins at a
multiple of `_ALIGNMENT`, so that it can be used where it lies. What is read is at most `_MOST_EXPANSION` times the
file; nothing is a pickle and reading runs no code. Equal artefacts make equal bytes.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import mmap
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from lvc.compiler.artefact import Artefact
from lvc.compiler.errors import CompileError, UsageError
from lvc.compiler.files import Content, write_atomically
from lvc.compiler.ir.signature import Signature, Value
from lvc.compiler.ir.spec import TensorSpec

FORMAT = 1
_MAGIC = b"PK\x03\x04"
_ENCRYPTED = 1
_MANIFEST = "manifest.json"
_MOST_ENTRIES = 64
_MOST_MANIFEST_BYTES = 64 << 20
_MOST_EXPANSION = 64
_LEVEL = 6
_GLANCE = 1 << 16
_PART = 1 << 20  # bytes that are read at once; what is larger gets memory of its own
_WORTH = 0.9
_ALIGNMENT = 64
_LOCAL_HEADER_BYTES = 30
_PADDING = 0xD935  # the field of a zip's entry that Android's zipalign pads with


def is_artefact(path: Path) -> bool:
    """Whether a path names an existing ``.lvc`` file; says nothing of its content."""
    return path.suffix == ".lvc" and path.is_file()


def pack(artefact: Artefact) -> bytes:
    """Return the bytes of an artefact's file."""
    manifest = {
        "format": FORMAT,
        "name": artefact.name,
        "backend": artefact.backend,
        "target": artefact.target,
        **Signature(artefact.inputs, artefact.outputs).to_json(),
        **({"variants": [signature.to_json() for signature in artefact.variants]} if artefact.variants else {}),
        "metadata": dict(artefact.metadata),
        "files": {
            name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            for name, content in sorted(artefact.files.items())
        },
    }
    text = json.dumps(manifest, indent=1, sort_keys=True).encode()
    entries = {_MANIFEST: text} | dict(sorted(artefact.files.items()))
    packed = _zipped(entries, {name: _method(content) for name, content in entries.items()})
    if sum(map(len, entries.values())) > _MOST_EXPANSION * len(packed):  # so empty that no reader would take it
        packed = _zipped(entries, dict.fromkeys(entries, zipfile.ZIP_STORED))
    return packed


def _zipped(entries: Mapping[str, Content], methods: Mapping[str, int]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in entries.items():
            entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            if methods[name] == zipfile.ZIP_STORED:
                entry.extra = _padding(out.tell() + _LOCAL_HEADER_BYTES + len(name.encode()))
            archive.writestr(entry, content, methods[name], _LEVEL)
    return out.getvalue()


def _padding(position: int) -> bytes:
    """A field of a zip's entry behind which a position is a multiple of `_ALIGNMENT`."""
    header = struct.Struct("<HH")
    return header.pack(_PADDING, size := -(position + header.size) % _ALIGNMENT) + bytes(size)


def _method(content: Content) -> int:
    """Deflate what is worth it, as a glance at its middle says."""
    glance = content[max(0, len(content) - _GLANCE) // 2 :][:_GLANCE]
    is_worth = len(zlib.compress(glance, _LEVEL)) < _WORTH * len(glance)
    return zipfile.ZIP_DEFLATED if is_worth else zipfile.ZIP_STORED


def write(artefact: Artefact, path: Path) -> None:
    """Write an artefact's file, whole or not at all. A backend whose one file stands for itself writes just that."""
    write_atomically(path, _content(artefact))


def size(artefact: Artefact) -> int:
    """The bytes that an artefact's file would have."""
    return len(_content(artefact))


def _content(artefact: Artefact) -> Content:
    if artefact.suffix == ".lvc":
        return pack(artefact)
    (content,) = artefact.files.values()
    return content


def read(path: Path) -> Artefact:
    """Read an artefact's file; anything wrong with it raises `CompileError`, a missing file `UsageError`."""
    try:
        if path.exists() and not path.is_file():  # a pipe would wait for who writes into it
            raise UsageError(f"cannot read '{path}'", why="it is no file")
        with path.open("rb") as file:
            return _read_file(file, path)
    except OSError as error:
        raise UsageError(f"cannot read '{path}'", why=str(error.strerror or error)) from error
    except ValueError as error:  # a path that can be none
        raise UsageError(f"cannot read {str(path)!r}", why=str(error)) from error


def _read_file(file: IO[bytes], path: Path) -> Artefact:
    if file.read(len(_MAGIC)) != _MAGIC:
        raise _damaged(path, "it does not start as an artefact does")
    try:
        with zipfile.ZipFile(file) as archive:
            return _read_archive(archive, path, file.seek(0, io.SEEK_END))
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, ValueError) as error:
        raise _damaged(path, str(error)) from error
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        raise _damaged(path, "it says that an entry lies before its begin") from error


def _read_archive(archive: zipfile.ZipFile, path: Path, size: int) -> Artefact:
    entries = {info.filename: info for info in archive.infolist()}
    if len(entries) > _MOST_ENTRIES or len(entries) != len(archive.infolist()):
        raise _damaged(path, "it has too many entries, or two of one name")
    if any(info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for info in entries.values()):
        raise _damaged(path, "an entry is compressed in a way that is not known")
    if any(info.flag_bits & _ENCRYPTED for info in entries.values()):
        raise _damaged(path, "an entry is encrypted")
    if sum(info.file_size for info in entries.values()) > _MOST_EXPANSION * size:
        raise _damaged(path, f"its entries are more than {_MOST_EXPANSION} times as large as the file")
    if _MANIFEST not in entries or entries[_MANIFEST].file_size > _MOST_MANIFEST_BYTES:
        raise _damaged(path, "its manifest is missing or too large")
    try:
        manifest = json.loads(archive.read(_MANIFEST))
        version = manifest["format"]
        if version != FORMAT:
            raise CompileError(
                f"'{path}' has format {version}, and this lvc reads format {FORMAT}",
                help="compile the model again with this version",
            )
        files = {name: _read_entry(archive, path, name, known) for name, known in manifest["files"].items()}
        return Artefact(
            name=str(manifest["name"]),
            backend=str(manifest["backend"]),
            target=str(manifest["target"]),
            inputs=_values(manifest["inputs"]),
            outputs=_values(manifest["outputs"]),
            files=files,
            metadata=dict(manifest["metadata"]),
            variants=tuple(_variant(item, manifest) for item in manifest.get("variants", [])),
        )
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError, UsageError) as error:
        raise _damaged(path, f"its manifest is not as it should be: {error}") from error


def _read_entry(archive: zipfile.ZipFile, path: Path, name: str, known: Mapping[str, Any]) -> Content:
    size = archive.getinfo(name).file_size
    content = archive.read(name) if size <= _PART else _read_large(archive, name, size)
    if len(content) != known["bytes"] or hashlib.sha256(content).hexdigest() != known["sha256"]:
        raise _damaged(path, f"the digest of '{name}' is not the one in the manifest")
    return content


def _read_large(archive: zipfile.ZipFile, name: str, size: int) -> memoryview:
    """Read an entry part by part into whole pages, large ones where the system has them."""
    pages = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)  # shared memory gets no large pages
    if hasattr(mmap, "MADV_HUGEPAGE"):
        pages.madvise(mmap.MADV_HUGEPAGE)
    with archive.open(name) as entry:
        while part := entry.read(_PART):
            pages.write(part)
    return memoryview(pages)[: pages.tell()].toreadonly()


def _variant(item: Mapping[str, Any], manifest: Mapping[str, Any]) -> Signature:
    """A signature beside the first, which has the same names; `ValueError` for any other."""
    made = Signature(_values(item["inputs"]), _values(item["outputs"]))
    for side, values in (("inputs", made.inputs), ("outputs", made.outputs)):
        if [value.name for value in values] != [name for name, _ in manifest[side]]:
            raise ValueError(f"a variant has other {side} than the model")
    return made


def _values(pairs: list[list[str]]) -> tuple[Value, ...]:
    return tuple(Value(_written(str(name)), TensorSpec.parse(spec)) for name, spec in pairs)


def _written(name: str) -> str:
    """A name, which can be written: JSON can spell characters that are none; `ValueError` for these."""
    name.encode()
    return name


def _damaged(path: Path, why: str) -> CompileError:
    return CompileError(f"'{path}' is not a sound lvc artefact", why=why, help="compile the model again")
