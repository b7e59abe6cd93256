"""Reads state dicts without running anything in them, and loads them into a module.

``torch.load`` runs with ``weights_only=True``: its unpickler makes tensors and plain containers, and refuses any other
class or function. That is the whole protection, so there is no option to switch it off.
"""

from __future__ import annotations

import pickle
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lvc.compiler.errors import CompileError, LvcError, UsageError
from lvc.compiler.load.archive import asked_by_pickle, check_archive

_WRAPPERS = ("state_dict", "model_state_dict", "model_state", "model", "params", "params_ema", "ema", "net", "weights")
_PREFIXES = ("module.", "_orig_mod.", "model.", "network.", "net.")
_SHOWN = 4
_LARGEST_NPZ = 16 << 30


def load_weights(module: torch.nn.Module, path: Path) -> None:
    """Load a file's state dict into a module; `CompileError` reports all keys that do not fit at once."""
    wanted = module.state_dict()
    found = match_prefix(read_state_dict(path), wanted)
    problems = [
        *_report("missing", [key for key in wanted if key not in found and not key.endswith("num_batches_tracked")]),
        *_report("not in the model", [key for key in found if key not in wanted]),
        *_report(
            "of another shape",
            [
                f"{key} ({_shape(found[key])} for {_shape(wanted[key])})"
                for key in wanted
                if key in found and found[key].shape != wanted[key].shape
            ],
        ),
    ]
    if problems:
        raise CompileError(
            "the weights do not fit the model", where=str(path), why="\n".join(problems),
            help="check the factory and its arguments (--arg)",
        )  # fmt: skip
    module.load_state_dict(found, strict=False)


def read_state_dict(path: Path) -> dict[str, torch.Tensor]:
    """Read the tensors of a ``.safetensors`` or ``.npz`` file, or of one that `torch.save` wrote."""
    if not path.is_file():
        raise UsageError(f"there is no file of weights '{path}'")
    readers = {".safetensors": _read_safetensors, ".npz": _read_npz}
    return unwrap(readers.get(path.suffix.lower(), _read_saved)(path), path)


def unwrap(content: Any, path: Path) -> dict[str, torch.Tensor]:
    """Find the state dict in what a training script saved around it."""
    while isinstance(content, Mapping):
        tensors = {str(key): value for key, value in content.items() if isinstance(value, torch.Tensor)}
        inner = next((content[key] for key in _WRAPPERS if isinstance(content.get(key), Mapping)), None)
        if inner is None:
            if tensors:
                return tensors
            break
        content = inner
    raise CompileError(
        "the file holds no state dict",
        where=str(path),
        why=f"it holds {_summary(content)}",
        help="save what module.state_dict() returns",
    )


def match_prefix(found: dict[str, torch.Tensor], wanted: Mapping[str, object]) -> dict[str, torch.Tensor]:
    """Take away the prefixes that wrappers put before every key, where that makes more keys fit."""

    def fits(keys: Mapping[str, object]) -> int:
        return sum(key in wanted for key in keys)

    for prefix in _PREFIXES * 2:
        if found and all(key.startswith(prefix) for key in found):
            shorter = {key.removeprefix(prefix): value for key, value in found.items()}
            found = shorter if fits(shorter) >= fits(found) else found
    return found


def _read_saved(path: Path) -> Any:
    try:
        if zipfile.is_zipfile(path):
            check_archive(path).close()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except LvcError:
        raise
    except Exception as error:  # a damaged pickle can make the reader raise anything
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> CompileError:
    """Say what a pickle asked for that is no tensor, or else what the reader stumbled over."""
    asked = asked_by_pickle(path)
    if asked and isinstance(error, pickle.UnpicklingError):
        return CompileError(
            "the file of weights is refused",
            where=str(path),
            why=f"it asks for '{asked}', which is no tensor; reading that would run code from the file",
            help="save a plain state dict: torch.save(module.state_dict(), file)",
        )
    return CompileError("the file of weights cannot be read", where=str(path), why="it is not what torch.save writes")


def _read_safetensors(path: Path) -> Any:
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except Exception as error:  # the package raises errors of its own
        raise CompileError("the file of weights cannot be read", where=str(path), why=str(error)) from error


def _read_npz(path: Path) -> Any:
    if not zipfile.is_zipfile(path):
        raise CompileError("the file of weights cannot be read", where=str(path), why="it is no .npz archive")
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        if size > _LARGEST_NPZ:
            raise ValueError(f"it unpacks to {size / 2**30:.1f} GiB, and lvc reads at most {_LARGEST_NPZ >> 30}")
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return {name: torch.from_numpy(np.array(arrays[name])) for name in arrays.files}
    except Exception as error:  # a damaged archive can make the reader raise anything
        raise CompileError("the file of weights cannot be read", where=str(path), why=str(error)) from error


def _report(label: str, keys: list[str]) -> list[str]:
    if not keys:
        return []
    more = f", and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
    return [f"{len(keys)} {label}: {', '.join(keys[:_SHOWN])}{more}"]


def _shape(tensor: torch.Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "scalar"


def _summary(content: object) -> str:
    if isinstance(content, Mapping):
        keys = ", ".join(str(key) for key in list(content)[:_SHOWN])
        return f"a dict with the keys {keys}" if keys else "an empty dict"
    return f"a {type(content).__name__}"
