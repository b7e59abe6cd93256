"""Many cases one after the other: what each gave, what failed shrunk to a script, and the sums at the end."""

from __future__ import annotations

import json
import multiprocessing
import random
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fuzzing import importers, workers
from fuzzing.case import Case, Verdict, judge
from fuzzing.generate import anything, generate, of_dialect
from fuzzing.onnx_file import OPSETS, can_spell
from fuzzing.pipelines import draw_pipeline, draw_precision, draw_target
from fuzzing.script import write
from fuzzing.shrink import shrink

SHRUNK_OF_A_KIND = 2
"""So many faults of one kind are shrunk by each process; more of them are counted."""

SHRINK_SECONDS = 150.0


@dataclass(frozen=True)
class Plan:
    """What to draw from. A case depends on these, the seed and its number alone. On a share of ``verified`` lvc's own
    comparisons run too."""

    seed: int = 0
    importer: str = ""
    pipeline: str = "random"
    target: str = ""
    verified: float = 0.5

    def case(self, number: int) -> Case:
        rng = random.Random(f"{self.seed}:{number}:{self.importer}")
        importer = self.importer or rng.choice(importers.IMPORTERS)
        opset = rng.choice(OPSETS)
        words = {"onnx": lambda step, specs: can_spell(step, specs, opset), "ir": of_dialect}
        program = generate(rng, words.get(importer, anything))
        target = draw_target(rng)
        pipeline = draw_pipeline(rng)
        precision = draw_precision(rng, self.target or target)
        inputs = rng.choice(("normal", "normal", "unit", "bytes"))
        pipeline = pipeline if self.pipeline == "random" else self.pipeline
        verify = rng.random() < self.verified
        return Case(program, importer, pipeline, self.target or target, precision, inputs, opset, number, verify)


@dataclass
class Tally:
    """What the cases gave, as JSON lines hold it."""

    rows: list[dict[str, Any]] = field(default_factory=list)

    def add(self, row: dict[str, Any]) -> None:
        self.rows.append(row)

    @property
    def faults(self) -> list[dict[str, Any]]:
        return [row for row in self.rows if row["kind"] == "fault"]

    def __str__(self) -> str:
        seeds = sorted({row["seed"] for row in self.rows})
        kinds = Counter(row["kind"] for row in self.rows)
        lines = [
            f"{len(self.rows)} models of seed {', '.join(map(str, seeds)) or 'none'}: "
            + ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
        ]
        for key in ("importer", "target", "pipeline"):
            counts = Counter(row[key] for row in self.rows)
            lines.append(
                f"  {key}s: " + ", ".join(f"{name or 'none'} {count}" for name, count in counts.most_common(8))
            )
        operators = Counter(op for row in self.rows for op in row["ops"])
        lines.append(f"  operators: {len(operators)} different, {sum(operators.values())} calls")
        for kind, title in (("fault", "faults"), ("oracle", "disagreements of peers"), ("refused", "refusals")):
            found = Counter(row["what"] for row in self.rows if row["kind"] == kind)
            lines += [f"{title}: {sum(found.values())}"] if found else []
            for what, count in found.most_common():
                scripts = [row.get("script", "") for row in self.rows if (row["kind"], row["what"]) == (kind, what)]
                first = next(row["number"] for row in self.rows if (row["kind"], row["what"]) == (kind, what))
                lines.append(f"  {count} x {what}  (first: {first})  {next(filter(None, scripts), '')}".rstrip())
        return "\n".join(lines)


