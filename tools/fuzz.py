"""Random models through the importers, pipelines and targets of lvc, compared with PyTorch and ONNX Runtime.

    python tools/fuzz.py --minutes 5 --seed 1
    python tools/fuzz.py --minutes 60 --seed 7 --results fuzz.jsonl      # goes on where it stopped
    python tools/fuzz.py --seed 7 --only 123                             # one model of that run again

Model number k of a seed is always the same. What fails is shrunk, and a script that shows it by itself is written. Exit
code 1 if anything failed. See docs/fuzzing.md.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import sys
import tempfile
import time
from pathlib import Path

from lvc.compiler.threads import usable_cores

for _variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")  # trials are forked, which threads do not survive


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(allow_abbrev=False, description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=5.0, help="start no model after so long (default 5)")
    parser.add_argument("--models", type=int, help="try at most so many models")
    parser.add_argument("--seed", type=int, default=0, help="what models are drawn from (default 0)")
    parser.add_argument("--only", type=int, metavar="K", help="try model number K alone")
    parser.add_argument("--importer", choices=("ir", "torch", "onnx"), default="", help="one importer (default: all)")
    parser.add_argument("--pipeline", default="random", help="one pipeline (default: random ones)")
    parser.add_argument("--target", default="", help="one target (default: all that this machine can run)")
    parser.add_argument("--lanes", type=int, default=usable_cores(), help="processes (default: one a core)")
    parser.add_argument("--scripts", type=Path, default=Path("fuzz-faults"), help="folder for scripts of faults")
    parser.add_argument(
        "--results", type=Path, metavar="FILE", help="append JSON lines; models that stand there are not tried again"
    )
    parser.add_argument("--sabotage", action="store_true", help="plant five mistakes in turn: is each caught?")
    return parser.parse_args()


def main() -> int:
    options = parse()
    with tempfile.TemporaryDirectory(prefix="lvc-fuzz-") as cache:
        os.environ.setdefault("LVC_CACHE", cache)
        return sabotage(options) if options.sabotage else fuzz(options)


def fuzz(options: argparse.Namespace) -> int:
    from fuzzing.campaign import Plan, Tally, known, run, say

    plan = Plan(options.seed, options.importer, options.pipeline, options.target)
    done = known(options.results, plan) if options.results else {}
    tally = Tally(list(done.values()))
    fresh = (number for number in itertools.count() if number not in done)
    numbers = iter([options.only]) if options.only is not None else itertools.islice(fresh, options.models)
    started = time.monotonic()
    with contextlib.suppress(KeyboardInterrupt):
        for row in run(plan, numbers, 60 * options.minutes, options.lanes, options.scripts):
            tally.add(row)
            say(row)
            if options.results:
                with options.results.open("a") as file:
                    file.write(json.dumps({**row, "plan": str(plan)}) + "\n")
    print(f"{(time.monotonic() - started) / 60:.1f} minutes in {options.lanes} processes on {_processor()}")
    print(tally)
    return 1 if tally.faults else 0


def _processor() -> str:
    from lvc.backends.tvm.cpu.host import processor_name

    return processor_name()


def sabotage(options: argparse.Namespace) -> int:
    """Each planted mistake has the given minutes to be found in."""
    from fuzzing.campaign import Plan
    from fuzzing.sabotage import SABOTAGES, caught, table
    from fuzzing.workers import warm

    warm()
    plan = Plan(options.seed, options.importer, options.pipeline, options.target, verified=0)
    rows = [caught(mistake, plan, 60 * options.minutes) for mistake in SABOTAGES]
    print(table(rows))
    return 0 if all(row.by_check or row.model is not None for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
