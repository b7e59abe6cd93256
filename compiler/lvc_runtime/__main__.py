"""Run a compiled model on photographs or arrays: the best classes, or a summary of each output."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import lvc_runtime
from lvc.compiler.cli import Parser, add_folder_options
from lvc.compiler.cli import main as run_program
from lvc.compiler.cli.model_options import add_seed_option
from lvc.compiler.cli.run import add_input_options, run_on
from lvc.compiler.errors import UsageError

if TYPE_CHECKING:
    from lvc.compiler.cli.console import Console

PROGRAM = "lvc-run"


def make_parser() -> argparse.ArgumentParser:
    parser = Parser(prog=PROGRAM, description=__doc__)
    parser.add_argument("--version", action="version", version=f"lvc-runtime {lvc_runtime.__version__}")
    add_folder_options(parser)
    parser.add_argument("model", metavar="MODEL", help="file.lvc, as 'lvc compile' writes it")
    add_input_options(parser)
    add_seed_option(parser, "seed of random inputs (default 0)")
    parser.add_argument("--json", action="store_true", help="print the result as JSON on stdout")
    parser.set_defaults(command="run", execute=execute)
    return parser


def execute(options: argparse.Namespace, console: Console) -> int:
    from lvc.compiler.container import is_artefact
    from lvc.compiler.measure.device import ThisMachine

    if not is_artefact(Path(options.model)):
        what = "is not a compiled model" if Path(options.model).exists() else "does not exist"
        raise UsageError(f"'{options.model}' {what}", help="give a file.lvc, as 'lvc compile' writes it")
    return run_on(ThisMachine(emulate=options.emulate), options, console)


def main() -> int:
    """Run the command line and return its exit code."""
    return run_program(sys.argv[1:], make_parser, PROGRAM)


if __name__ == "__main__":
    sys.exit(main())
