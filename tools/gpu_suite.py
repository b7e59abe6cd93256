"""What is to be done with a GPU once there is one: models are prepared on any machine, then tested and raced.

    python tools/gpu_suite.py prepare              # on any machine: artefacts, inputs, and what PyTorch makes of them
    python tools/gpu_suite.py test                 # with a GPU: each artefact gives what PyTorch gave, or every byte
    python tools/gpu_suite.py bench                # with a GPU: beside torch, torch.compile and ONNX Runtime, in turns

All lies in ``--out``, in a folder of the target. What stands there is not done again, so that each command goes on
where it was stopped; ``test`` and ``bench`` begin nothing after ``--minutes``, and say so. Without a GPU both are one
sentence.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from suites import request_of

from lvc.backends.tvm.gpu.driver import Found, found_gpu

MODELS = ("resnet18", "resnet50", "mobilenet_v2", "efficientnet_b0", "squeezenet1_1")
INT8 = "O1,insert-fake-quant,calibrate{images=4 compare=0},lower-to-integer,fuse-operators"
FP16 = "O2,lower-precision{dtype=float16}"
PEERS = {
    "fp32": "torch_cuda,torch_compile_cuda,onnxruntime_cuda,onnxruntime_tensorrt",
    "fp16": "torch_cuda_fp16,torch_compile_cuda_fp16,onnxruntime_tensorrt_fp16",
}
TOLERANCE = (
    1e-4  # of an output's largest value, beside what rounding to float16 moves; in 8 bits every byte is the same
)
ROUNDING = 1.25  # times what float16 moves the rewritten graph in PyTorch it may move an artefact
SECONDS = 4.0  # of a race


@dataclass(frozen=True)
class Entry:
    """A model for images of a batch, in ``fp32``, ``fp16`` or ``int8``, in a folder."""

    model: str
    batch: int
    precision: str
    folder: Path

    @property
    def name(self) -> str:
        return f"{self.model}-{self.precision}-{self.batch}"

    def file(self, ending: str) -> Path:
        return self.folder / f"{self.name}.{ending}"

    @property
    def digest(self) -> str:
        """What tells the artefact from any other."""
        return hashlib.sha256(self.file("lvc").read_bytes()).hexdigest()

    def done(self, what: str) -> dict[str, Any] | None:
        """What was found of this artefact before; None if nothing was."""
        try:
            found = json.loads(self.file(f"{what}.json").read_text())
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) and found.get("artefact") == self.digest else None

    def keep(self, what: str, found: dict[str, Any]) -> None:
        self.file(f"{what}.json").write_text(json.dumps({"artefact": self.digest, **found}, indent=1))


def prepare(entry: Entry, target: str) -> None:
    """Build an artefact, and keep its inputs, outputs, and how far each of these may be off; equal entries make equal
    files."""
    from lvc.compiler import container
    from lvc.compiler.data.seeded import seeded_inputs
    from lvc.compiler.driver import compile_and_report
    from lvc.compiler.pipeline.pipeline import Pipeline
    from lvc.compiler.pipeline.workspace import Workspace

    request = request_of(entry.model, entry.batch)
    model = request.load()
    inputs = seeded_inputs(model.inputs, 0)
    images = np.random.default_rng(0).standard_normal((4, *inputs[0].shape[1:])).astype(np.float32)
    workspace = Workspace(data={"calib": lambda: [(image[None], None) for image in images]})
    rewriting = {"fp32": "O2", "fp16": FP16, "int8": INT8}[entry.precision]
    rewritten, _ = Pipeline.parse(rewriting).run(model, workspace)
    artefact, _ = compile_and_report(rewritten, "O0", target, verify=False, workspace=workspace, request=request)
    found = rewritten(*inputs)
    wanted = found if entry.precision == "int8" else model(*inputs)
    arrays = {f"input_{number}": array for number, array in enumerate(inputs)}
    for number, (array, rounded) in enumerate(zip(wanted, found, strict=True)):
        arrays[f"output_{number}"] = array
        arrays[f"bound_{number}"] = np.array(bound(array, rounded, entry.precision))
    np.savez(entry.file("npz"), **arrays)  # type: ignore[arg-type]
    container.write(artefact, entry.file("lvc"))  # last: where it stands the entry is whole


def bound(wanted: np.ndarray, rounded: np.ndarray, precision: str) -> float:
    """How far an artefact's output may be from the wanted one, which the rewritten graph rounds."""
    if precision == "int8":
        return 0.0
    moved = np.abs(rounded.astype(np.float64) - wanted).max() if precision == "fp16" else 0.0
    return float(TOLERANCE * np.abs(wanted).max() + ROUNDING * moved)


