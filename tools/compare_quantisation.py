"""Measure what quantisation costs trained networks: agreement with the float model, top-1 or average precision, SQNR.

    python tools/compare_quantisation.py --networks resnet20,mobilenet --pipelines int8-fast,int8 --json results.json

CIFAR networks are calibrated on 400 training images and evaluated on 2,000 test images; ImageNet networks on the 200
images whose index is a multiple of 5, and the other 800; the detector on every fourth picture, and all 128. The assets
are found through LVC_TEST_ASSETS (default: ../shared/assets beside the checkout). Figures are of the simulation in
PyTorch, which integer kernels match but for rounding; seconds are those of the processor, on one thread.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from lvc.compiler.data.preprocess import Preprocess
from lvc.compiler.driver import LoadRequest
from lvc.compiler.model import Model
from lvc.compiler.pipeline import Pipeline
from lvc.compiler.text import table
from lvc.compiler.workspace import Workspace

ROOT = Path(__file__).resolve().parents[1]
ASSETS = Path(os.environ.get("LVC_TEST_ASSETS", ROOT.parent / "shared" / "assets"))
Sample = tuple[np.ndarray, int | None]


@dataclass(frozen=True)
class Samples:
    """A data set in memory."""

    items: Sequence[Sample]

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Sample]:
        return iter(self.items)


@dataclass(frozen=True)
class Network:
    """A trained network, what it is calibrated on, and what it is measured on."""

    request: LoadRequest
    calibration: Callable[[], Samples]
    evaluation: Callable[[], Samples]
    detects: bool = False


@dataclass(frozen=True)
class Row:
    """One network after one pipeline; ``score`` is top-1, or AP averaged over IoU 0.50 to 0.95."""

    network: str
    pipeline: str
    score: float
    agreement: float | None
    sqnr: float
    seconds: float
    notes: tuple[str, ...]


def cifar(part: str, count: int) -> Samples:
    """Read a lossless sprite of 32x32 tiles, 50 in a row."""
    prepare = Preprocess.parse("cifar10")
    sprite = np.asarray(Image.open(ASSETS / "cifar10" / f"cifar10_{part}.webp").convert("RGB"))
    tiles = sprite.reshape(count // 50, 32, 50, 32, 3).transpose(0, 2, 1, 3, 4).reshape(count, 32, 32, 3)
    with np.load(ASSETS / "cifar10" / f"cifar10_{part}_labels.npz") as labels:
        return Samples([(prepare(x), int(y)) for x, y in zip(tiles, labels["label"], strict=True)])


def imagenet(preprocess: str, calibration: bool) -> Samples:
    prepare, samples = Preprocess.parse(preprocess), []
    with zipfile.ZipFile(ASSETS / "imagenet" / "imagenet1000_224_webp85.zip") as archive:
        for name in sorted(n for n in archive.namelist() if n.endswith(".webp")):
            index = int(Path(name).name[:4])
            if (index % 5 == 0) is calibration:
                picture = Image.open(io.BytesIO(archive.read(name))).convert("RGB")
                samples.append((prepare(picture), index))
    return Samples(samples)


def coco(step: int) -> Samples:
    from coco_score import pictures

    return Samples([(picture, None) for picture, _, _ in pictures(ASSETS / "coco")][::step])


def cifar_network(name: str, weights: str) -> Network:
    request = LoadRequest(
        f"{ROOT / 'examples' / 'cifar_resnet.py'}:{name}",
        weights=str(ASSETS / "cifar10" / weights),
        shapes={"input": (1, 3, 32, 32)},
    )
    return Network(request, lambda: cifar("train400", 400), lambda: cifar("test2000", 2000))


def imagenet_network(request: LoadRequest, preprocess: str) -> Network:
    return Network(request, lambda: imagenet(preprocess, True), lambda: imagenet(preprocess, False))


NETWORKS = {
    "resnet20": cifar_network("resnet20", "resnet20-12fca82f.th"),
    "resnet56": cifar_network("resnet56", "resnet56-4bfd9763.th"),
    "mobilenet": imagenet_network(
        LoadRequest(
            f"{ROOT / 'examples' / 'mobilenet_v1.py'}:mobilenet_v1",
            weights=str(ASSETS / "imagenet" / "mobilenet_v1_0.75_224_fp16.npz"),
            arguments={"width": 0.75},
            shapes={"input": (1, 3, 224, 224)},
        ),
        "crop=224,range=255,mean=127.5,std=127.5",
    ),
    "lite0": imagenet_network(
        LoadRequest(f"{ROOT / 'examples' / 'efficientnet_lite0.py'}:trained"), "crop=224,range=255,mean=127,std=128"
    ),
    "yolox_nano": Network(
        LoadRequest(str(ASSETS / "onnx" / "yolox_nano.onnx")), lambda: coco(4), lambda: coco(1), detects=True
    ),
}


def outputs(model: Model, samples: Samples) -> torch.Tensor:
    with torch.inference_mode():
        return torch.cat([model.module(torch.from_numpy(x))[0] for x, _ in samples])


def score(network: Network, found: torch.Tensor, samples: Samples) -> float:
    """Return top-1 accuracy, or the average precision of a detector."""
    if network.detects:
        from coco_score import score as average_precision

        results = iter(found.numpy())
        return average_precision(lambda _: next(results)[None], ASSETS / "coco")[1]
    labels = torch.tensor([label for _, label in samples])
    return float((found.argmax(1) == labels).double().mean())


def measure(name: str, pipelines: Sequence[str], limit: int | None) -> Iterator[Row]:
    """Yield the float network, then each pipeline's; ``limit`` thins out what it is evaluated on."""
    network = NETWORKS[name]
    samples = network.evaluation()
    if limit is not None and limit < len(samples):
        samples = Samples(samples.items[:: -(-len(samples) // limit)])
    model, _ = Pipeline.parse("O1").run(network.request.load())
    wanted = outputs(model, samples)
    yield Row(name, "float", score(network, wanted, samples), None, float("inf"), 0.0, ())
    calibration = network.calibration()
    workspace = Workspace(data={"calib": lambda: calibration}, threads=1)
    for text in pipelines:
        started = time.process_time()
        quantised, steps = Pipeline.parse(text).run(model, workspace)
        seconds = time.process_time() - started
        found = outputs(quantised, samples)
        noise = float((found - wanted).double().square().sum())
        sqnr = 10 * float(torch.log10(wanted.double().square().sum() / noise))
        agreement = None if network.detects else float((found.argmax(1) == wanted.argmax(1)).double().mean())
        notes = tuple(note for step in steps for note in step.outcome.notes)
        yield Row(name, text, score(network, found, samples), agreement, sqnr, seconds, notes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", default=",".join(NETWORKS), help="which, of " + ", ".join(NETWORKS))
    parser.add_argument("--pipelines", default="int8-fast;int8", help="pipeline texts, separated by semicolons")
    parser.add_argument("--limit", type=int, help="evaluate on at most so many images")
    parser.add_argument("--json", type=Path, help="write the rows there too")
    options = parser.parse_args()
    torch.set_num_threads(1)
    sys.path.insert(0, str(ROOT / "tests"))
    rows: list[Row] = []
    for name in options.networks.split(","):
        for row in measure(name, options.pipelines.split(";"), options.limit):
            rows.append(row)
            print(f"{name}, {row.pipeline}: {row.score:.4f}", *row.notes, sep="\n    ", file=sys.stderr, flush=True)
            if options.json:
                options.json.write_text(json.dumps([asdict(item) for item in rows], indent=1))
    cells = [
        (r.network, r.pipeline, f"{r.score:.4f}", percent(r.agreement), f"{r.sqnr:.1f} dB", f"{r.seconds:.0f} s")
        for r in rows
    ]
    print(table(("network", "pipeline", "top-1 or AP", "agreement", "SQNR", "time"), cells, "llr"))


def percent(share: float | None) -> str:
    return "" if share is None else f"{share:.2%}".replace("%", " %")


if __name__ == "__main__":
    main()
