"""A graph in PyTorch, as what a board's answers are held against."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lvc.compiler.ir.model import Model
from lvc.compiler.verification.closeness import Comparison, slack_of


class GraphOracle:
    """A rewritten model: code must give what it says, but for rounding."""

    name = "the rewritten graph in PyTorch"

    def __init__(self, model: Model) -> None:
        self._model = model
        self.largest = 0.0

    def fault(self, inputs: Sequence[np.ndarray], outputs: Sequence[np.ndarray]) -> str:
        model = self._model
        judged = Comparison(model, inputs, model(*inputs), outputs, slack=slack_of(model))
        if judged.agrees:
            self.largest = max(self.largest, judged.difference)
            return ""
        return f"output '{model.output_names[judged.worst]}' is {judged.difference:.1e} from {self.name}, relative"
