"""Where a fake quantisation will stand once its parameters are known: `lvc::uncalibrated`, which changes nothing.

`insert-fake-quant` places it, and `calibrate` puts a fake quantisation in its stead. Until then the model computes
what it did, and nothing that builds code takes it. Its arguments say which come into question: ``bits`` from 2 to
8; one scale, or one for each place of ``axis``; ``symmetric`` about zero; steps of ``scale`` (linear, or a power of
two), or the codebook of the weight format that it names; and the ``group``, if it is not empty: places of one group get
the same parameters. A weight has a scale for each ``channels`` input channels of an output channel; 0 stands for all.
"""

from __future__ import annotations

import torch
from torch.fx import Graph

from lvc.compiler.errors import CompileError
from lvc.compiler.ir.operators.library import operator


def _unchanged(x: torch.Tensor, *_: object) -> torch.Tensor:
    return x.clone()


UNCALIBRATED = operator(
    "uncalibrated(Tensor self, int bits, int? axis, bool symmetric, str scale, str group, int channels=0) -> Tensor",
    differentiable=True,
)(_unchanged)
WHY_NOT = "its quantisation parameters are not known yet"
HELP = "run calibrate{data=NAME} after insert-fake-quant, with --data NAME=PATH"


def refuse_uncalibrated(graph: Graph) -> None:
    """Raise `CompileError` if a place was never calibrated: what runs then is the model in floating point."""
    places = [node for node in graph.nodes if node.target is UNCALIBRATED]
    if places:
        raise CompileError(
            f"{len(places)} values have not been calibrated, so the model is not quantised",
            where=f"'{places[0].name}', the first of them",
            why="insert-fake-quant places them, and calibrate chooses them on data",
            help=HELP,
        )
