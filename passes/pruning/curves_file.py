"""The file that `lvc sensitivity` writes and `prune-channels{sensitivity=FILE}` reads."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from lvc.compiler.errors import UsageError
from lvc.passes.analysis.channel_groups import ChannelGroup
from lvc.passes.pruning.sensitivity import Curve

_MOST_BYTES = 16 << 20


def read_curves(path: Path, groups: Sequence[ChannelGroup]) -> dict[str, Curve]:
    """Read the curve of each group; `UsageError` for a file that is no such file, or is of another model."""
    if not path.is_file() or path.stat().st_size > _MOST_BYTES:
        raise UsageError(f"there is no file of curves '{path}'", help="'lvc sensitivity MODEL -o FILE' makes one")
    try:
        rows = json.loads(path.read_bytes())["rows"]
        points = [(str(r["group"]), int(r["channels"]), int(r["removed"]), float(r["error"])) for r in rows]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UsageError(f"'{path}' is not a file of curves", why=f"{type(error).__name__}: {error}") from error
    sizes = {name: size for name, size, _, _ in points}
    for group in groups:
        if sizes.get(group.name) not in (group.size, None):
            raise UsageError(
                f"'{path}' is of another model",
                why=f"'{group.name}' has {group.size} channels, not {sizes[group.name]}",
            )
    return {group.name: _curve(group.name, points) for group in groups if group.name in sizes}


def _curve(name: str, points: Sequence[tuple[str, int, int, float]]) -> Curve:
    found: Mapping[int, float] = {removed: error for group, _, removed, error in points if group == name}
    removed = sorted(found)
    return Curve(tuple(removed), tuple(found[count] for count in removed))
