"""Measure what quantisation costs trained networks: agreement with the float model, top-1 or average precision, SQNR.

    python tools/compare_quantisation.py --networks resnet20,mobilenet --pipelines "int8-fast;int8" --json results.json
    python tools/compare_quantisation.py --peers nncf,onnxruntime --json results.json   # needs lvc[quantisation-peers]

CIFAR networks are calibrated on 400 training images and evaluated on 2,000 test images; ImageNet networks on the 200
images whose index is a multiple of 5, and the other 800; the detector on every fourth picture, and all 128. The assets
are found through LVC_TEST_ASSETS (default: ../shared/assets beside the checkout). Figures are of the simulation in
PyTorch, which integer kernels match but for rounding, and peers are simulated as well (quantisation_peers.py);
seconds are those of the processor, on one thread.

A row that stands in the file of ``--json`` (same network, same pipeline or peer, same limit) is not measured again.
"""

from __future__ import annotations

import argparse
import contextlib
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
from lvc.compiler.errors import LvcError, UsageError
from lvc.compiler.files import write_atomically
from lvc.compiler.ir.model import Model
from lvc.compiler.load.request import LoadRequest
from lvc.compiler.pipeline.pipeline import Pipeline
from lvc.compiler.pipeline.workspace import Workspace
from lvc.compiler.text import percent, table

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from coco_score import pictures  # noqa: E402
from coco_score import score as average_precision  # noqa: E402
from quantisation_peers import PEERS, missing  # noqa: E402

ASSETS = Path(os.environ.get("LVC_TEST_ASSETS", ROOT.parent / "shared" / "assets"))
Sample = tuple[np.ndarray, int | None]
Run = Callable[[np.ndarray], np.ndarray]
Settings = tuple[str, str, int | None]
FLOAT = "float"


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
    """One network after one pipeline or peer; ``score`` is top-1, or AP averaged over IoU 0.50 to 0.95."""

    network: str
    pipeline: str
    limit: int | None
    score: float
    agreement: float | None
    sqnr: float
    seconds: float
    notes: tuple[str, ...]

    @property
    def settings(self) -> Settings:
        return self.network, self.pipeline, self.limit


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


def outputs(run: Run, samples: Samples) -> torch.Tensor:
    return torch.cat([torch.from_numpy(run(x)) for x, _ in samples])


