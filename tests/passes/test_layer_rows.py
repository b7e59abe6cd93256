"""A layer as a matrix product: what the rows are."""

from __future__ import annotations

import torch

from lvc.compiler.ir.graph_text import parse_model
from lvc.passes.fitting.layer_rows import input_rows, output_rows


def test_vectors_of_several_images_are_a_row_each() -> None:
    model = parse_model("model m(x: f32[3])\n  @w : f32[2,3]\n  %y = linear(%x, @w)\n  return out=%y\n")
    (layer,), at = model.output_nodes, [torch.tensor([0])] * 2
    operands = [torch.tensor([1.0, 2.0, 3.0]), torch.tensor([4.0, 5.0, 6.0])]
    assert input_rows(operands, layer, (2,), at).tolist() == [[1, 2, 3], [4, 5, 6]]
    outputs = [torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0])]
    assert output_rows(outputs, layer, at).tolist() == [[1, 2], [3, 4]]
