"""The names of the classes: from a file, or well-known ones by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lvc.compiler.data.images import read_bounded
from lvc.compiler.errors import UsageError
from lvc.compiler.text import printable

MAX_BYTES = 16 << 20
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def read_labels(text: str | Path) -> tuple[str, ...]:
    """Return class names in order: those of `BUILT_IN`, or of a file.

    A ``.json`` file holds a list of names, or an object from index to name (or to a list that ends with the name); any
    other file holds one name a line.
    """
    if text in BUILT_IN:
        return BUILT_IN[str(text)]()
    path = Path(text)
    if not path.is_file():
        raise UsageError(f"there are no labels '{text}'", help=f"name a text or JSON file, or {', '.join(BUILT_IN)}")
    try:
        content = read_bounded(path, MAX_BYTES).decode()
        names = _from_json(json.loads(content)) if path.suffix.lower() == ".json" else _from_lines(content)
    except (ValueError, TypeError, RecursionError) as error:
        raise UsageError(f"'{path}' is not a list of labels", why=str(error)) from error
    if not names:
        raise UsageError(f"'{path}' is not a list of labels", why="it has none")
    return tuple(printable(name.strip()) for name in names)


def _from_lines(content: str) -> list[str]:
    lines = content.splitlines()
    while lines and not lines[-1].strip():
        lines.pop()
    return lines


def _from_json(data: Any) -> list[str]:
    if isinstance(data, dict):
        indexes = {int(key): value for key, value in data.items()}
        if sorted(indexes) != list(range(len(data))):
            raise ValueError("its indexes are not 0, 1, 2, ...")
        data = [indexes[place] for place in range(len(data))]
    if not isinstance(data, list):
        raise ValueError("it is neither a list nor an object from index to name")
    names = [item[-1] if isinstance(item, list) and item else item for item in data]
    if not all(isinstance(name, str) for name in names):
        raise ValueError("a name is not text")
    return names


def _imagenet() -> tuple[str, ...]:
    from torchvision.models._meta import _IMAGENET_CATEGORIES

    return tuple(_IMAGENET_CATEGORIES)


def _coco() -> tuple[str, ...]:
    return tuple(name for name in _coco91() if name not in ("__background__", "N/A"))


def _coco91() -> tuple[str, ...]:
    from torchvision.models._meta import _COCO_CATEGORIES

    return tuple(_COCO_CATEGORIES)


BUILT_IN: dict[str, Callable[[], tuple[str, ...]]] = {
    "imagenet": _imagenet,
    "cifar10": lambda: CIFAR10,
    "coco": _coco,
    "coco91": _coco91,
}
"""Well-known names. ``coco`` are the 80 classes in their order, as YOLO numbers them, ``coco91`` those at the places of
their ids in COCO's files, as torchvision numbers them."""
