"""Time artefacts against other engines, all in one process and in turns."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lvc.compiler.cli.console import Console

SUMMARY = "time artefacts against other engines, in turns"


def configure(parser: argparse.ArgumentParser) -> None:
    """Options follow."""


def execute(options: argparse.Namespace, console: Console) -> int:
    return 0
