"""Compiles torchvision's detectors whole and compares what they find in photographs with double precision.

Weights are random and seeded, but a random detector finds nothing or everything: batch normalisation is given
statistics of the photographs, and the layers that score classes, centres, objects and masks are scaled to where some
of the candidates pass. What eager PyTorch finds in single precision is compared too: it is not exact either. `--onnx`
compiles what `torch.onnx.export` makes of each instead, and ONNX Runtime takes eager's place. Each runs in a process
of its own; results are appended to a file of JSON lines, and one that stands there is not run again.

    python tools/sweep_detectors.py --images ../shared/assets/coco/images --table table.md
"""

from __future__ import annotations

import argparse
import copy
import json
import re
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import sweeping

SHAPES = {"ssdlite320_mobilenet_v3_large": (320, 320), "ssd300_vgg16": (300, 300)}
"""Heights and widths of the pictures given to those that resize them to one size."""
PHOTOGRAPH = (480, 640)
FULL = (100, 200, 300)
"""How many objects torchvision's detectors give at most."""
BOX = 1e-2
"""How many pixels boxes may be apart: this, or as many as the peer's are from the exact ones."""
DETECTORS = (
    *SHAPES,
    "fasterrcnn_mobilenet_v3_large_320_fpn",
    "fasterrcnn_mobilenet_v3_large_fpn",
    "fcos_resnet50_fpn",
    "retinanet_resnet50_fpn",
    "retinanet_resnet50_fpn_v2",
    "fasterrcnn_resnet50_fpn",
    "fasterrcnn_resnet50_fpn_v2",
    "maskrcnn_resnet50_fpn",
    "maskrcnn_resnet50_fpn_v2",
    "keypointrcnn_resnet50_fpn",
)
THRESHOLDS = {
    "ssd": ("score_thresh", 0.7),
    "retinanet": ("score_thresh", 0.5),
    "fcos": ("score_thresh", 0.5),
    "keypointrcnn": ("box_score_thresh", 0.25),
}
"""Scores above which an object counts, by the start of a detector's name; all others: ``box_score_thresh`` of 0.6."""
SCALES = {
    "classification_head.module_list": (0.0, 2.0),
    "classification_head.cls_logits": (-9.0, 1.8),
    "bbox_ctrness": (0.0, 1.0),
    "rpn.head.cls_logits": (0.0, 2.0),
    "box_predictor.cls_score": (0.0, 2.5),
    "mask_predictor.mask_fcn_logits": (0.0, 3.0),
    "keypoint_predictor.kps_score_lowres": (0.0, 3.0),
    "regression_head": (0.0, 0.6),
    "rpn.head.bbox_pred": (0.0, 0.3),
    "box_predictor.bbox_pred": (0.0, 0.5),
}
"""Layers by a part of their names: what mean and deviation their outputs get."""
COLUMNS = (
    "model",
    "input",
    "objects",
    "boxes px",
    "scores",
    "masks IoU",
    "keypoints px",
    "ok",
    "peer boxes px",
    "peer scores",
    "peer masks IoU",
    "build s",
    "lvc s",
    "peer s",
)


def pictures(folder: str, height: int, width: int, count: int) -> list[Any]:
    """The first photographs of a folder, ``f32[1,3,h,w]`` of 0 to 1 each."""
    import numpy as np
    from PIL import Image

    made = []
    for file in sorted(Path(folder).glob("*.jpg"))[:count]:
        with Image.open(file) as image:
            pixels = np.asarray(image.convert("RGB").resize((width, height)), np.float32) / 255
        made.append(np.ascontiguousarray(pixels.transpose(2, 0, 1)[None]))
    return made


