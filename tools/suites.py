"""The suites of models that are measured, and how each model is made.

``classic`` is torchvision's well-known classifiers; ``field`` is what people deploy: detectors, segmenters, networks
with attention, wide ones. Of the latter some come from packages (``pip install lvc[zoo]``) and one is a file of
LVC_TEST_ASSETS. Weights are random, drawn so that no branch of a network is silent, but for that file's.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lvc.compiler.bench.suite import MODELS
from lvc.compiler.errors import UsageError

TOOLS = Path(__file__).parent


@dataclass(frozen=True)
class Torchvision:
    """A model of torchvision, at its own size or another."""

    name: str
    size: int = 0

    def request(self, batch: int) -> Any:
        import torchvision

        from lvc.compiler.load.request import LoadRequest
        from lvc.compiler.load.zoo import find_recipe

        size = self.size or find_recipe(torchvision.models.get_model_builder(self.name), {}).size
        factory = TOOLS / "sweep_torchvision.py"
        return LoadRequest(f"{factory}:make", arguments={"name": self.name}, shapes={"": (batch, 3, size, size)})


@dataclass(frozen=True)
class Packaged:
    """A model that a package of `zoo_models` makes, as ``package:model``."""

    name: str
    size: int

    def request(self, batch: int) -> Any:
        from lvc.compiler.load.request import LoadRequest

        factory, shape = TOOLS / "zoo_models.py", (batch, 3, self.size, self.size)
        arguments = {"name": self.name, "images": batch, "size": self.size}
        return LoadRequest(f"{factory}:network", arguments=arguments, shapes={"": shape})


@dataclass(frozen=True)
class Asset:
    """A file of LVC_TEST_ASSETS."""

    file: str
    shape: tuple[int, ...]

    def request(self, batch: int) -> Any:
        from lvc.compiler.load.request import LoadRequest

        folder = os.environ.get("LVC_TEST_ASSETS")
        if not folder:
            raise UsageError(f"{self.file} is not here", help="set LVC_TEST_ASSETS to the folder with test assets")
        return LoadRequest(str(Path(folder) / self.file), shapes={"": (batch, *self.shape)})


Source = Torchvision | Packaged | Asset

FIELD: dict[str, Source] = {
    "yolov8n": Packaged("ultralytics:yolov8n", 640),
    "yolox_nano": Asset("onnx/yolox_nano.onnx", (3, 416, 416)),
    "unet_mobilenet_v2": Packaged("smp:Unet/mobilenet_v2", 256),
    "deeplabv3_mobilenet_v3_large": Torchvision("deeplabv3_mobilenet_v3_large", 520),
    "swin_t": Torchvision("swin_t"),
    "efficientvit_b0": Packaged("timm:efficientvit_b0", 224),
    "mobilevit_s": Packaged("timm:mobilevit_s", 256),
    "regnet_y_8gf": Torchvision("regnet_y_8gf"),
    "vgg16_bn": Torchvision("vgg16_bn"),
    "wide_resnet50_2": Torchvision("wide_resnet50_2"),
}
SUITES: dict[str, tuple[str, ...]] = {"classic": MODELS, "field": tuple(FIELD)}


def request_of(name: str, batch: int = 1) -> Any:
    """How a model of a suite is loaded, or any other of torchvision."""
    return FIELD.get(name, Torchvision(name)).request(batch)