def fault(entry: Entry) -> str:
    """What is wrong with what an artefact gives; empty if nothing is."""
    import lvc

    with np.load(entry.file("npz")) as arrays:
        inputs, outputs, bounds = (
            [arrays[name] for name in arrays if name.startswith(side)] for side in ("input", "output", "bound")
        )
    found = lvc.load(entry.file("lvc"))(*inputs)
    for ours, wanted, most in zip(found if isinstance(found, tuple) else (found,), outputs, bounds, strict=True):
        difference = np.abs(ours.astype(np.float64) - wanted).max()
        if not difference <= most:
            return f"an output differs by {difference:.2e}, and {most:.2e} is allowed"
    return ""


def test(entries: Sequence[Entry], gpu: Found, minutes: float) -> int:
    """Compare every artefact; 0 if all are right, 1 if one is wrong, 3 if there are more than there was time for."""
    wrong = 0
    for entry in within(entries, minutes, "test"):
        found = entry.done("test")
        if found is None:
            found = {"gpu": gpu.name, "fault": fault(entry)}
            entry.keep("test", found)
        wrong += bool(found["fault"])
        print(f"{entry.name}: {found['fault'] or 'right'}")
    return 1 if wrong else 0 if all(entry.done("test") for entry in entries) else 3


def bench(entries: Sequence[Entry], gpu: Found, minutes: float) -> int:
    """Race every artefact with its peers in a process of its own; 3 if there are more than there was time for."""
    for entry in within(entries, minutes, "bench"):
        if entry.done("bench"):
            continue
        command = [sys.executable, "-m", "lvc", "bench", str(entry.file("lvc")), "--json"]
        peers = ["--against", PEERS[entry.precision]] if PEERS.get(entry.precision) else []
        done = subprocess.run(
            [*command, *peers, "--seconds", str(SECONDS)], capture_output=True, text=True, check=False
        )
        if done.returncode:
            print(f"{entry.name}: {done.stderr.strip()}", file=sys.stderr)
            return 1
        entry.keep("bench", {"gpu": gpu.name, "engines": json.loads(done.stdout)["engines"]})
    for line in table(entries):
        print(line)
    return 0 if all(entry.done("bench") for entry in entries) else 3


def table(entries: Sequence[Entry]) -> Iterator[str]:
    """What was measured, in Markdown: the least milliseconds of each engine."""
    yield "| model | GPU | engine | ms | of lvc's time | difference |"
    yield "| --- | --- | --- | ---: | ---: | ---: |"
    for entry in entries:
        found = entry.done("bench")
        for one in found["engines"] if found else ():
            numbers = f"{1e3 * one['min']:.3f} | {one['ratio']:.2f} | {one['difference']:.1e}"
            yield f"| {entry.name} | {found['gpu'] if found else ''} | {one['name']} | {numbers} |"


def within(entries: Sequence[Entry], minutes: float, what: str) -> Iterator[Entry]:
    """Entries as long as there is time; those that are done take none."""
    end = time.monotonic() + 60 * minutes
    for entry in entries:
        if not entry.done(what) and time.monotonic() > end:
            print(f"{minutes:g} minutes are over: run this again for the rest, from {entry.name} on")
            return
        yield entry


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("what", choices=("prepare", "test", "bench"))
    parser.add_argument("models", metavar="MODEL", nargs="*", default=list(MODELS), help="of torchvision")
    parser.add_argument("--target", default="cuda:sm_75", help="what is built for (default cuda:sm_75)")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 32], help="images of a batch (default 1 and 32)")
    precisions = ("fp32", "fp16", "int8")
    parser.add_argument("--precision", choices=precisions, nargs="+", default=list(precisions))
    parser.add_argument("--out", type=Path, default=Path("build/gpu"), help="where all lies (default build/gpu)")
    parser.add_argument("--minutes", type=float, default=7.0, help="after which nothing is begun (default 7)")
    options = parser.parse_args(arguments)
    folder = options.out / options.target.replace(":", "-")
    folder.mkdir(parents=True, exist_ok=True)
    entries = [
        Entry(model, batch, precision, folder)
        for batch in options.batch
        for precision in options.precision
        for model in options.models
    ]
    if options.what == "prepare":
        for entry in entries:
            if not entry.file("lvc").exists():
                prepare(entry, options.target)
            print(f"{entry.name}: prepared")
        return 0
    gpu = found_gpu()
    if gpu is None:
        print(f"skipped: there is no NVIDIA GPU here to {options.what} on")
        return 0
    if missing := [entry.name for entry in entries if not entry.file("lvc").exists()]:
        parser.error(f"{', '.join(missing)}: not prepared; 'prepare' does it, on any machine")
    return (test if options.what == "test" else bench)(entries, gpu, options.minutes)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
