"""Where 8, 16 or 64 cores would idle in a model: from the times of its kernels on one core here, and the tasks that
each is cut into. Memory, which cores share, is not in it.

    python tools/simulate_cores.py resnet18 mobilenet_v2
    python tools/simulate_cores.py resnet18@640 --batch 8 --cores 2,8,64 --json cores.json
    python tools/simulate_cores.py resnet18 --cores 16 --target native+threads=16     # kernels cut for so many

A name is a model of the suites or of torchvision, with random weights; a number behind it is the size of its images.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from suites import Torchvision, request_of

from lvc.compiler.errors import LvcError
from lvc.compiler.text import duration, percent, table

if TYPE_CHECKING:
    from inspection.cores import Timed

ROUNDS = 8
MOST_ROWS = 12


def timed(text: str, batch: int, target_text: str) -> list[Timed]:
    """The kernels of a model in its order, and their processor time on this machine."""
    from inspection.cores import Timed, loops_of
    from lvc.backends.tvm.build import build_files
    from lvc.backends.tvm.cpu.code_generator import CpuCodeGenerator
    from lvc.backends.tvm.cpu.device import Cpu
    from lvc.backends.tvm.lower import lower
    from lvc.compiler.backend import Target
    from lvc.compiler.data.seeded import seeded_inputs
    from lvc.compiler.pipeline.pipeline import Pipeline
    from lvc.compiler.pipeline.workspace import Workspace

    name, _, size = text.partition("@")
    request = Torchvision(name, int(size)).request(batch) if size else request_of(name, batch)
    model, _ = Pipeline.parse("O2").run(request.load())
    target = Target.parse(target_text)
    generator = CpuCodeGenerator.of(target)
    program = lower(model, generator)
    files = build_files(program, generator, target, Workspace(threads=1)).files
    executable = Cpu().load(files, 1)
    times = executable.time_steps(seeded_inputs(model.inputs, 0), ROUNDS, time.thread_time)
    return [
        Timed(step, seconds, loops_of(known, generator.vector))
        for known, (step, _, seconds) in zip(program.steps, times, strict=True)
    ]


def describe(kernels: Sequence[Timed], counts: Sequence[int]) -> str:
    """Two tables: what the model gains by cores, and the kernels in which most of the last count's idle."""
    from inspection.cores import Forecast

    found = [Forecast.of(kernels, cores) for cores in counts]
    rows = [(f.cores, duration(f.seconds), f"{f.gain:.2f}", percent(f.busy, 0)) for f in found]
    gains = table(("cores", "time", "times as fast", "busy"), rows, "rrrr")
    idle = {cores: sum(kernel.idle(cores) for kernel in kernels) or 1.0 for cores in counts}
    worst = sorted(kernels, key=lambda kernel: -kernel.idle(counts[-1]))[:MOST_ROWS]
    shares = [
        (
            kernel.name,
            duration(kernel.seconds),
            " + ".join(str(loop.tasks) for loop in kernel.loops) or "none",
            *(percent(kernel.idle(cores) / idle[cores], 0) for cores in counts),
        )
        for kernel in worst
    ]
    headers = ("kernel", "on one", "tasks", *(f"of what {cores} idle" for cores in counts))
    return f"{gains}\n\n{table(headers, shares, 'lrl' + 'r' * len(counts))}\n"


def to_json(text: str, batch: int, kernels: Sequence[Timed], counts: Sequence[int]) -> dict[str, object]:
    """The same as plain data."""
    from inspection.cores import Forecast

    forecasts = [{**asdict(f), "busy": f.busy} for f in (Forecast.of(kernels, cores) for cores in counts)]
    return {"model": text, "batch": batch, "cores": forecasts, "kernels": [asdict(kernel) for kernel in kernels]}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(allow_abbrev=False, description=(__doc__ or "").partition(":")[0])
    parser.add_argument("models", metavar="MODEL[@SIZE]", nargs="+")
    parser.add_argument("--batch", type=int, default=1, metavar="N", help="images at once (default %(default)s)")
    parser.add_argument("--target", default="native", help="such as native+threads=16 (default %(default)s)")
    parser.add_argument("--cores", default="8,16,64", metavar="N,N", help="(default %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all of it here")
    return parser.parse_args()


def main() -> int:
    options = parse()
    counts, found = [int(text) for text in options.cores.split(",")], []
    try:
        for text in options.models:
            kernels = timed(text, options.batch, options.target)
            print(f"{text}, batch {options.batch}\n{describe(kernels, counts)}", flush=True)
            found.append(to_json(text, options.batch, kernels, counts))
    except LvcError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
