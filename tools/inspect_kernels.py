"""What can be known of a model's kernels without the processor that they are for: what stands in the innermost loops of
their object code, and what their register tiles ask of the caches. See docs/kernels.md.

    python tools/inspect_kernels.py vit_b_16 --target znver5
    python tools/inspect_kernels.py model.onnx --target haswell,sapphirerapids --json kernels.json
    python tools/inspect_kernels.py --target znver4,znver5,sapphirerapids,haswell     # the whole benchmark suite
    python tools/inspect_kernels.py --int8 resnet18
    python tools/inspect_kernels.py resnet18 --target cortex-a53,neoverse-v1    # with estimates of pace and time
    python tools/inspect_kernels.py resnet18 --target cuda:a100    # estimates for a GPU; see docs/gpu.md

A name without a suffix or a colon is a model of torchvision, with random weights. Exit code 1 if vectors go to and from
the stack in a reduction, or rows of a tile fight for one set of a cache; of a GPU, if a kernel spills.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from suites import request_of

from bench import INT8, quantised
from lvc.compiler.bench.suite import MODELS
from lvc.compiler.cli.model_options import add_model_options, load_request
from lvc.compiler.errors import LvcError, UsageError
from lvc.compiler.pipeline.catalogue import PRECISIONS
from lvc.compiler.text import percent, table
from lvc.compiler.threads import usable_cores

if TYPE_CHECKING:
    from inspection.account import Account, Kernel
    from inspection.gpu_account import GpuAccount
    from lvc.compiler.backend import Target
    from lvc.compiler.ir.model import Model

PROCESSORS = ("znver4", "znver5", "sapphirerapids", "haswell")
"""Those that the suite must be free of faults on."""
HEADERS = (
    "kernel",
    "kind",
    "times",
    "work",
    "tile",
    "panels, KiB",
    "level",
    "fma",
    "loads",
    "spills",
    "moves",
    "suspect",
)
PACE = ("products", "a cycle", "of peak")
"""What is estimated where there is a model of the core."""


def rewritten(name: str, options: argparse.Namespace) -> Model:
    """A model as the backend gets it, in the precision that is asked for."""
    from lvc.compiler.pipeline.pipeline import Pipeline

    is_file = any(mark in name for mark in ":./")
    given = argparse.Namespace(**{**vars(options), "model": name})
    model = load_request(given) if is_file else named_request(name, given)
    loaded: Model = model.load()
    if options.precision == "int8":
        return quantised(loaded, INT8)  # type: ignore[no-any-return]
    text = ",".join(filter(None, (options.pipeline, PRECISIONS[options.precision])))
    return Pipeline.parse(text).run(loaded)[0]


def named_request(name: str, options: argparse.Namespace) -> Any:
    """How a model of a suite or of torchvision is loaded: in its own shape, or in the one that is given."""
    found = request_of(name)
    return replace(found, shapes=shapes) if (shapes := load_request(options).shapes) else found


def targets_of(text: str) -> list[Target]:
    """The targets of a list, each one whose code is made here; `UsageError` for any other."""
    from lvc.compiler.backend import Target

    found = [Target.parse(one) for one in text.split(",")]
    for target in found:
        if target.backend != "tvm":
            raise UsageError(f"there are no kernels for the target '{target.text}'", why="no code is made for it")
    return found


def each(options: argparse.Namespace) -> Iterator[tuple[str, Target, Account | GpuAccount]]:
    """The account of each model for each target, one after the other."""
    from inspection.account import account
    from inspection.gpu_account import gpu_account
    from lvc.backends.tvm.backend import TvmBackend
    from lvc.backends.tvm.gpu.targets import KIND
    from lvc.backends.tvm.legality import check, multiplied_elements
    from lvc.compiler.pipeline.workspace import Workspace

    targets, workspace = targets_of(options.target), Workspace(threads=options.threads)
    for name in options.models or MODELS:
        model = rewritten(name, options)
        check(model)
        for target in targets:
            if refusal := TvmBackend().refusal(multiplied_elements(model), target):
                raise refusal
            made = gpu_account if target.kind == KIND else account
            yield name, target, made(model, target, workspace)


def fights(kernel: Kernel, target: Target) -> bool:
    """Whether rows of a kernel's tile fight for one set of the first level."""
    from lvc.backends.tvm.cpu.targets import machine_of

    first = machine_of(target).first
    return kernel.footprint is not None and kernel.footprint.crowd(first) > first.ways


def is_faulty(kernel: Kernel, target: Target) -> bool:
    """Whether a kernel has one of the faults that none should have."""
    return kernel.spills > 0 or fights(kernel, target)


