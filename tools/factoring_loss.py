"""What factoring, or any pipeline, leaves of a network without training, on images of their own.

    python tools/factoring_loss.py --results rows.json --pipelines "O1,factor-low-rank{macs=0.5}"
    python tools/factoring_loss.py --results rows.json --pipelines "" --plot accuracy.svg

The networks, and what they are calibrated and evaluated on, are those of `compare_quantisation`. Prints one row of a
table for each pipeline; what stands in the results for the same settings is not measured again. The picture has a
curve for each method and pass, over the multiply-accumulates that are left.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from compare_quantisation import NETWORKS, Network, Samples, outputs, score, simulated

from lvc.compiler.driver import optimise
from lvc.compiler.ir.model import Model
from lvc.compiler.measure.comparison.loss import compare
from lvc.compiler.measure.counts import total_macs
from lvc.compiler.measure.pictures.canvas import COLOURS, MARKERS, Head, lay_out, render
from lvc.compiler.pipeline.pipeline import Pipeline
from lvc.compiler.pipeline.workspace import Workspace
from lvc.compiler.text import decibels, percent

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_IMAGES = 400
AS_IT_IS = ""
"""The pipeline of the row that says how good the network is untouched."""


@dataclass(frozen=True)
class Row:
    """A network after a pipeline: the share of the MACs that is left, of images that are right, and the SQNR in dB."""

    network: str
    pipeline: str
    with_data: bool
    limit: int
    macs: float
    right: float
    sqnr: float
    seconds: float

    @property
    def settings(self) -> tuple[str, str, bool, int]:
        return self.network, self.pipeline, self.with_data, self.limit

    def __str__(self) -> str:
        if self.pipeline == AS_IT_IS:
            return f"| as it is | {self.macs:.3f} | {percent(self.right, 2)} | | |"
        data = "" if self.with_data else " without data"
        figures = f"{self.macs:.3f} | {percent(self.right, 2)} | {decibels(self.sqnr)} | {self.seconds:.0f}"
        return f"| `{self.pipeline}`{data} | {figures} |"


class Trial:
    """A network with its images, and what it gave before anything was done to it."""

    def __init__(self, name: str, network: Network, limit: int) -> None:
        self._name, self._network, self._limit = name, network, limit
        calibration, samples = (Samples(part().items) for part in (network.calibration, network.evaluation))
        self._step = -(-len(samples) // limit)
        self._calibration = Samples(calibration.items[:: -(-len(calibration) // MOST_IMAGES)])
        self._samples = Samples(samples.items[:: self._step])
        self._model = network.request.load()
        self._wanted = outputs(simulated(self._model), self._samples)

    def measure(self, pipeline: str, with_data: bool) -> Row:
        started = time.process_time()
        data = {"calib": lambda: self._calibration} if with_data else {}
        made: Model = self._model
        if pipeline != AS_IT_IS:
            made, _ = optimise(self._model, Pipeline.parse(pipeline), Workspace(data=data, threads=1))
        seconds = time.process_time() - started
        found = outputs(simulated(made), self._samples)
        left = total_macs(made.module.graph) / total_macs(self._model.module.graph)
        right, moved = score(self._network, found, self._samples, self._step), compare("", [self._wanted], [found])
        return Row(self._name, pipeline, with_data, self._limit, left, right, moved.sqnr, seconds)


def curves(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The rows by what was done, the amount left out, each with the network as it is at its end."""
    found: dict[str, list[Row]] = {}
    whole = [row for row in rows if row.pipeline == AS_IT_IS]
    for row in rows:
        name, options = re.findall(r"([\w-]+)(?:\{([^}]*)\})?$", row.pipeline)[0] if row.pipeline else ("", "")
        method = re.search(r"method=([\w-]+)", options)
        title = method[1] if method else name
        if row.pipeline != AS_IT_IS:
            found.setdefault(title + ("" if row.with_data else ", no data"), list(whole)).append(row)
    return {title: sorted(points, key=lambda row: row.macs) for title, points in found.items()}


def draw(figure: Figure, rows: Sequence[Row]) -> None:
    lay_out(figure, Head(f"{rows[0].network} without training", "right of all images, over the work that is left"), 4.6)
    axes = figure.subplots()
    titles = sorted({title.removesuffix(", no data") for title in curves(rows)})
    looks = {title: (COLOURS[at % len(COLOURS)], MARKERS[at % len(MARKERS)]) for title, at in zip(titles, count())}
    for title, points in curves(rows).items():
        colour, marker = looks[title.removesuffix(", no data")]
        dashes = "--" if title.endswith(", no data") else "-"
        xs, ys = [100 * row.macs for row in points], [100 * row.right for row in points]
        axes.plot(xs, ys, dashes, color=colour, marker=marker, markersize=5, linewidth=1.6, label=title)
    best = 100 * max(row.right for row in rows)
    axes.set(xlabel="multiply-accumulates left, %", ylabel="top-1 accuracy, %", ylim=(best - 20, best + 1))
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1))


def main() -> None:
    parser = argparse.ArgumentParser(
        allow_abbrev=False, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--network", default="resnet56", help="which, of " + ", ".join(NETWORKS))
    parser.add_argument("--pipelines", default="O1,factor-low-rank{macs=0.5}", help="separated by ;")
    parser.add_argument("--limit", type=int, default=2000, help="evaluate on at most so many images")
    parser.add_argument("--no-data", action="store_true", help="by weights alone")
    parser.add_argument("--results", type=Path, help="file of JSON lines to go on from")
    parser.add_argument("--plot", type=Path, help="draw all results of the network into this .svg or .png")
    options = parser.parse_args()
    lines = options.results.read_text().splitlines() if options.results and options.results.exists() else []
    done = {row.settings: row for row in (Row(**json.loads(line)) for line in lines)}
    trial: Trial | None = None
    print("| pipeline | MACs left | right | dB | s |\n|---|---:|---:|---:|---:|")
    for pipeline in [AS_IT_IS, *filter(None, options.pipelines.split(";"))]:
        with_data = not options.no_data or pipeline == AS_IT_IS
        row = done.get((options.network, pipeline, with_data, options.limit))
        if row is None:
            trial = trial or Trial(options.network, NETWORKS[options.network], options.limit)
            row = done.setdefault(
                (options.network, pipeline, with_data, options.limit), trial.measure(pipeline, with_data)
            )
            if options.results:
                with options.results.open("a") as file:
                    file.write(json.dumps(asdict(row)) + "\n")
        print(row, flush=True)
    if options.plot:
        drawn = [row for row in done.values() if row.network == options.network]
        options.plot.write_bytes(render(options.plot.suffix, lambda figure: draw(figure, drawn)))


if __name__ == "__main__":
    main()
