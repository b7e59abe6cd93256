"""Pruning of the CIFAR-10 ResNet-56 by every criterion, without training, beside Torch-Pruning on the same data.

    python tools/compare_pruning.py ../shared/assets --results criteria.jsonl --table criteria.md

Calibration sees train400 alone; accuracy is that on test2000. A cell is a criterion, how groups compare
(``--rankings``), what follows the removal (nothing, batch norms estimated anew, or weights reconstructed by least
squares), and the factor by which MACs fall. Cells are appended to a file of JSON lines as they are measured, and those
that stand there are not measured again. Torch-Pruning prunes the inner channels of each block, for across the padded
shortcut it removes wrong ones, and has its batch norms estimated anew as ours have. It is an optional peer:
``pip install torch-pruning``.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from lvc.compiler.ir.model import Model
from lvc.compiler.load import from_module
from lvc.compiler.load.request import LoadRequest
from lvc.compiler.measure.evaluation import evaluate
from lvc.compiler.measure.inspection import layers
from lvc.compiler.measure.layers import totals
from lvc.compiler.pipeline.pipeline import Pipeline
from lvc.compiler.pipeline.workspace import Workspace
from lvc.passes.pruning.criterion import CRITERIA

BATCH = 50
NETWORK = Path(__file__).parents[1] / "examples" / "cifar_resnet.py"
WEIGHTS = {"resnet20": "resnet20-12fca82f.th", "resnet56": "resnet56-4bfd9763.th"}
PEER = "torch-pruning"
AFTERWARDS = {
    "nothing": "reconstruct=false recalibrate=false",
    "recalibrate": "reconstruct=false recalibrate=true",
    "reconstruct": "reconstruct=true recalibrate=false",
}
PEERS = {
    "l1": lambda peer: peer.GroupMagnitudeImportance(p=1),
    "l2": lambda peer: peer.GroupMagnitudeImportance(p=2),
    "taylor": lambda peer: peer.GroupTaylorImportance(),
    "batch-norm-scale": lambda peer: peer.BNScaleImportance(),
    "geometric-median": lambda peer: peer.FPGMImportance(),
    "lamp": lambda peer: peer.LAMPImportance(),
    "random": lambda peer: peer.RandomImportance(),
}
"""Torch-Pruning's importances under the names that the criteria have here."""


@dataclass(frozen=True)
class Cell:
    """One thing to measure."""

    who: str
    criterion: str
    ranking: str
    afterwards: str
    factor: float


@dataclass(frozen=True)
class Row:
    """What was measured of a cell: by how much MACs fell, the accuracy, and the seconds of processor time to prune."""

    cell: Cell
    fallen: float
    accuracy: float
    seconds: float

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Row:
        data = json.loads(text)
        return cls(**{**data, "cell": Cell(**data["cell"])})

    def __str__(self) -> str:
        cell = self.cell
        name = f"{cell.who} {cell.criterion}, {cell.ranking}, {cell.afterwards}"
        return f"{name:<52} {self.fallen:5.3f}x fewer MACs  {self.accuracy:7.2%}  {self.seconds:6.1f} s"


