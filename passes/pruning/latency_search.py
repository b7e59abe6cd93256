"""How many units must go for a model to be as fast as wanted: guessed by its MACs, measured on the target, mended."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from lvc.compiler.errors import UsageError
from lvc.compiler.ir.model import Model
from lvc.compiler.pipeline.workspace import Stopwatch
from lvc.passes.analysis.channel_groups import Channels, Removal
from lvc.passes.analysis.channels.surgery import remove
from lvc.passes.pruning.budget import Cost, take
from lvc.passes.pruning.ranking import Queue

TOLERANCE = 0.03
"""How near the measured latency shall be to the target, relative to it."""

_TRIES = 8


def share_of_latency(
    model: Model, channels: Channels, original: Model, stopwatch: Stopwatch
) -> Callable[[Removal], float]:
    """Return what measures the latency that a model would have after a removal, as a share of the original's."""

    def measure(removal: Removal) -> float:
        narrower = model.copy(share_tensors=True)
        remove(narrower, channels, removal)
        return stopwatch.compare(narrower, original).share

    return measure


def take_until_fast(
    queue: Queue, macs: Cost, share: float, multiples: Mapping[str, int], timed: Callable[[Removal], float]
) -> Removal:
    """Return a removal whose measured latency is the wanted share of today's, as near as was found.

    ``timed`` measures what share of today's latency is left after a removal. Latency falls as MACs do, not as far: each
    measurement moves one end of a line between two known points, on which the next guess lies. `UsageError` if not
    even the narrowest model is fast enough.
    """
    narrowest = queue.removal(len(queue), multiples)
    full, least = macs.measure({}), macs.measure(narrowest) / macs.measure({})
    low, high = (least, 0.0), (1.0, 1.0)
    best: tuple[float, Removal] | None = None
    for _ in range(_TRIES):
        slope = (high[0] - low[0]) / max(1e-9, high[1] - low[1])
        guess = min(max(low[0] + (share - low[1]) * slope, least), high[0])
        removal = take(queue, macs, guess * full, multiples)
        found = timed(removal)
        if best is None or abs(found - share) < abs(best[0] - share):
            best = found, removal
        if abs(found / share - 1) <= TOLERANCE:
            return removal
        reached = macs.measure(removal) / full
        if found > share and removal == narrowest:
            raise UsageError(
                f"the target cannot be reached: latency falls to {found:.2f} of today's at most",
                why="every group that may shrink is then at the least width that it may have",
                help="ask for less, lower keep=, or skip fewer groups",
            )
        if (reached, found) in (low, high):
            break
        low, high = ((reached, found), high) if found < share else (low, (reached, found))
    assert best is not None
    return best[1]
