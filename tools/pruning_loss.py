"""What the report says that pruning cost, beside what evaluation on images of their own says.

    python tools/pruning_loss.py --networks resnet20,mobilenet --shares 0.8,0.6,0.4 --results losses.jsonl

The networks, and what they are calibrated and evaluated on, are those of `compare_quantisation`. Each is pruned to a
share of its multiply-accumulates; the report judges it on the part of the calibration images that is held out. Results
are appended to a file of JSON lines, and what stands there is not measured again.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from compare_quantisation import NETWORKS, Samples, outputs, score, simulated

from lvc.compiler.driver import optimise
from lvc.compiler.measure.comparison.judge import last_loss
from lvc.compiler.measure.comparison.loss import compare
from lvc.compiler.measure.comparison.verdict import loss_lines
from lvc.compiler.pipeline.pipeline import Pipeline
from lvc.compiler.pipeline.workspace import Workspace
from lvc.compiler.text import percent, table

COLUMNS = ("network", "MACs", "dB, report", "dB", "agree, report", "agree", "right, report", "right", "right, float")


def measure(name: str, share: float, calibrated: int, limit: int) -> dict[str, Any]:
    """Prune a network; return what the report says of it and what the evaluation says."""
    network = NETWORKS[name]
    calibration, samples = (Samples(part().items) for part in (network.calibration, network.evaluation))
    step = -(-len(samples) // limit)
    calibration = Samples(calibration.items[:: -(-len(calibration) // calibrated)])
    samples = Samples(samples.items[::step])
    model = network.request.load()
    started = time.process_time()
    pipeline = Pipeline.parse(f"prune-channels{{macs={share}}}")
    pruned, steps = optimise(model, pipeline, Workspace(data={"calib": lambda: calibration}, threads=1))
    seconds = time.process_time() - started
    said = last_loss(steps)
    assert said is not None
    wanted, found = outputs(simulated(model), samples), outputs(simulated(pruned), samples)
    true = compare("", [wanted], [found])
    return {
        "network": name,
        "share": share,
        "limit": limit,
        "calibrated": len(calibration),
        "judged": said.images,
        "evaluated": len(samples),
        "dB, report": said.worst.sqnr,
        "dB": true.sqnr,
        "agree, report": said.worst.agreement,
        "agree": true.agreement,
        "right, report": said.score,
        "right": score(network, found, samples, step),
        "right, float": score(network, wanted, samples, step),
        "seconds": round(seconds),
        "verdict": loss_lines(steps, model.inputs),
        "notes": [note for step in steps for note in step.outcome.notes],
    }


def cells(row: dict[str, Any]) -> list[str]:
    def shown(column: str) -> str:
        value = row[column]
        if value is None:
            return ""
        return f"{value:.1f}" if "dB" in column else percent(value, 2)

    return [row["network"], f"{row['share']}", *map(shown, COLUMNS[2:])]


def main() -> None:
    parser = argparse.ArgumentParser(
        allow_abbrev=False, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--networks", default=",".join(NETWORKS), help="which, of " + ", ".join(NETWORKS))
    parser.add_argument("--shares", default="0.8,0.6,0.4", help="the shares of the multiply-accumulates to keep")
    parser.add_argument("--calibrate", type=int, default=400, help="calibrate on at most so many images")
    parser.add_argument("--limit", type=int, default=2000, help="evaluate on at most so many images")
    parser.add_argument("--results", type=Path, default=Path("losses.jsonl"), help="file of JSON lines to go on from")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = [json.loads(line) for line in options.results.read_text().splitlines()] if options.results.exists() else []
    done = {(row["network"], row["share"]) for row in rows}
    for share in map(float, options.shares.split(",")):
        for name in options.networks.split(","):
            if (name, share) not in done:
                rows.append(measure(name, share, options.calibrate, options.limit))
                with options.results.open("a") as file:
                    file.write(json.dumps(rows[-1]) + "\n")
    print(table(COLUMNS, list(map(cells, sorted(rows, key=lambda row: (row["network"], -row["share"])))), "lr"))


if __name__ == "__main__":
    main()