def make(name: str, images: str) -> Any:
    """Build a detector with weights by which it finds objects in photographs."""
    import torch
    import torchvision
    from torch import nn

    torch.manual_seed(0)
    argument, threshold = next((v for k, v in THRESHOLDS.items() if name.startswith(k)), ("box_score_thresh", 0.6))
    detector = torchvision.models.get_model(name, weights=None, weights_backbone=None, **{argument: threshold})
    photographs = [torch.from_numpy(picture[0]) for picture in pictures(images, *SHAPES.get(name, PHOTOGRAPH), 5)]
    detector.eval()
    normalisations = [module for module in detector.modules() if isinstance(module, nn.BatchNorm2d)]
    with torch.no_grad():
        for module in normalisations:
            module.momentum = None
            module.train()
        detector(photographs)
        detector.eval()
        scaled = [_scale(module, scale) for module, scale in _scaled(detector)]
        detector(photographs)
        for handle in scaled:
            handle.remove()
    return detector


def _scaled(detector: Any) -> list[tuple[Any, tuple[float, float]]]:
    from torch import nn

    found = []
    for name, module in detector.named_modules():
        kinds = [scale for part, scale in SCALES.items() if part in name]
        last = isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.groups == 1)
        hidden = re.search(r"regression_head\.conv|classification_head\.conv", name)
        if kinds and (last or isinstance(module, nn.ConvTranspose2d)) and not hidden:
            found.append((module, kinds[0]))
    return found


def _scale(module: Any, scale: tuple[float, float]) -> Any:
    """Give a layer's outputs a mean and a deviation, at the first call of it."""
    done: list[bool] = []

    def hook(layer: Any, arguments: Any, output: Any) -> Any:
        if not done:
            factor = scale[1] / float(output.std())
            layer.weight.mul_(factor)
            layer.bias.mul_(factor).sub_(float(output.mean()) * factor - scale[0])
            done.append(True)
        return layer.forward(*arguments)

    return module.register_forward_hook(hook)


