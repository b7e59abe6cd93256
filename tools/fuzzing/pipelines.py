"""What a random model goes through and becomes: pipelines of every kind, and the targets that this machine can run."""

from __future__ import annotations

import random
from functools import cache

EXACT_PASSES = (
    "eliminate-dead",
    "fold-constants",
    "eliminate-identities",
    "fold-batch-norm",
    "merge-duplicates",
    "fuse-operators",
    "fuse-operators{limit=3}",
    "allow-winograd",
    "allow-winograd{tile=2}",
    "fold-constants{limit=64}",
    "merge-duplicates{tensors=false}",
)
QUANTISED = (
    "int8-fast",
    "int8-fast",
    "int8",
    "int8-avx2",
    "O2,quantise-dynamically",
    "O1,insert-fake-quant,calibrate",
    "O2,insert-fake-quant{per_channel=false},calibrate,fuse-operators",
    "O1,insert-fake-quant{activation_symmetric=true weight_symmetric=false},calibrate",
    "O1,insert-fake-quant{attention=false weight_bits=6},calibrate,correct-bias",
    "O1,insert-fake-quant{scale=power-of-two weight_bits=7},calibrate",
    "O2,quantise-weights",
    "O2,quantise-weights{bits=4 group=8}",
    "O1,quantise-weights{bits=4 format=codebook},fuse-operators",
    "O1,equalise-weights,insert-fake-quant,calibrate,round-weights",
    "O1,mixed-precision{bytes=0.5}",
    "O1,smooth-activations,insert-fake-quant,calibrate",
)
PRUNED = (
    "prune-channels{macs=0.6},O2",
    "prune-channels{ratio=0.4},O2",
    "O1,prune-channels{params=0.5 reconstruct=false},O2",
    "O2,prune-channels{ratio=0.3 criterion=l1}",
    "sparsify{ratio=0.5},O2",
    "prune-channels{ratio=0.5 multiple=4},int8-fast",
)
FACTORED = (
    "O1,factor-low-rank{macs=0.8},O2",
    "O1,factor-low-rank{params=0.7 data=calib images=2},O2",
    "factor-low-rank{rank=2},O2",
    "O1,factor-low-rank{energy=0.8},merge-low-rank,O2",
    "O1,factor-low-rank{rank=1 method=tucker2},int8-fast",
    "O1,prune-and-factor{macs=0.7},O2",
    "merge-low-rank,O2",
)


def draw_pipeline(rng: random.Random) -> str:
    """A preset, passes in any order, or one of the lossy pipelines."""
    way = rng.random()
    if way < 0.35:
        return rng.choice(("O2", "O2", "O2", "O1", "O3", ""))
    if way < 0.6:
        return ",".join(rng.choice(EXACT_PASSES) for _ in range(rng.randint(1, 7)))
    return rng.choice(QUANTISED if way < 0.84 else PRUNED if way < 0.92 else FACTORED)


def draw_target(rng: random.Random) -> str:
    """Code for one of the vector widths of this machine, ONNX of any opset, a file to read again, the reference."""
    way = rng.random()
    if way < 0.62:
        return rng.choice(code_targets())
    if way < 0.7:
        return rng.choice((".onnx", ".pt2", ".lvc"))
    return f"onnx-{rng.randint(17, 23)}" if way < 0.82 else "reference"


@cache
def code_targets() -> tuple[str, ...]:
    """The targets of each width that this machine can run."""
    from lvc.backends.tvm.cpu.host import host_architecture, host_features
    from lvc.backends.tvm.cpu.processors import CPUS

    known = host_architecture()
    levels = reversed(known.levels) if known else ()
    return (*(level for level in levels if CPUS[level].features <= host_features()), "native")


def draw_precision(rng: random.Random, target: str) -> str:
    """bf16 now and then, where the target multiplies it."""
    from lvc.backends.tvm.cpu.targets import native, vector_of

    can = target == "native" and "bfloat16" in vector_of(native()).isa.dots
    return "bf16" if can and rng.random() < 0.25 else "fp32"
