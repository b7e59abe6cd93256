"""How close the large kernels of a suite come to the peak of the processor, one by one.

    python tools/peak_shares.py                        # the classic suite, a few minutes on an idle machine
    python tools/peak_shares.py resnet50 vgg16_bn --least 100 --rounds 40

Each model runs as a whole, so that weights come from memory as they do in use, and each kernel counts with its fastest
round on one thread. The peak is what a kernel of multiply-adds alone reaches on this machine. Multiply-accumulates are
those of a layer's definition: Winograd's algorithm does a part of them, and can be above the peak.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from suites import SUITES, request_of

from lvc.compiler.errors import LvcError
from lvc.compiler.text import duration, percent, si, table

ENOUGH = 0.85


@dataclass(frozen=True)
class Share:
    """A kernel: the layer that it is for, what that makes, seconds, multiply-accumulates, and the share of the peak."""

    model: str
    layer: str
    output: str
    seconds: float
    macs: int
    of_peak: float


def shares(name: str, least: int, rounds: int) -> list[Share]:
    """Build a model as most are compiled, and time its kernels with at least so many multiply-accumulates."""
    from lvc.compiler import driver, loaded
    from lvc.compiler.bench.steps import TimesSteps, steps
    from lvc.compiler.data.seeded import seeded_inputs
    from lvc.compiler.measure.artefact import artefact_layers
    from lvc.compiler.pipeline.workspace import Workspace

    artefact = driver.compile(request_of(name), verify=False, workspace=Workspace(threads=1))
    built = loaded.load(artefact, 1)
    if not isinstance(built.executable, TimesSteps):
        raise LvcError(f"the kernels of {name} cannot be timed one by one")
    layers = artefact_layers(artefact)
    working = {layer.node: layer.output for layer in layers if layer.macs}
    times = built.executable.time_steps(seeded_inputs(built.inputs, 0), rounds, time.thread_time)
    found = steps(times, layers, built.executable.peak_flops())
    return [
        Share(name, step.title, working[node], step.seconds, step.macs, step.peak_share)
        for step in found
        if step.macs >= least and (node := next(node for node in step.nodes if node in working))
    ]


def describe(found: Sequence[Share]) -> str:
    """A line a model, and then the kernels that are not close enough."""
    lines = []
    for name in dict.fromkeys(share.model for share in found):
        own = sorted(share.of_peak for share in found if share.model == name)
        close = sum(share >= ENOUGH for share in own)
        lines.append((name, str(len(own)), str(close), percent(own[0], 0), percent(own[len(own) // 2], 0)))
    whole = table(("model", "kernels", f"{percent(ENOUGH, 0)} and above", "least", "median"), lines, "lrrrr")
    far = sorted((share for share in found if share.of_peak < ENOUGH), key=lambda share: share.of_peak)
    rows = [
        (share.model, share.layer, share.output, si(share.macs), duration(share.seconds), percent(share.of_peak, 0))
        for share in far
    ]
    below = table(("model", "layer", "gives", "MACs", "time", "of peak"), rows, "lllrrr") if rows else ""
    return "\n\n".join(filter(None, (whole, below)))


def main() -> int:
    parser = argparse.ArgumentParser(
        allow_abbrev=False, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="*", metavar="MODEL", help="of the suites or torchvision (default: classic)")
    parser.add_argument("--least", type=float, default=50, help="million multiply-accumulates of a kernel (default 50)")
    parser.add_argument("--rounds", type=int, default=20, help="runs of each model (default 20)")
    parser.add_argument("--json", type=Path, help="a file for all kernels")
    options = parser.parse_args()
    found: list[Share] = []
    for name in options.models or SUITES["classic"]:
        try:
            found += shares(name, int(options.least * 1e6), options.rounds)
        except LvcError as error:
            print(f"{name}: {error}", file=sys.stderr)
            return 2
        print(f"{name}: measured", file=sys.stderr)
    if not found:
        print(f"no kernel has {options.least:g} M multiply-accumulates", file=sys.stderr)
        return 2
    print(describe(found))
    if options.json:
        options.json.write_text(json.dumps([asdict(share) for share in found], indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