def measure(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Compile one detector, run it on photographs and compare; returns what the table shows."""
    import torch

    import lvc
    from lvc.compiler.load import from_module

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    height, width = SHAPES.get(name, PHOTOGRAPH)
    photographs = pictures(options.images, height, width, options.count)
    if len(photographs) < options.count:
        raise SystemExit(f"{options.images}: {len(photographs)} photographs (*.jpg), {options.count} wanted")
    detector = make(name, options.images)
    with tempfile.TemporaryDirectory() as folder:
        source: Any
        if options.onnx:
            source, peer = _exported(detector, photographs[0], Path(folder))
        else:
            source, peer = detector, _eager(detector)
        theirs, their_time = _timed(peer, photographs)
        exact, _ = _timed(_eager(copy.deepcopy(detector).double(), torch.float64), photographs)
        started = time.perf_counter()
        model = str(source) if options.onnx else from_module(source, torch.from_numpy(photographs[0]))
        artefact = lvc.compile(model, options.pipeline, options.target)
    built = time.perf_counter() - started
    del detector, peer, source, model
    run, names = lvc.load(artefact, threads=1), list(theirs[0])
    if not options.onnx:
        names = [output.name for output in artefact.outputs][: len(names)]
    found, our_time = _timed(lambda picture: dict(zip(names, run(picture), strict=False)), photographs)
    found = [{name: one[name] for name in theirs[0]} for one in found]
    result: dict[str, Any] = {"input": f"{height}x{width}"}
    distance = compare(theirs, exact)
    result |= compare(found, exact, max(BOX, distance["boxes px"]))
    result |= {f"peer {name}": distance[name] for name in ("boxes px", "scores", "masks IoU") if name in distance}
    result["same as peer"] = compare(found, theirs)["ok"]
    return result | {"build s": round(built, 1), "lvc s": our_time, "peer s": their_time}


def _eager(detector: Any, dtype: Any = None) -> Callable[[Any], dict[str, Any]]:
    import torch

    def run(picture: Any) -> dict[str, Any]:
        image = torch.from_numpy(picture[0])
        with torch.inference_mode():
            found = detector([image if dtype is None else image.to(dtype)])[0]
        return {name: (part.float() if part.is_floating_point() else part).numpy() for name, part in found.items()}

    return run


def _exported(detector: Any, picture: Any, folder: Path) -> tuple[Path, Callable[[Any], dict[str, Any]]]:
    import onnxruntime
    import torch
    from torch import nn

    class OfOneImage(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.detector = detector

        def forward(self, image: Any) -> tuple[Any, ...]:
            return tuple(self.detector([image[0]])[0].values())

    names = list(_eager(detector)(picture))
    file = folder / "detector.onnx"
    export: dict[str, Any] = {"dynamo": False, "opset_version": 17, "input_names": ["image"], "output_names": names}
    torch.onnx.export(OfOneImage().eval(), (torch.from_numpy(picture),), str(file), **export)
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(file), settings, providers=["CPUExecutionProvider"])
    return file, lambda image: dict(zip(names, session.run(None, {"image": image}), strict=True))


def _timed(run: Callable[[Any], dict[str, Any]], photographs: Sequence[Any]) -> tuple[list[dict[str, Any]], float]:
    """What is found in each, and the least processor time of one in seconds."""
    found, least = [], float("inf")
    for picture in photographs:
        started = time.process_time()
        found.append(run(picture))
        least = min(least, time.process_time() - started)
    return found, round(least, 3)


def compare(found: Sequence[dict[str, Any]], wanted: Sequence[dict[str, Any]], bound: float = BOX) -> dict[str, Any]:
    """The largest differences over all photographs, and whether boxes are within a bound in pixels, and all else too.

    An object is compared with the nearest of its class: those of exactly one score come in any order, and of a list
    that is full the last may be another one of nearly its score. Masks are compared by all their pixels in a
    photograph.
    """
    import numpy as np

    boxes = scores = points = 0.0
    overlap, alike = 1.0, True
    counts = [len(theirs["labels"]) for theirs in wanted]
    for ours, theirs in zip(found, wanted, strict=True):
        same = {name: part.shape for name, part in ours.items()} == {name: part.shape for name, part in theirs.items()}
        alike = alike and same
        if not same or not len(theirs["labels"]):
            continue
        apart = np.abs(ours["boxes"][:, None] - theirs["boxes"]).max(2)
        apart[ours["labels"][:, None] != theirs["labels"]] = np.inf
        nearest = apart.argmin(0)
        least = theirs["scores"].min() + 1e-4 if len(theirs["scores"]) in FULL else 0.0
        both = (apart.min(side)[part["scores"] >= least] for side, part in enumerate((theirs, ours)))
        boxes = max(boxes, *(float(distances.max(initial=0)) for distances in both))
        scores = max(scores, float(np.abs(ours["scores"] - theirs["scores"]).max()))
        if "masks" in theirs:
            mine, other = ours["masks"][nearest] > 0.5, theirs["masks"] > 0.5
            overlap = min(overlap, float((mine & other).sum() / max((mine | other).sum(), 1)))
        if "keypoints" in theirs:
            points = max(points, float(np.abs(ours["keypoints"][nearest] - theirs["keypoints"]).max()))
    result: dict[str, Any] = {"objects": " ".join(map(str, counts)), "boxes px": boxes, "scores": scores}
    if "masks" in wanted[0]:
        result["masks IoU"] = round(overlap, 5)
    if "keypoints" in wanted[0]:
        result["keypoints px"] = points
    return result | {"ok": alike and max(counts) > 0 and boxes <= bound and overlap > 0.999 and points < 1e-2}


def main() -> int:
    parser = argparse.ArgumentParser(allow_abbrev=False, description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", required=True, metavar="FOLDER", help="folder of photographs (*.jpg)")
    parser.add_argument("--count", type=int, default=5, help="how many photographs (default 5)")
    parser.add_argument("--onnx", action="store_true", help="compile exported files, and compare with ONNX Runtime")
    parser.add_argument("--pipeline", default="O2", help="pipeline text (default O2)")
    parser.add_argument("--target", default="native", help="target (default native)")
    sweeping.add_options(parser, "detectors.jsonl")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one, options)))
        return 0
    key = {"pipeline": options.pipeline, "target": options.target, "onnx": options.onnx}
    wanted = [name for name in DETECTORS if re.search(options.only, name)]
    return sweeping.sweep(wanted, key, options, lambda rows: sweeping.markdown(rows, COLUMNS))


if __name__ == "__main__":
    sys.exit(main())
