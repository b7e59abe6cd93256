"""Checks the zip archives that PyTorch writes before anything in them is read."""

from __future__ import annotations

import pickletools
import zipfile
from pathlib import Path

from lvc.compiler.errors import CompileError

_LARGEST_PICKLE = 64 << 20
_PLAIN = ("torch._utils.", "torch.storage.", "collections.OrderedDict", "torch.Float", "torch.Long", "torch.Half")
_STRINGS = ("SHORT_BINUNICODE", "BINUNICODE", "UNICODE", "SHORT_BINSTRING")


def check_archive(path: Path) -> zipfile.ZipFile:
    """Open an archive whose entries lie in it as they are, so that none can be larger than the file."""
    archive = zipfile.ZipFile(path)
    if is_script(archive):
        archive.close()
        raise CompileError(
            "the file is a whole network in TorchScript, not weights",
            where=str(path),
            help=f"compile it by itself: lvc compile {path} --trust --shape ..., if you know who made it",
        )
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
        archive.close()
        raise CompileError(
            "the file is refused", where=str(path), why="its entries are compressed, as PyTorch's never are"
        )
    if sum(entry.file_size for entry in archive.infolist()) > path.stat().st_size:
        archive.close()
        raise CompileError("the file is damaged", where=str(path), why="its entries are larger than the file")
    return archive


def is_script(archive: zipfile.ZipFile) -> bool:
    """Whether `torch.jit.save` wrote an archive: it holds the code of a network beside its tensors."""
    return any("/code/" in name for name in archive.namelist())


def is_script_file(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return is_script(archive)


def asked_by_pickle(path: Path) -> str:
    """The first class or function outside of PyTorch's tensors that a pickle names, found without running it."""
    try:
        return next(name for name in _names(_pickle_in(path)) if not name.startswith(_PLAIN))
    except (StopIteration, ValueError, OSError, zipfile.BadZipFile, IndexError, KeyError):
        return ""


def _pickle_in(path: Path) -> bytes:
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            return file.read(_LARGEST_PICKLE)
    with check_archive(path) as archive:
        name = next(entry for entry in archive.namelist() if entry.endswith("data.pkl"))
        with archive.open(name) as file:
            return file.read(_LARGEST_PICKLE)


def _names(content: bytes) -> list[str]:
    names, strings = [], ["", ""]
    for opcode, argument, _ in pickletools.genops(content):
        if opcode.name == "GLOBAL":
            names.append(str(argument).replace(" ", "."))
        elif opcode.name == "STACK_GLOBAL":
            names.append(".".join(strings[-2:]))
        elif opcode.name in _STRINGS:
            strings.append(str(argument))
    return names
