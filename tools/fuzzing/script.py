"""A case as a script that shows it by itself, with lvc, PyTorch, NumPy and ONNX only."""

from __future__ import annotations

import inspect

from fuzzing.case import FILES, Case, Verdict
from fuzzing.program import draw
from fuzzing.torch_source import source

_HEAD = """# {what}
# {case}
# Right: equal to eager PyTorch.  Found: {detail}
import zlib
from collections.abc import Sequence

import lvc
import numpy as np
import torch
import torch.nn.functional as F
import torchvision


{draw}

{net}

{inputs}

"""

_TEMPLATES = {
    "ir": """from lvc.compiler.ir.graph_text import parse_model

TEXT = '''
{text}
'''
model = parse_model(TEXT)
for name, tensor in model.module.state_dict().items():
    tensor.copy_(torch.from_numpy(draw(name, list(tensor.shape))))
""",
    "torch": "model = lvc.from_module(Net().eval(), *map(torch.from_numpy, inputs))\n",
    "onnx": """import onnx
from onnx import helper as H, numpy_helper as N

{onnx}
onnx.save(proto, "fuzz.onnx")
model = lvc.from_onnx("fuzz.onnx")
""",
}

_TAIL = """
with torch.inference_mode():
    want = Net().eval()(*map(torch.from_numpy, inputs))
    want = [value.detach().numpy() for value in (want if isinstance(want, tuple) else (want,))]


def show(what, found):
    for place, (ours, theirs) in enumerate(zip(found, want)):
        same = ours.shape == theirs.shape
        shapes = f"shape {ours.shape} for {theirs.shape}"
        difference = np.abs(ours.astype(np.float64) - theirs).max() if same else shapes
        print(f"{what}, output {place}: difference {difference}, largest value {np.abs(theirs).max(initial=0)}")


show("loaded", model(*inputs))
"""


def write(case: Case, verdict: Verdict) -> str:
    """The text of a script; what is right and what was found stand at its top."""
    detail = verdict.detail.strip().splitlines()[-1:] or [""]
    net = source(case.program)
    inputs = [_input(spec, case, place) for place, spec in enumerate(case.program.inputs.values())]
    head = _HEAD.format(
        what=verdict.what,
        case=case,
        detail=detail[0][:150],
        draw=inspect.getsource(draw),
        net=net,
        inputs=f"rng = np.random.default_rng({case.seed})\ninputs = [{', '.join(inputs)}]",
    )
    onnx = ""
    if case.importer == "onnx":
        from fuzzing.onnx_file import source as onnx_source

        onnx = onnx_source(case.program, case.opset)
    middle = _TEMPLATES[case.importer].format(text=case.program, onnx=onnx)
    precision = "" if case.precision == "fp32" else f", precision={case.precision!r}"
    needs_data = any(
        word in case.pipeline for word in ("int8", "calibrate", "prune", "mixed", "activations", "recalibrate")
    )
    tail = _TAIL + (_CALIBRATION if needs_data else "")
    workspace = ", workspace=workspace" if needs_data else ""
    if case.target in FILES:
        written = (
            "from lvc.compiler.driver import optimise\n"
            "from lvc.compiler.writing import write_model\n\n"
            f"rewritten, _ = optimise(model, lvc.Pipeline.parse({case.pipeline!r}){workspace})\n"
            f'write_model(rewritten, Path("again{case.target}"))\n'
            f'show("read again", lvc.load_model("again{case.target}")(*inputs))\n'
        )
        return head + middle + tail + "from pathlib import Path\n\n" + written
    verify = "" if case.verify else ", verify=False"
    end = (
        f"artefact = lvc.compile(model, {case.pipeline!r}, {case.target!r}{precision}{workspace}{verify})\n"
        "found = lvc.load(artefact)(*inputs)\n"
        'show("compiled", found if isinstance(found, tuple) else (found,))\n'
    )
    return head + middle + tail + end


_CALIBRATION = '''

class Calibration(list):
    """Random inputs of batch 1."""

    def __iter__(self):
        return ((array, None) for array in list.__iter__(self))


calib = Calibration(rng.standard_normal((1, *inputs[0].shape[1:])).astype(np.float32) for _ in range(4))
workspace = lvc.Workspace(data={"calib": lambda: calib}, threads=1)
'''


def _input(spec: object, case: Case, place: int) -> str:
    from lvc.compiler.ir.spec import TensorSpec, dtype_name

    assert isinstance(spec, TensorSpec)
    shape = list(spec.shape)
    if not spec.dtype.is_floating_point or case.inputs == "bytes":
        most = 256 if spec.dtype.is_floating_point else 2
        numpy_type = {"f32": "float32", "bool": "bool", "i64": "int64", "i32": "int32"}.get(
            dtype_name(spec.dtype), "float32"
        )
        return f'rng.integers(0, {most}, {shape}).astype("{numpy_type}")'
    drawn = f"rng.random({shape})" if case.inputs == "unit" else f"rng.standard_normal({shape})"
    return f'{drawn}.astype("float32")'
