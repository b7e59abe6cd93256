"""Other quantisers of trained networks, for compare_quantisation.py: NNCF on OpenVINO, ONNX Runtime, and torchao.

Each is given the network as lvc quantises it (normalisations folded), the same calibration images, and its own
defaults. Each is evaluated as a simulation, as lvc is, so that what is compared is the choice of scales and not the
integer kernels of one processor: OpenVINO without its low-precision transformations, ONNX Runtime without graph
optimisations, torchao's Q and DQ operators by PyTorch. A peer is imported when it quantises.
"""

from __future__ import annotations

import operator
import os
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lvc.compiler.ir.model import Model
from lvc.compiler.writing import write_model

Images = Sequence[np.ndarray]
Run = Callable[[np.ndarray], np.ndarray]
"""One image, as a batch of one, to the network's first output."""
Quantised = tuple[Run, tuple[str, ...]]
"""How to run what was made, and notes."""


@dataclass(frozen=True)
class Peer:
    """A quantiser; ``quantise`` takes the float model, calibration images, and whether the network is a detector."""

    packages: tuple[str, ...]
    quantise: Callable[[Model, Images, bool], Quantised]

    def versions(self) -> str:
        """Return each package and its version, or raise PackageNotFoundError."""
        return ", ".join(f"{package} {version(package)}" for package in self.packages)


def missing(name: str) -> str | None:
    """Return a sentence that says which package a peer lacks, if it lacks one."""
    try:
        PEERS[name].versions()
    except PackageNotFoundError as error:
        return f"{name} is skipped: {error.name} is not installed"
    return None


def nncf(model: Model, images: Images, detects: bool, *, full: bool = False) -> Quantised:
    """Quantise by NNCF's defaults; ``full`` asks for its slower bias correction, and for a detector for asymmetric
    activations too (its advice for activations other than ReLU)."""
    import nncf
    import openvino

    example = torch.from_numpy(images[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # OpenVINO traces with torch.jit
        converted = openvino.convert_model(model.module, example_input=(example,), input=[tuple(example.shape)])
    options: dict[str, Any] = {"subset_size": len(images)}
    if full:
        options["fast_bias_correction"] = False
    if full and detects:
        options["preset"] = nncf.QuantizationPreset.MIXED
    quantised = nncf.quantize(converted, nncf.Dataset(list(images)), **options)
    simulation = {"LP_TRANSFORMS_MODE": "NO", "INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    compiled = openvino.Core().compile_model(quantised, "CPU", simulation)
    return lambda image: np.array(compiled([image])[compiled.output(0)]), ()


def onnxruntime(model: Model, images: Images, detects: bool) -> Quantised:
    """Quantise by ONNX Runtime: Q and DQ nodes, weights with a scale a channel, ranges from the least to the most."""
    import onnxruntime
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    feeds = ({model.inputs[0].name: image} for image in images)

    class Feeds(CalibrationDataReader):  # type: ignore[misc]
        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(feeds, None)

    with tempfile.TemporaryDirectory() as folder:
        written, cleaned, made = (os.fspath(Path(folder) / f"{name}.onnx") for name in ("float", "cleaned", "int8"))
        write_model(model, Path(written))
        quant_pre_process(written, cleaned, skip_symbolic_shape=True)
        quantize_static(
            cleaned,
            made,
            Feeds(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        session = onnxruntime.InferenceSession(made, options, providers=["CPUExecutionProvider"])
    return lambda image: np.asarray(session.run(None, {model.inputs[0].name: image})[0]), ()


def torchao(model: Model, images: Images, detects: bool) -> Quantised:
    """Quantise by torchao: the exported program with the quantiser for x86.

    It knows layers by the modules that they come from, and passes over all others without a word; so operators are
    given their modules' names, and how many layers it took is counted.
    """
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
    from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86

    exported = torch.export.export(model.module, (torch.from_numpy(images[0]),)).module()
    for node in exported.graph.nodes:
        if node.target in MODULES:
            node.meta["source_fn_stack"] = [(node.name, MODULES[node.target])]
    quantiser = x86.X86InductorQuantizer().set_global(x86.get_default_x86_inductor_quantization_config())
    observed = prepare_pt2e(exported, quantiser)
    with torch.inference_mode():
        for image in images:
            observed(torch.from_numpy(image))
    quantised = convert_pt2e(observed)
    layers = [node for node in quantised.graph.nodes if MODULES.get(node.target) in LAYERS]
    taken = sum("dequantize" in str(node.args[0].target) for node in layers)

    def run(image: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return np.asarray(quantised(torch.from_numpy(image))[0].numpy())

    return run, (f"{taken} of {len(layers)} layers are quantised",)


LAYERS = (torch.nn.Conv2d, torch.nn.Linear)
MODULES: dict[Any, Any] = {
    torch.ops.aten.conv2d.default: torch.nn.Conv2d,
    torch.ops.aten.linear.default: torch.nn.Linear,
    torch.ops.aten.relu.default: torch.nn.ReLU,
    torch.ops.aten.hardtanh.default: torch.nn.Hardtanh,
    torch.ops.aten.silu.default: torch.nn.SiLU,
    torch.ops.aten.add.Tensor: operator.add,
}
PEERS = {
    "nncf": Peer(("nncf", "openvino"), nncf),
    "nncf-full": Peer(("nncf", "openvino"), partial(nncf, full=True)),
    "onnxruntime": Peer(("onnxruntime",), onnxruntime),
    "torchao": Peer(("torchao",), torchao),
}
