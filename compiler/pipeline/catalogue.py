"""What lvc can do, by name, found without importing it; see `lvc.compiler.pipeline.registry`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from lvc.compiler.pipeline.registry import Classes, Objects

if TYPE_CHECKING:
    from lvc.compiler.backend import Backend
    from lvc.compiler.pipeline.passes import Pass

PASSES: Classes[Pass] = Classes("lvc.compiler.pipeline.passes:Pass", "lvc.passes", "pass")

BACKENDS: Objects[Backend] = Objects(
    "lvc.compiler.backend:Backend", "lvc.backends", "backend", variable="BACKEND", folders=True
)

ANALYSES: Objects[Callable[..., Any]] = Objects(
    "collections.abc:Callable", "lvc.passes.analysis", "analysis", "lvc.analyses", variable="findings"
)

STEPS: Classes[Any] = Classes("lvc.passes.postprocess.step:Step", "lvc.passes.postprocessors", "step")
"""What may be appended to the outputs of a model."""

FOLDED = "O1,merge-duplicates,O1"
"""What a model goes through before anything else: batch normalisation is folded, and nothing is computed twice."""
SENSITIVITY, TO_INTEGERS, SCALING = "prune-sensitivity", "lower-to-integer", "equalise-weights"
"""The pass that ``lvc sensitivity`` shows, that which computes in integers, and that which scales channels."""

_SIMULATED = f"{FOLDED},{SCALING},smooth-activations,insert-fake-quant"
_CALIBRATE = "calibrate{images=256}"

_TRAINED = f"{FOLDED},{SCALING}{{data=train}},smooth-activations{{data=train}},insert-fake-quant"
_TRAIN = "calibrate{data=train images=256},distil{lr=0.003 clip=1}"

PRESETS: dict[str, str] = {
    "O0": "",
    "O1": "eliminate-dead,fold-constants,eliminate-identities,fold-batch-norm,eliminate-dead",
    "O2": f"{FOLDED},fuse-operators,allow-winograd",
    "O3": "O2,use-records",
    "int8-fast": f"{_SIMULATED},{_CALIBRATE},correct-bias{{images=64}}",
    "int8": f"{_SIMULATED},{_CALIBRATE},round-weights",
    "int8-avx2": f"{_SIMULATED}{{weight_bits=7}},{_CALIBRATE},round-weights",
    "int8-qat": f"{_TRAINED},{_TRAIN}",
    "int4-qat": f"{_TRAINED}{{weight_bits=4 activation_bits=4 outer_bits=8}},{_TRAIN}",
}
"""Pipelines by name. What ``int8-fast`` makes is among the choices of ``int8``: both have the same scales.
``int8-avx2`` is for processors without VNNI, where products of 7-bit weights cannot saturate.
``int8-qat`` and ``int4-qat`` train on the data set ``train``."""

POSTPROCESS, FUSE_PREPROCESS = "append-postprocess", "fuse-preprocess"
"""The passes that ``--postprocess`` and ``--fuse-preprocess`` add to the end of a pipeline, with what tidies up behind
them."""
TIDY = "fold-constants,eliminate-identities,eliminate-dead,fuse-operators"

PRECISIONS: dict[str, str] = {
    "fp32": "",
    "bf16": "lower-precision{dtype=bfloat16}",
    "fp16": "lower-precision{dtype=float16}",
    "tf32": "allow-tf32",
}
"""What a precision adds to the end of a pipeline."""
