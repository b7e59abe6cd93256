"""What factoring leaves of a network, on images of their own.

    python tools/factoring_loss.py --pipelines "O1,factor-low-rank{macs=0.5};O1,factor-low-rank{energy=0.9}"

The networks, and what they are calibrated and evaluated on, are those of `compare_quantisation`. Any pipeline does;
prints one row of a table for each.
"""

from __future__ import annotations

import argparse
import time

from compare_quantisation import NETWORKS, Samples, outputs, score, simulated

from lvc.compiler.driver import optimise
from lvc.compiler.measure.comparison.loss import compare
from lvc.compiler.measure.counts import total_macs
from lvc.compiler.pipeline.pipeline import Pipeline
from lvc.compiler.pipeline.workspace import Workspace
from lvc.compiler.text import decibels, percent

MOST_IMAGES = 400


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="resnet56", help="which, of " + ", ".join(NETWORKS))
    parser.add_argument("--pipelines", default="O1,factor-low-rank{macs=0.476}", help="separated by ;")
    parser.add_argument("--limit", type=int, default=2000, help="evaluate on at most so many images")
    parser.add_argument("--no-data", action="store_true", help="by weights alone")
    options = parser.parse_args()
    network = NETWORKS[options.network]
    calibration, samples = (Samples(part().items) for part in (network.calibration, network.evaluation))
    step = -(-len(samples) // options.limit)
    calibration = Samples(calibration.items[:: -(-len(calibration) // MOST_IMAGES)])
    samples = Samples(samples.items[::step])
    model = network.request.load()
    wanted = outputs(simulated(model), samples)
    print("| pipeline | MACs left | right | dB | s |\n|---|---:|---:|---:|---:|")
    print(f"| as it is | 1.000 | {percent(score(network, wanted, samples, step), 2)} | | |", flush=True)
    for text in options.pipelines.split(";"):
        started = time.process_time()
        data = {} if options.no_data else {"calib": lambda: calibration}
        made, _ = optimise(model, Pipeline.parse(text), Workspace(data=data, threads=1))
        seconds = time.process_time() - started
        found = outputs(simulated(made), samples)
        left = total_macs(made.module.graph) / total_macs(model.module.graph)
        right, moved = score(network, found, samples, step), compare("", [wanted], [found])
        print(
            f"| `{text}` | {left:.3f} | {percent(right, 2)} | {decibels(moved.sqnr)} | {seconds:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