@dataclass(frozen=True)
class Images:
    """Images in memory as a data set: ``x`` is ``f32[N,3,32,32]``, normalised."""

    x: np.ndarray
    y: np.ndarray

    @classmethod
    def read(cls, assets: Path, split: str) -> Images:
        """Cut a sheet of 32x32 tiles, images in rows, into images."""
        sheet = np.asarray(Image.open(assets / "cifar10" / f"cifar10_{split}.webp").convert("RGB"))
        rows, columns = sheet.shape[0] // 32, sheet.shape[1] // 32
        tiles = sheet.reshape(rows, 32, columns, 32, 3).transpose(0, 2, 1, 3, 4).reshape(-1, 32, 32, 3)
        labels = np.load(assets / "cifar10" / f"cifar10_{split}_labels.npz")["label"]
        mean = np.array([0.485, 0.456, 0.406], np.float32)
        deviation = np.array([0.229, 0.224, 0.225], np.float32)
        x = ((tiles / np.float32(255) - mean) / deviation).transpose(0, 3, 1, 2)
        return cls(np.ascontiguousarray(x, np.float32), labels)

    def __len__(self) -> int:
        return len(self.x)

    def __iter__(self) -> Iterator[tuple[np.ndarray, int | None]]:
        return ((self.x[place : place + 1], int(self.y[place])) for place in range(len(self.x)))

    def spread(self, count: int) -> Images:
        """Every so-manieth image, so that each class has its share."""
        every = max(1, len(self) // count)
        return Images(self.x[::every], self.y[::every])


class Comparison:
    """A trained network with the images that it is calibrated on and those that judge it."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.network = options.network
        self.assets = options.assets
        self.calibration = Images.read(options.assets, "train400")
        self.test = Images.read(options.assets, "test2000").spread(options.images)

    @cached_property
    def model(self) -> Model:
        shapes = {"": (BATCH, 3, 32, 32)}
        weights = str(self.assets / "cifar10" / WEIGHTS[self.network])
        return LoadRequest(f"{NETWORK}:{self.network}", weights, shapes=shapes).load()

    @cached_property
    def macs(self) -> float:
        return totals(layers(self.model)).macs

    def accuracy(self, model: Model) -> float:
        folded, _ = Pipeline.parse("fold-batch-norm").run(model)
        score = evaluate(folded, self.test, BATCH)
        return score.top1 / score.labelled

    def measure(self, cell: Cell) -> Row:
        return self._measure_peer(cell) if cell.who == PEER else self._measure_lvc(cell)

    def _measure_lvc(self, cell: Cell) -> Row:
        settings = f"criterion={cell.criterion} ranking={cell.ranking} {AFTERWARDS[cell.afterwards]}"
        pipeline = Pipeline.parse(f"prune-channels{{macs={1 / cell.factor:.6f} {settings}}}")
        started = time.process_time()
        both = dict.fromkeys(
            ("calib", "judge"), lambda: self.calibration
        )  # so that none is held out: the peer sees all
        pruned, _ = pipeline.run(self.model, Workspace(data=both, threads=1))
        seconds = time.process_time() - started
        fallen = self.macs / totals(layers(pruned)).macs
        return Row(cell, round(fallen, 4), self.accuracy(pruned), round(seconds, 1))

    def _measure_peer(self, cell: Cell) -> Row:
        started = time.process_time()
        module = self._module()
        fallen = self._prune_by_peer(module, cell)
        if cell.afterwards == "recalibrate":
            estimate_batch_norms(module, self.calibration)
        seconds = time.process_time() - started
        model = from_module(module, torch.zeros(BATCH, 3, 32, 32))
        return Row(cell, round(fallen, 4), self.accuracy(model), round(seconds, 1))

    def _module(self) -> torch.nn.Module:
        spec = importlib.util.spec_from_file_location("cifar_resnet", NETWORK)
        assert spec
        assert spec.loader
        code = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(code)
        module: torch.nn.Module = getattr(code, self.network)()
        path = self.assets / "cifar10" / WEIGHTS[self.network]
        state = torch.load(path, weights_only=True, map_location="cpu")
        state = state.get("state_dict", state)
        module.load_state_dict({name.removeprefix("module."): value for name, value in state.items()})
        return module.eval()

    def _prune_by_peer(self, module: torch.nn.Module, cell: Cell) -> float:
        """Prune inner channels of blocks, more until MACs have fallen by the factor; return how far they fell."""
        import torch_pruning

        inner = [layer for name, layer in module.named_modules() if name.startswith("layer") and name.endswith("conv1")]
        others = [layer for layer in module.modules() if isinstance(layer, (torch.nn.Conv2d, torch.nn.Linear))]
        example = torch.zeros(1, 3, 32, 32)
        full, _ = torch_pruning.utils.count_ops_and_params(module, example)
        steps = 100
        pruner = torch_pruning.pruner.BasePruner(
            module,
            example,
            importance=PEERS[cell.criterion](torch_pruning.importance),
            global_pruning=cell.ranking == "global",
            pruning_ratio=1.0,
            max_pruning_ratio=0.9,
            iterative_steps=steps,
            ignored_layers=[layer for layer in others if layer not in inner],
        )
        if cell.criterion == "taylor":
            self._differentiate(module)
        for _ in range(steps):
            now, _ = torch_pruning.utils.count_ops_and_params(module, example)
            if full / now >= cell.factor:
                break
            pruner.step()
        return float(full / now)

    def _differentiate(self, module: torch.nn.Module) -> None:
        """Leave the gradients of the loss on a part of the calibration data where Torch-Pruning looks for them.

        It prunes them with the weights.
        """
        part = self.calibration.spread(100)
        module.zero_grad()
        torch.nn.functional.cross_entropy(module(torch.from_numpy(part.x)), torch.from_numpy(part.y).long()).backward()


@torch.no_grad()
def estimate_batch_norms(module: torch.nn.Module, calibration: Images) -> None:
    for layer in module.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.reset_running_stats()
            layer.momentum = None
    module.train()
    module(torch.from_numpy(calibration.x))
    module.eval()


def cells(options: argparse.Namespace) -> Iterator[Cell]:
    """All that is asked for; Torch-Pruning's last, where it is installed."""
    for factor in options.factors:
        for criterion in options.criteria:
            for ranking in options.rankings:
                for afterwards in options.afterwards:
                    yield Cell("lvc", criterion, ranking, afterwards, factor)
    if options.without_peer or not importlib.util.find_spec("torch_pruning"):
        return
    for factor in options.factors:
        for criterion in PEERS:
            yield Cell(PEER, criterion, "layer", "recalibrate", factor)
        for criterion in ("l1", "l2"):
            yield Cell(PEER, criterion, "global", "recalibrate", factor)


def table(rows: Sequence[Row]) -> str:
    """One line a criterion, one column for each factor and what followed."""
    columns = list(dict.fromkeys((row.cell.factor, row.cell.afterwards) for row in rows))
    columns.sort(key=lambda column: (-column[0], list(AFTERWARDS).index(column[1])))
    lines: dict[tuple[str, str, str], dict[tuple[float, str], Row]] = {}
    for row in rows:
        line = lines.setdefault((row.cell.who, row.cell.criterion, row.cell.ranking), {})
        line[row.cell.factor, row.cell.afterwards] = row
    heads = ["tool", "criterion", "ranking", *(f"{factor:g}x, {name}" for factor, name in columns)]
    text = ["| " + " | ".join(heads) + " |", "|" + "---|" * 3 + "---:|" * len(columns)]
    for name, line in sorted(lines.items()):
        found = [f"{line[column].accuracy:.2%}" if column in line else "" for column in columns]
        text.append("| " + " | ".join([*name, *found]) + " |")
    return "\n".join(text) + "\n"


def main() -> None:
    options = _options()
    torch.set_num_threads(options.threads)
    lines = options.results.read_text().splitlines() if options.results.exists() else []
    done = {row.cell: row for row in map(Row.from_json, lines)}
    wanted = list(dict.fromkeys(cells(options)))
    comparison = Comparison(options)
    for cell in wanted:
        if cell in done:
            continue
        done[cell] = comparison.measure(cell)
        with options.results.open("a") as file:
            file.write(done[cell].to_json() + "\n")
        print(done[cell], file=sys.stderr, flush=True)
    text = table([done[cell] for cell in wanted])
    if options.table:
        options.table.write_text(text)
    else:
        print(text)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        allow_abbrev=False, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("assets", type=Path)
    parser.add_argument("--network", choices=WEIGHTS, default="resnet56")
    parser.add_argument("--factors", type=_numbers, default=[2.1, 1.5])
    parser.add_argument("--criteria", type=_words, default=CRITERIA.names())
    parser.add_argument("--rankings", type=_words, default=["layer"])
    parser.add_argument("--afterwards", type=_words, default=["recalibrate", "reconstruct"])
    parser.add_argument("--images", type=int, default=2000, help="how many of the test images")
    parser.add_argument("--without-peer", action="store_true", help="leave Torch-Pruning out")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--results", type=Path, default=Path("criteria.jsonl"), help="file of JSON lines to go on from")
    parser.add_argument("--table", type=Path, help="write the Markdown table here")
    return parser.parse_args()


def _words(text: str) -> list[str]:
    return text.split(",")


def _numbers(text: str) -> list[float]:
    return [float(part) for part in text.split(",")]


if __name__ == "__main__":
    main()
