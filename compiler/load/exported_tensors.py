"""The tensors of an exported program: raw bytes in an archive, with sizes and strides in a table beside them."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from lvc.compiler.errors import CompileError
from lvc.compiler.load.archive import check_archive

_LARGEST_TEXT = 512 << 20
_NO_MODEL = "it holds no exported program"

DTYPES: dict[int, torch.dtype] = {
    1: torch.uint8,
    2: torch.int8,
    3: torch.int16,
    4: torch.int32,
    5: torch.int64,
    6: torch.float16,
    7: torch.float32,
    8: torch.float64,
    12: torch.bool,
    13: torch.bfloat16,
}
"""Element types by their numbers in the format; complex, unsigned wide and 8-bit floating-point ones are left out."""


class TensorReader:
    """An open archive. Tensors that share bytes in it share memory here, as they did when they were written."""

    def __init__(self, path: Path) -> None:
        self.archive = check_archive(path)
        models = [name for name in self.archive.namelist() if re.fullmatch(r"[^/]+/models/[^/]+\.json", name)]
        if len(models) != 1:
            why = _NO_MODEL if not models else f"it holds {len(models)} programs, and lvc takes one"
            raise CompileError("the file is not an exported program", why=why)
        self.model = models[0]
        self.root = self.model.split("/")[0]
        self.name = self.model.split("/")[-1].removesuffix(".json")
        if self._text("byteorder", default=b"little").strip() != b"little":
            raise CompileError("the file is of a big-endian machine")
        self.storages: dict[str, torch.Tensor] = {}
        self.tensors: dict[str, torch.Tensor] = {}

    def __enter__(self) -> TensorReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.archive.close()

    def graph_text(self) -> bytes:
        """The program's graph, as JSON."""
        return self._text(f"models/{self.name}.json")

    def weight(self, name: str) -> torch.Tensor:
        return self._find(name, "weights", f"{self.name}_weights_config.json")

    def constant(self, name: str) -> torch.Tensor:
        return self._find(name, "constants", f"{self.name}_constants_config.json")

    def _find(self, name: str, folder: str, table: str) -> torch.Tensor:
        if not self.has_table(folder, table):
            return self._from_saved(name, folder)
        key = f"{folder}/{name}"
        if key not in self.tensors:
            entries = self._table(f"data/{folder}/{table}")
            self.tensors.update({f"{folder}/{k}": self._tensor(k, folder, entry) for k, entry in entries.items()})
        return self.tensors[key]

    def has_table(self, folder: str, table: str) -> bool:
        return f"{self.root}/data/{folder}/{table}" in self.archive.NameToInfo

    def _table(self, entry: str) -> dict[str, Any]:
        table: dict[str, Any] = json.loads(self._text(entry))["config"]
        return table

    def _tensor(self, name: str, folder: str, entry: dict[str, Any]) -> torch.Tensor:
        if entry["use_pickle"] or entry["tensor_meta"] is None:
            raise CompileError(
                "the file is refused",
                why=f"'{name}' is stored as a pickle; reading that would run code from the file",
                help="export the model with plain tensors as weights",
            )
        meta = entry["tensor_meta"]
        flat = self._storage(f"data/{folder}/{entry['path_name']}", DTYPES[meta["dtype"]])
        sizes, strides = sizes_of(meta["sizes"]), sizes_of(meta["strides"])
        if min(sizes, default=1) == 0:
            return torch.empty(sizes, dtype=flat.dtype)
        return torch.as_strided(flat, sizes, strides, *sizes_of([meta["storage_offset"]]))

    def _storage(self, entry: str, dtype: torch.dtype) -> torch.Tensor:
        if entry not in self.storages:
            content = bytearray(self.archive.read(f"{self.root}/{entry}"))
            self.storages[entry] = torch.frombuffer(content, dtype=torch.uint8) if content else torch.empty(0)
        return self.storages[entry].view(dtype)

    def _from_saved(self, name: str, folder: str) -> torch.Tensor:
        """PyTorch 2.8 and before kept all tensors of a kind in one file of `torch.save`, read without running it."""
        key = f"{folder}/{name}"
        if key not in self.tensors:
            content = io.BytesIO(self.archive.read(f"{self.root}/data/{folder}/{self.name}.pt"))
            try:
                saved = torch.load(content, map_location="cpu", weights_only=True)
            except Exception as error:
                why = "its tensors are stored as a pickle that asks for more than tensors"
                raise CompileError("the file is refused", why=why) from error
            self.tensors.update({f"{folder}/{k}": v for k, v in saved.items() if isinstance(v, torch.Tensor)})
        return self.tensors[key]

    def _text(self, entry: str, default: bytes | None = None) -> bytes:
        info = self.archive.NameToInfo.get(f"{self.root}/{entry}")
        if info is None and default is not None:
            return default
        if info is None or info.file_size > _LARGEST_TEXT:
            why = f"'{entry}' is missing" if info is None else f"'{entry}' is larger than {_LARGEST_TEXT >> 20} MiB"
            raise CompileError("the file is damaged", why=why)
        return self.archive.read(info)


def sizes_of(items: list[dict[str, Any]]) -> list[int]:
    """Read sizes that must be known numbers."""
    if any(not isinstance(item.get("as_int"), int) for item in items):
        raise CompileError(
            "the program has symbolic sizes",
            why="lvc compiles for fixed shapes",
            help="export the model again without dynamic_shapes",
        )
    return [item["as_int"] for item in items]
