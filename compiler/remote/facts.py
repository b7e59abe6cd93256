"""What a board says of itself."""

from __future__ import annotations

import platform
from typing import Any

import lvc
from lvc.compiler.backend import Target
from lvc.compiler.errors import UsageError
from lvc.compiler.measure.processor import processor
from lvc.compiler.pipeline import catalogue
from lvc.compiler.threads import usable_cores


def facts(*, emulate: bool) -> dict[str, Any]:
    """What does not change; ``target`` names this machine anywhere, and is empty where it is no target."""
    known = {"processor": processor(), "machine": platform.machine(), "cores": usable_cores()}
    return {**known, "target": own_target(), "version": lvc.__version__, "emulates": emulate}


def own_target() -> str:
    try:
        target = Target.parse("native")
    except UsageError:
        return ""
    return catalogue.BACKENDS.get(target.backend).spelling(target)
