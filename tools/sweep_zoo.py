"""Compiles models of timm, ultralytics, segmentation_models_pytorch and transformers, and compares what the code
computes with eager PyTorch, or with ONNX Runtime where the model came as a file.

Needs ``pip install .[zoo]``; downloads nothing. A difference beyond 1e-4 is judged by double precision: it is rounding
if the code is about as near to that as the other, or would be without Winograd's algorithm. Models run one after the
other in a process that is replaced when one takes too long or ends it; results are appended to a file of JSON lines,
and a model that stands there is not run again.

    python tools/sweep_zoo.py --only 'yolo|Unet' --table table.md
"""

from __future__ import annotations

import argparse
import json
import re
import select
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

BOUND = 1e-4
PLAIN = "allow-winograd{tile=0}"
SLACK = 3
"""How many times further from double precision than the other side the code may be, where that is beyond the bound."""


def measure(name: str, pipeline: str, target: str) -> dict[str, Any]:
    """Compile one model and compare it; returns what the table shows."""
    from lvc.compiler.errors import LvcError

    try:
        return _measure(name, pipeline, target)
    except LvcError as error:
        return {"verdict": "refused", "why": " ".join(f"{error.what}: {error.why or error.where}".split())[:300]}


def _measure(name: str, pipeline: str, target: str) -> dict[str, Any]:
    import torch
    import zoo_models

    import lvc
    from lvc.compiler.data.seeded import seeded_inputs
    from lvc.compiler.errors import CheckError

    base, _, importer = name.partition("@")
    is_file = importer == "onnx" or base.startswith("ultralytics:")
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="lvc-zoo-") as folder:
        if is_file:
            file = zoo_models.write_onnx(base, Path(folder))
            model = lvc.from_onnx(file)
            inputs = seeded_inputs(model.inputs, 0)
            wanted = _onnxruntime(file, inputs)
        else:
            module, shape = zoo_models.make(base)
            model = lvc.from_module(module, torch.zeros(*shape))
            inputs = seeded_inputs(model.inputs, 0)
            wanted = _eager(module, inputs)
    loaded = time.perf_counter()
    said = {}
    try:
        artefact = lvc.compile(model, pipeline=pipeline, target=target)
    except CheckError as error:  # whether it is right to say so is to be seen
        said = {"why": f"lvc itself says: {error.what}"}
        artefact = lvc.compile(model, pipeline=pipeline, target=target, verify=False)
    built = time.perf_counter()
    found = lvc.load(artefact).executable(*inputs)
    exact = _exact(model, inputs)
    verdict = judge(found, wanted, exact)
    if verdict["verdict"] == "WRONG":
        verdict = _without_winograd(verdict, wanted, exact, lambda: _run(model, f"{pipeline},{PLAIN}", target, inputs))
    return {
        "importer": "ONNX" if is_file else "PyTorch",
        "input": str(model.inputs[0].spec),
        "parameters": model.parameters,
        "load s": round(loaded - started, 1),
        "build s": round(built - loaded, 1),
        **said,
        **verdict,
    }


def _run(model: Any, pipeline: str, target: str, inputs: Any) -> Any:
    import lvc

    return lvc.load(lvc.compile(model, pipeline=pipeline, target=target, verify=False)).executable(*inputs)


def _without_winograd(verdict: dict[str, Any], wanted: Any, exact: Any, run: Callable[[], Any]) -> dict[str, Any]:
    """The verdict once more, where Winograd's algorithm alone may be what rounds too coarsely."""
    from lvc.compiler.verification.closeness import WINOGRAD_SLACK

    if verdict.get("ours", float("inf")) > WINOGRAD_SLACK * verdict.get("theirs", 0.0):
        return verdict
    plain = judge(run(), wanted, exact)
    if plain["verdict"] == "WRONG":
        return verdict
    return verdict | {"verdict": "rounding", "plain": plain["ours"]}


def _eager(module: Any, inputs: Any) -> list[Any]:
    """What PyTorch computes: the tensors of the output, in order."""
    import torch
    from torch.utils import _pytree

    with torch.inference_mode():
        leaves = _pytree.tree_leaves(module(*map(torch.from_numpy, inputs)))
    return [leaf.numpy() for leaf in leaves if isinstance(leaf, torch.Tensor)]


def _onnxruntime(file: Path, inputs: Any) -> list[Any]:
    import onnxruntime

    onnxruntime.set_default_logger_severity(3)
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return list(
        session.run(None, {given.name: array for given, array in zip(session.get_inputs(), inputs, strict=True)})
    )


def _exact(model: Any, inputs: Any) -> Any:
    from lvc.compiler.measure.precision import exact_outputs

    return exact_outputs(model, inputs)


