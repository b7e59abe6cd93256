"""OpenVINO in 8 bits, quantised by NNCF. For its speed: it is calibrated on random images."""

from __future__ import annotations

from pathlib import Path

import torch

from lvc.compiler.bench.calibration import IMAGES, random_images
from lvc.compiler.bench.engine import Original
from lvc.compiler.bench.engines.openvino import ENGINE as OPENVINO
from lvc.compiler.bench.engines.openvino import OpenVino


class OpenVinoInt8(OpenVino):
    """NNCF's defaults. The model comes from PyTorch, since NNCF leaves more in floating point of an ONNX file."""

    name = "openvino_int8"
    package = "nncf"
    precision = None

    def version(self) -> str:
        return f"{OPENVINO.version()}-nncf-{super().version()}"

    def file(self, original: Original) -> Path:
        return original.made_once(f"{self.name}-{self.version()}.xml", lambda file: quantise(original, file))


def quantise(original: Original, file: Path) -> None:
    """Write the quantised model, its weights beside it."""
    import nncf
    import openvino

    images = list(random_images(original.model.inputs))
    example = tuple(map(torch.from_numpy, images[0]))
    converted = openvino.convert_model(original.model.module, example_input=example, input=[x.shape for x in example])
    data = nncf.Dataset(images, lambda arrays: dict(enumerate(arrays)))
    openvino.save_model(nncf.quantize(converted, data, subset_size=IMAGES), str(file), compress_to_fp16=False)


ENGINE = OpenVinoInt8()