def simulated(model: Model) -> Run:
    def run(image: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            found: torch.Tensor = model.module(torch.from_numpy(image))[0]
        return found.numpy()

    return run


def score(network: Network, found: torch.Tensor, samples: Samples, step: int) -> float:
    """Return top-1 accuracy, or the average precision of a detector on every ``step``-th picture."""
    if network.detects:
        results = iter(found.numpy())
        return average_precision(lambda _: next(results)[None], ASSETS / "coco", step)[1]
    labels = torch.tensor([label for _, label in samples])
    return float((found.argmax(1) == labels).double().mean())


def quantise(text: str, model: Model, calibration: Samples, detects: bool) -> tuple[Run, tuple[str, ...]]:
    """Quantise by a peer of that name, or else by a pipeline of that text; return how to run it, and notes."""
    if text in PEERS:
        with contextlib.redirect_stdout(sys.stderr):  # their progress is no part of the table
            run, notes = PEERS[text].quantise(model, [image for image, _ in calibration], detects)
        return run, (PEERS[text].versions(), *notes)
    workspace = Workspace(data={"calib": lambda: calibration}, threads=1)
    quantised, steps = Pipeline.parse(text).run(model, workspace)
    return simulated(quantised), tuple(note for step in steps for note in step.outcome.notes)


def measure(name: str, texts: Sequence[str], limit: int | None) -> Iterator[Row]:
    """Yield a row for each of "float", pipelines and peers; ``limit`` thins out what they are evaluated on."""
    if not texts:
        return
    network = NETWORKS[name]
    samples = network.evaluation()
    step = 1 if limit is None else -(-len(samples) // limit)
    samples = Samples(samples.items[::step])
    model, _ = Pipeline.parse("O1").run(network.request.load())
    wanted = outputs(simulated(model), samples)
    calibration = network.calibration()
    for text in texts:
        if text == FLOAT:
            yield Row(name, text, limit, score(network, wanted, samples, step), None, float("inf"), 0.0, ())
            continue
        started = time.process_time()
        run, notes = quantise(text, model, calibration, network.detects)
        seconds = time.process_time() - started
        found = outputs(run, samples)
        noise = float((found - wanted).double().square().sum())
        sqnr = 10 * float(torch.log10(wanted.double().square().sum() / noise))
        agreement = None if network.detects else float((found.argmax(1) == wanted.argmax(1)).double().mean())
        yield Row(name, text, limit, score(network, found, samples, step), agreement, sqnr, seconds, notes)


class Rows:
    """Measured rows, and the file that keeps them as they come, if there is one."""

    def __init__(self, file: Path | None) -> None:
        """Take what stands in the file. Raise UsageError if it is not a file of rows."""
        self.file = file
        try:
            kept = json.loads(file.read_text()) if file is not None and file.exists() else []
            self.rows = [Row(**{**item, "notes": tuple(item["notes"])}) for item in kept]
        except (ValueError, TypeError, KeyError) as error:
            help = "name another file, or remove this one"
            raise UsageError("not a file of rows", where=str(file), why=str(error), help=help) from None

    def lacking(self, network: str, texts: Sequence[str], limit: int | None) -> list[str]:
        """Return those pipelines and peers that have no row of these settings."""
        standing = {row.settings for row in self.rows}
        return [text for text in texts if (network, text, limit) not in standing]

    def add(self, row: Row) -> None:
        self.rows.append(row)
        if self.file is not None:
            write_atomically(self.file, json.dumps([asdict(row) for row in self.rows], indent=1).encode())

    def table(self) -> str:
        """Print the rows, those of one network together."""
        networks = list(dict.fromkeys(row.network for row in self.rows))
        cells = [
            (
                row.network,
                row.pipeline,
                "all" if row.limit is None else f"{row.limit}",
                f"{row.score:.4f}",
                "" if row.agreement is None else percent(row.agreement, 2),
                f"{row.sqnr:.1f} dB",
                f"{row.seconds:.0f} s",
            )
            for row in sorted(self.rows, key=lambda row: networks.index(row.network))
        ]
        heading = ("network", "pipeline or peer", "images", "top-1 or AP", "agreement", "SQNR", "time")
        return table(heading, cells, "llrrrrr")


def main() -> None:
    parser = argparse.ArgumentParser(
        allow_abbrev=False, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--networks", default=",".join(NETWORKS), help="which, of " + ", ".join(NETWORKS))
    parser.add_argument("--pipelines", default="int8-fast;int8", help="pipeline texts, separated by semicolons")
    parser.add_argument("--peers", default="", help="other quantisers, of " + ", ".join(PEERS))
    parser.add_argument("--limit", type=int, help="evaluate on at most so many images")
    parser.add_argument("--json", type=Path, help="keep the rows there; those that stand there are not measured again")
    options = parser.parse_args()
    networks, peers = names(options.networks), names(options.peers)
    for asked, known in ((networks, list(NETWORKS)), (peers, list(PEERS))):
        for name in asked:
            if name not in known:
                parser.error(f"no '{name}': choose from {', '.join(known)}")
    if options.limit is not None and options.limit < 1:
        parser.error("--limit is at least 1")
    torch.set_num_threads(1)
    absent = {peer: sentence for peer in peers if (sentence := missing(peer))}
    print(*absent.values(), sep="\n", end="\n" if absent else "", file=sys.stderr)
    texts = [FLOAT, *names(options.pipelines, ";"), *(peer for peer in peers if peer not in absent)]
    try:
        rows = Rows(options.json)
        for name in networks:
            for row in measure(name, rows.lacking(name, texts, options.limit), options.limit):
                rows.add(row)
                print(f"{name}, {row.pipeline}: {row.score:.4f}", *row.notes, sep="\n    ", file=sys.stderr, flush=True)
    except LvcError as error:
        sys.exit(str(error))
    print(rows.table())


def names(text: str, separator: str = ",") -> list[str]:
    return [name.strip() for name in text.split(separator) if name.strip()]


if __name__ == "__main__":
    main()
