"""Models that are built for a GPU and run on the emulated one."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cuda_on_cpu import Emulated

import lvc
from lvc.backends.tvm import BACKEND
from lvc.compiler.artefact import Artefact
from lvc.compiler.errors import CompileError
from lvc.compiler.ir.model import Model
from lvc.compiler.pipeline.pipeline import Pipeline
from lvc.compiler.pipeline.workspace import Workspace

EXAMPLES = Path(__file__).parents[4] / "examples"


def _lacking() -> str:
    from lvc.backends.tvm.gpu.nvrtc import version

    try:
        version()
    except CompileError as error:
        return str(error)
    return "" if shutil.which("g++") else "there is no g++"


needs_nvrtc = pytest.mark.skipif(bool(_lacking()), reason=_lacking() or "nothing is lacking")


def build(model: Model, target: str = "cuda:sm_80") -> Artefact:
    """What is built of a model for a GPU."""
    parsed = BACKEND.parse_target(target)
    assert parsed is not None
    return BACKEND.build(model, parsed, Workspace(threads=2))


def emulate(
    model: Model, *inputs: np.ndarray, target: str = "cuda:sm_80", edit: Callable[[str], str] = lambda text: text
) -> Emulated:
    """A model that has run on the emulated GPU and agrees with PyTorch."""
    emulated = Emulated(build(model, target), edit)
    for ours, theirs in zip(emulated(*inputs), model(*inputs), strict=True):
        scale = float(np.abs(theirs[np.isfinite(theirs)]).max(initial=0)) if theirs.dtype == np.float32 else 0
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-6 * scale, equal_nan=True)
    return emulated


def rewritten(network: Any, *shape: int) -> tuple[Model, np.ndarray]:
    """A network as ``-O2`` leaves it, and an input."""
    torch.manual_seed(0)
    example = torch.randn(shape)
    model, _ = Pipeline.parse("O2").run(lvc.from_module(network.eval(), example), Workspace(threads=1))
    return model, example.numpy()


def lowered(model: Model, dtype: str, pipeline: str = "") -> Model:
    """A model with shorter types, as ``--precision`` makes it after a pipeline."""
    steps = ",".join(filter(None, [pipeline, f"lower-precision{{dtype={dtype}}}"]))
    return Pipeline.parse(steps).run(model, Workspace(threads=1))[0]


def uses(emulated: Emulated, text: str) -> int:
    """How many kernels have a text in them."""
    return sum(text in made.text for made in emulated.parts.compiled.values())


def integer_resnet20() -> tuple[Model, np.ndarray]:
    """ResNet-20 in integers, calibrated on noise, and an input."""
    sys.path.insert(0, str(EXAMPLES))
    import cifar_resnet

    sys.path.remove(str(EXAMPLES))
    sys.modules.pop("cifar_resnet")
    torch.manual_seed(0)
    images = np.random.default_rng(0).standard_normal((4, 3, 32, 32)).astype(np.float32)
    model = lvc.from_module(cifar_resnet.resnet20().eval(), torch.from_numpy(images[:1]))
    steps = "O1,insert-fake-quant,calibrate{images=4 compare=0},lower-to-integer,fuse-operators"
    workspace = Workspace(data={"calib": lambda: [(image[None], None) for image in images]}, threads=1)
    model, _ = Pipeline.parse(steps).run(model, workspace)
    return model, images[1:2]


def spills(emulated: Emulated) -> dict[str, int]:
    """The kernels that spill, with the bytes."""
    usage = {name: used for made in emulated.parts.compiled.values() for name, used in made.code.usage.items()}
    return {name: used.spill_stores + used.spill_loads for name, used in usage.items() if used.spill_stores}
