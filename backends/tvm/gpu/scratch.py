"""What launches of one step have in memory between them."""

from __future__ import annotations

from collections.abc import Sequence

ALIGNMENT = 256


def scratch_positions(sizes: Sequence[int]) -> tuple[list[int], int]:
    """Where buffers of such sizes begin, one after the other, and where the last one ends."""
    positions, end = [], 0
    for size in sizes:
        positions.append(end)
        end += -(-size // ALIGNMENT) * ALIGNMENT
    return positions, end
