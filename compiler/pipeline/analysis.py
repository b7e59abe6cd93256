"""What an analysis is: a function that looks at a model, changes nothing, and says what it found.

An analysis `channel-groups` is the function ``findings`` of the file `channel_groups.py` of `lvc.passes.analysis`;
another package adds its own through the entry point ``lvc.analyses``, which names such a function.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lvc.compiler.ir.model import Model
from lvc.compiler.pipeline import catalogue
from lvc.compiler.pipeline.passes import Table


@dataclass(frozen=True)
class Findings:
    """What an analysis found: tables and sentences for people, plain data for ``--json``."""

    tables: tuple[Table, ...]
    notes: tuple[str, ...]
    data: Any


Analysis = Callable[[Model], Findings]


def find_analysis(name: str) -> Analysis:
    """Return the analysis of that name; `UsageError` if there is none."""
    return catalogue.ANALYSES.get(name)
