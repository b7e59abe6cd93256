"""Let workstations run and time models on this machine: 'lvc bench MODEL --device HOST:PORT' there."""

from __future__ import annotations

import argparse
import sys

import lvc_runtime
from lvc.compiler.cli import Parser, serve_device
from lvc.compiler.cli import main as run_program

PROGRAM = "lvc-serve"


def make_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog=PROGRAM, description=serve_device.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action="version", version=f"lvc-runtime {lvc_runtime.__version__}")
    serve_device.configure(parser)
    parser.add_argument("--json", action="store_true", help="print where it listens as JSON on stdout")
    parser.set_defaults(command="serve-device", execute=serve_device.execute)
    return parser


def main() -> int:
    """Run the command line and return its exit code."""
    return run_program(sys.argv[1:], make_parser, PROGRAM)


if __name__ == "__main__":
    sys.exit(main())