def run(plan: Plan, numbers: Iterator[int], seconds: float, lanes: int, folder: Path) -> Iterator[dict[str, Any]]:
    """Try cases for so long, in so many processes; yield a row for each as it is done."""
    workers.warm()
    context = multiprocessing.get_context("fork")
    rows, writer = context.Pipe(duplex=False)
    lock = context.Lock()
    tasks: Any = context.Queue(maxsize=2 * lanes)
    started = [
        context.Process(target=_lane, args=(plan, tasks, writer, lock, folder), daemon=True) for _ in range(lanes)
    ]
    for lane in started:
        lane.start()
    deadline, running = time.monotonic() + seconds, 0
    for number in numbers:
        if time.monotonic() >= deadline:
            break
        tasks.put(number)
        running += 1
        while running >= 2 * lanes:
            yield _next(rows, started)
            running -= 1
    for _ in started:
        tasks.put(None)
    for _ in range(running):
        yield _next(rows, started)
    for lane in started:
        lane.join()


def _next(rows: Any, lanes: list[Any]) -> dict[str, Any]:
    """The next row; RuntimeError if a process was ended that should have made it. One may be done before the others."""
    while not rows.poll(60):
        if any(lane.exitcode for lane in lanes) or not any(lane.is_alive() for lane in lanes):
            raise RuntimeError("a process of the fuzzer was ended, perhaps for want of memory")
    row: dict[str, Any] = rows.recv()
    return row


def _lane(plan: Plan, tasks: Any, rows: Any, lock: Any, folder: Path) -> None:
    """A process that tries cases; it has no threads, since it forks."""
    shrunk: Counter[str] = Counter()
    while (number := tasks.get()) is not None:
        try:
            row = attempt(plan, number, shrunk, folder)
        except Exception:  # the others go on
            row = _empty(plan, number) | {"kind": "oracle", "what": "the fuzzer failed"}
            row |= {"detail": traceback.format_exc()}
        with lock:
            rows.send(row)


def _empty(plan: Plan, number: int) -> dict[str, Any]:
    return {
        "seed": plan.seed,
        "number": number,
        "ops": [],
        "importer": "",
        "target": "",
        "pipeline": "",
        "seconds": 0.0,
    }


def attempt(plan: Plan, number: int, shrunk: Counter[str], folder: Path) -> dict[str, Any]:
    """Try one case, and shrink it if it fails in a way that was not shrunk often enough."""
    started = time.monotonic()
    case = plan.case(number)
    verdict = workers.apart(lambda: judge(case))
    row = _empty(plan, number) | {"importer": case.importer, "target": case.target, "pipeline": case.pipeline}
    row |= {"precision": case.precision, "input": case.inputs}
    row |= {"kind": verdict.kind, "what": verdict.what, "detail": verdict.detail[-2000:]}
    row |= {"ops": [step.op for step in case.program.steps]}
    if verdict.kind in ("fault", "oracle") and shrunk[verdict.what] < SHRUNK_OF_A_KIND:
        shrunk[verdict.what] += 1
        row["script"] = str(_save(case, verdict, folder, f"{plan.seed}_{number}"))
    return row | {"seconds": round(time.monotonic() - started, 1)}


def _save(case: Case, verdict: Verdict, folder: Path, name: str) -> Path:
    """Write the script of the least case that fails in the same way."""
    deadline = time.monotonic() + SHRINK_SECONDS

    def fails(smaller: Case) -> bool:
        if time.monotonic() > deadline:
            return False
        found = workers.apart(lambda: judge(smaller))
        return (found.kind, found.what) == (verdict.kind, verdict.what)

    least = shrink(case, fails)
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"fuzz_{name}.py"
    file.write_text(write(least, workers.apart(lambda: judge(least)) if least != case else verdict))
    return file


def known(file: Path, plan: Plan) -> dict[int, dict[str, Any]]:
    """The rows of a file of JSON lines that this plan made."""
    lines = file.read_text().splitlines() if file.exists() else []
    rows = [row for row in map(json.loads, lines) if row["plan"] == str(plan)]
    return {row["number"]: row for row in rows}


def say(row: dict[str, Any]) -> None:
    if row["kind"] in ("fault", "oracle"):
        detail = row["detail"].strip().splitlines()[-1:] or [""]
        print(
            f"model {row['number']}: {row['what']}; {detail[0]}  {row.get('script', '')}", file=sys.stderr, flush=True
        )
