"""The plan of an artefact, as far as it is the same for every device; loading a model needs it, so nothing heavy."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from lvc.compiler.errors import CompileError

PLAN, WEIGHTS = "plan.json", "weights.bin"
PLAN_VERSION = 3


def read_plan(files: Mapping[str, bytes]) -> dict[str, Any]:
    """Read the plan among an artefact's files; `CompileError` if there is none of this version."""
    if missing := sorted({PLAN, WEIGHTS} - set(files)):
        raise CompileError("the artefact is incomplete", why="it lacks " + ", ".join(missing))
    try:
        plan = json.loads(files[PLAN])
    except ValueError as error:
        raise CompileError("the artefact is damaged", why=f"its plan is no JSON: {error}") from error
    if not isinstance(plan, dict) or plan.get("version") != PLAN_VERSION:
        raise CompileError("the artefact was made by another version of lvc", help="build it again")
    return plan
