"""The options that say in which form a built model is written."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from lvc.compiler.emission import ARTEFACT, FORMS, THREADS, WEIGHTS, Emission
from lvc.compiler.errors import UsageError

if TYPE_CHECKING:
    from lvc.compiler.artefact import Artefact
    from lvc.compiler.backend import Target


def add_emission_options(parser: argparse.ArgumentParser) -> None:
    forms = "; ".join(f"{name}: {what}" for name, what in FORMS.items())
    group = parser.add_argument_group("output", f"All forms but the first are folders with a header in C. {forms}.")
    group.add_argument("-o", "--output", metavar="PATH", type=Path, help="file or folder (default: the model's name)")
    group.add_argument("--emit", choices=tuple(FORMS), default=ARTEFACT, help="form of the output")
    group.add_argument("--emit-weights", choices=WEIGHTS, help="linked with the program, or in a file that it maps")
    group.add_argument("--emit-threads", choices=THREADS, help="what emitted code runs on beside the caller's thread")


def check_output(options: argparse.Namespace, target: Target) -> None:
    """Raise `UsageError` for a form that a target does not have, and if nothing could be written in it."""
    from lvc.compiler.emission import check_artefact, check_emission, check_emission_writable
    from lvc.compiler.files import check_writable

    emission = _emission(options, "model")
    check_emission(emission, target) if emission else check_artefact(target)
    if options.output:
        (check_emission_writable if emission else check_writable)(options.output)


def output_path(options: argparse.Namespace, artefact: Artefact) -> Path:
    """Where an artefact is written: where the options say, or under the model's name."""
    emission = _emission(options, artefact.name)
    return options.output or Path(emission.prefix if emission else f"{artefact.name}{artefact.suffix}")


def write_output(options: argparse.Namespace, artefact: Artefact, path: Path) -> None:
    """Write an artefact in the form that is asked for."""
    from lvc.compiler import container
    from lvc.compiler.emission import emit

    if emission := _emission(options, artefact.name):
        emit(artefact, path, emission)
    else:
        container.write(artefact, path)


def _emission(options: argparse.Namespace, name: str) -> Emission | None:
    """The emission that is asked for, under the name of its folder or else this one; None for an artefact."""
    given = {"--emit-weights": options.emit_weights, "--emit-threads": options.emit_threads}
    if options.emit == ARTEFACT:
        if useless := [option for option, value in given.items() if value]:
            help = "artefacts hold their weights, and run on as many threads as they are told; name a form with --emit"
            raise UsageError(f"{useless[0]} is for other forms than '{ARTEFACT}'", help=help)
        return None
    name = options.output.resolve().name if options.output else name
    return Emission(options.emit, name, options.emit_weights or WEIGHTS[0], options.emit_threads or THREADS[0])
