"""ONNX Runtime in 8 bits, by its own static quantiser. For its speed: it is calibrated on random images."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lvc.compiler.bench.calibration import random_images
from lvc.compiler.bench.engine import Original
from lvc.compiler.bench.engines.onnxruntime import OnnxRuntime


class OnnxRuntimeInt8(OnnxRuntime):
    """Activations of 8 bits without sign, weights of 8 bits with one scale a channel, as Q and DQ nodes."""

    name = "onnxruntime_int8"

    def file(self, original: Original) -> Path:
        return original.made_once(f"{self.name}-{self.version()}.onnx", lambda file: quantise(original, file))


def quantise(original: Original, file: Path) -> None:
    """Write the quantised model."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    names = [value.name for value in original.model.inputs]
    images = (dict(zip(names, one, strict=True)) for one in random_images(original.model.inputs))

    class Images(CalibrationDataReader):  # type: ignore[misc]
        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(images, None)

    cleaned = file.with_suffix(".cleaned.onnx")
    quant_pre_process(str(original.onnx), str(cleaned), skip_symbolic_shape=True)
    quantize_static(
        str(cleaned),
        str(file),
        Images(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    cleaned.unlink()


ENGINE = OnnxRuntimeInt8()
