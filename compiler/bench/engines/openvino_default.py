"""OpenVINO on the CPU in the precision of its own choice: bfloat16 where the processor has it, else 32-bit floats."""

from __future__ import annotations

from lvc.compiler.bench.engines.openvino import OpenVino


class OpenVinoDefault(OpenVino):
    """As `OpenVino`, without a precision asked for."""

    name = "openvino_default"
    precision = None


ENGINE = OpenVinoDefault()