def describe(found: Sequence[Kernel]) -> str:
    """The kernels of one model for one target as a table."""
    rows, is_estimated = [], any(kernel.pace for kernel in found)
    for kernel in found:
        tile, hot = kernel.footprint, kernel.hot
        rows.append(
            (
                kernel.name,
                kernel.kind,
                kernel.times,
                percent(kernel.share),
                f"{tile.vectors}x{tile.rows}" if tile else "",
                f"{tile.panel / 1024:.1f}" if tile else "",
                kernel.level,
                hot.multiply_adds,
                hot.loads,
                kernel.spills,
                hot.moves,
                *(_pace(kernel) if is_estimated else ()),
                "; ".join(kernel.suspicions),
            )
        )
    if not is_estimated:
        return table(HEADERS, rows, "llrrrrlrrrrl")
    return table((*HEADERS[:-1], *PACE, HEADERS[-1]), rows, "llrrrrlrrrrlrrl")


def _pace(kernel: Kernel) -> tuple[str, ...]:
    if not (pace := kernel.pace):
        return ("", "", "")
    products = ", ".join(f"{count} {name}" for name, count in pace.products.items())
    return products, f"{pace.rate:.2f}", percent(pace.peak_share)


def estimated(found: Account, target: Target) -> str:
    """The sentence about a model's time; empty for a processor without a model."""
    from inspection.throughput import CORES, core_of

    if target.cpu not in CORES:
        return ""
    if not (core := core_of(target.cpu)):
        return "no estimate: no llvm-mca is there (Debian: apt-get install llvm-19)\n"
    board = f"at {core.clock} GHz with {core.bandwidth / 1e9:.0f} GB/s of memory"
    means = f"by llvm-mca with its model of {core.model}, and by bytes moved; caches are not in it"
    return f"estimate: {1e3 * found.seconds:.3g} ms a run on one thread {board}, {means}\n"


def summary(rows: Sequence[tuple[str, Target, Account]]) -> str:
    """A Markdown table: for each model and target its kernels with spills, those that are suspect, and all."""
    processors = list(dict.fromkeys(target.text for _, target, _ in rows))
    cells: dict[str, dict[str, str]] = {}
    for name, target, found in rows:
        listed = found.kernels
        counts = (sum(kernel.spills > 0 for kernel in listed), sum(bool(k.suspicions) for k in listed), len(listed))
        cells.setdefault(name, {})[target.text] = " / ".join(map(str, counts))
    lines = [["model", *processors], ["---", *["---:"] * len(processors)]]
    lines += [[name, *(known.get(one, "") for one in processors)] for name, known in cells.items()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def to_json(name: str, target: Target, found: Account, precision: str) -> dict[str, Any]:
    """An account as plain data."""
    from dataclasses import asdict

    from lvc.backends.tvm.cpu.targets import machine_of

    described = [{**kernel.to_json(), "faulty": is_faulty(kernel, target)} for kernel in found.kernels]
    machine = asdict(machine_of(target))
    estimate = {"estimated_seconds": found.seconds} if found.seconds else {}
    known = {"model": name, "target": target.text, "precision": precision, "machine": machine}
    return known | estimate | {"kernels": described}


def main() -> int:
    from inspection.gpu_account import GpuAccount

    rows, accounts, is_clean = [], [], True
    options = parse()
    try:
        for name, target, found in each(options):
            print(f"{name} in {options.precision} for {target.text}")
            if isinstance(found, GpuAccount):
                known = {"model": name, "target": target.text, "precision": options.precision}
                accounts.append(known | found.to_json())
                print(f"{found.describe()}\n{found.summary()}", flush=True)
                is_clean &= not found.spilling
                continue
            rows.append((name, target, found))
            accounts.append(to_json(name, target, found, options.precision))
            print(f"{describe(found.kernels)}\n{estimated(found, target)}", flush=True)
            is_clean &= not any(is_faulty(kernel, target) for kernel in found.kernels)
    except LvcError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    if len(rows) > 1:
        print(summary(rows))
    if options.json:
        options.json.write_text(json.dumps(accounts, indent=1) + "\n")
    return 0 if is_clean else 1


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(allow_abbrev=False, description=(__doc__ or "").splitlines()[0])
    parser.add_argument("models", metavar="MODEL", nargs="*", help="default: the benchmark suite")
    parser.add_argument("--target", default=",".join(PROCESSORS), metavar="NAME,NAME", help="(default %(default)s)")
    parser.add_argument("--precision", choices=(*PRECISIONS, "int8"), default="fp32")
    parser.add_argument("--int8", dest="precision", action="store_const", const="int8", help="as --precision int8")
    parser.add_argument("--pipeline", default="O2", help="pipeline, without its precision (default O2)")
    parser.add_argument("--threads", type=int, default=usable_cores(), help="threads that compile")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the account here")
    add_model_options(parser, positional=False)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