def judge(found: Any, wanted: Any, exact: Any) -> dict[str, Any]:
    """The verdict on outputs: right, rounding, or WRONG; silent where an output is constant, which proves nothing."""
    from lvc.compiler.pipeline.observers import relative_difference

    if len(found) != len(wanted):
        return {"verdict": "WRONG", "why": f"{len(found)} outputs, and {len(wanted)} are right"}
    differences = [relative_difference(ours, theirs) for ours, theirs in zip(found, wanted, strict=True)]
    result: dict[str, Any] = {"difference": max(differences), "spread": min(map(_spread, wanted))}
    if exact is not None:
        pairs = [
            (relative_difference(o, e), relative_difference(t, e)) for o, t, e in zip(found, wanted, exact, strict=True)
        ]
        result |= {"ours": max(ours for ours, _ in pairs), "theirs": max(theirs for _, theirs in pairs)}
    if result["difference"] <= BOUND:
        return result | {"verdict": "right" if result["spread"] > 1e-3 else "silent"}
    is_rounding = exact is not None and all(ours <= max(BOUND, SLACK * theirs) for ours, theirs in pairs)
    return result | {"verdict": "rounding" if is_rounding else "WRONG"}


def _spread(array: Any) -> float:
    return float(array.std() / (abs(array).max() or 1)) if array.size > 1 else 1.0


class Worker:
    """A process that measures the models whose names it is given."""

    def __init__(self, pipeline: str, target: str) -> None:
        command = [sys.executable, __file__, "--worker", "--pipeline", pipeline, "--target", target]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )

    def measure(self, name: str, timeout: float) -> dict[str, Any] | None:
        """The result; None where the process ended or took too long, and is of no more use."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(f"{name}\n")
        self.process.stdin.flush()
        if not select.select([self.process.stdout], [], [], timeout)[0]:
            self.process.kill()
            return None
        line = self.process.stdout.readline()
        return json.loads(line) if line else None

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


def work(pipeline: str, target: str) -> None:
    """Measure each model whose name comes in; whatever goes wrong is the result."""
    results, sys.stdout = sys.stdout, sys.stderr  # libraries talk
    for line in sys.stdin:
        try:
            result = measure(line.strip(), pipeline, target)
        except Exception as error:
            result = {"verdict": "failed", "why": f"{type(error).__name__}: {error}"[:300]}
        print(json.dumps(result), file=results, flush=True)


def table(rows: dict[str, dict[str, Any]]) -> str:
    """Write results as Markdown."""
    lines = ["| model | importer | input | parameters, M | difference | verdict |", "|---|---|---|---:|---:|---|"]
    for name, row in rows.items():
        parameters = f"{row['parameters'] / 1e6:.2f}" if "parameters" in row else ""
        difference = f"{row['difference']:.1e}" if "difference" in row else ""
        said = f"{row['verdict']}: {row['why']}" if row.get("why") else row["verdict"]
        if row["verdict"] == "rounding":
            said = f"rounding: {row['ours']:.1e} from double precision, the other {row['theirs']:.1e}"
            said += f"; {row['plain']:.1e} without Winograd's algorithm" if "plain" in row else ""
        cells = (name, row.get("importer", ""), row.get("input", ""), parameters, difference, said.replace("|", "/"))
        lines.append("| " + " | ".join(cells) + " |")
    counts = Counter(row["verdict"] for row in rows.values())
    return "\n".join(lines) + "\n\n" + ", ".join(f"{count} {verdict}" for verdict, count in counts.most_common()) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(allow_abbrev=False, description=(__doc__ or "").partition(". ")[0])
    parser.add_argument("--pipeline", default="O2", help="pipeline text (default O2)")
    parser.add_argument("--target", default="native", help="what to compile for (default native)")
    parser.add_argument("--only", default="", metavar="REGEX", help="only models whose name matches")
    parser.add_argument("--again", default="^$", metavar="REGEX", help="run those whose verdict matches once more")
    parser.add_argument("--results", type=Path, default=Path("zoo.jsonl"), help="file of JSON lines to go on from")
    parser.add_argument("--table", type=Path, help="write the Markdown table here")
    parser.add_argument("--timeout", type=float, default=600, help="seconds for one model")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(options.pipeline, options.target)
        return 0
    rows = sweep(options)
    if options.table:
        options.table.write_text(table(rows))
    else:
        print(table(rows))
    return 0 if all(row["verdict"] in ("right", "rounding", "refused") for row in rows.values()) else 1


def sweep(options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Measure what is not measured yet."""
    import zoo_models

    key = {"pipeline": options.pipeline, "target": options.target}
    lines = options.results.read_text().splitlines() if options.results.exists() else []
    known = {row["model"]: row for row in map(json.loads, lines) if {k: row[k] for k in key} == key}
    wanted = [name for name in zoo_models.names() if re.search(options.only, name)]
    rows, worker = {}, None
    for name in wanted:
        if name in known and not re.search(options.again, known[name]["verdict"]):
            rows[name] = known[name]
            continue
        worker = worker or Worker(options.pipeline, options.target)
        found = worker.measure(name, options.timeout)
        if found is None:
            found = {"verdict": "failed", "why": f"ended, or took more than {options.timeout:.0f} s"}
            worker.end()
            worker = None
        rows[name] = {"model": name, **key, **found}
        with options.results.open("a") as file:
            file.write(json.dumps(rows[name]) + "\n")
        print(name, found, file=sys.stderr, flush=True)
    if worker:
        worker.end()
    return rows


if __name__ == "__main__":
    sys.exit(main())
