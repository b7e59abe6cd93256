"""Other forms of a built model than its artefact: folders with what programs in C and C++ are built with."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lvc.compiler.errors import UsageError, did_you_mean
from lvc.compiler.files import Content, check_folder_writable, write_folder
from lvc.compiler.pipeline import catalogue

if TYPE_CHECKING:
    from lvc.compiler.artefact import Artefact
    from lvc.compiler.backend import Target

ARTEFACT, SHARED = "artefact", "shared"
FORMS = {
    ARTEFACT: "one file, which Python and C++ run",
    "c-package": "C sources, a library of kernels and weights, and what CMake builds them with",
    "source": "the same with kernels as assembly",
    "static": "a static library",
    SHARED: "a shared library",
    "object": "one object file",
}
"""The forms of a built model; all but the first are folders with a header in C and a manifest."""

WEIGHTS, THREADS = ("linked", "file"), ("none", "pthreads")
MANIFEST = "manifest.json"
_MADE_BY, _MOST_MANIFEST_BYTES = "lvc", 64 << 20


@dataclass(frozen=True)
class Emission:
    """A form, and the ``name`` that begins all of its names in C.

    ``weights`` are ``linked`` with the program, or in a ``file`` that it maps; kernels run on ``threads``: ``none`` but
    the caller's, or ``pthreads``. A C package says with ``threads`` what CMake does by default.
    """

    form: str
    name: str
    weights: str = "linked"
    threads: str = "none"

    def __post_init__(self) -> None:
        for what, given, known in (
            ("form", self.form, FORMS),
            ("weights", self.weights, WEIGHTS),
            ("threads", self.threads, THREADS),
        ):
            if given not in known:
                help = f"{did_you_mean(given, known)}one of {', '.join(known)}"
                raise UsageError(f"the {what} of an emission cannot be '{given}'", help=help)

    @property
    def prefix(self) -> str:
        """The name as C takes it."""
        return c_name(self.name)


def c_name(text: str) -> str:
    """A text as the beginning of names in C: letters, digits and ``_``, a letter first."""
    name = re.sub(r"\W+", "_", text, flags=re.ASCII).strip("_")
    return name if name[:1].isalpha() else f"model_{name}".rstrip("_")


def check_emission(emission: Emission, target: Target) -> None:
    """Raise `UsageError` if what is built for a target cannot be emitted so."""
    backend = catalogue.BACKENDS.get(target.backend)
    if emission.form not in (forms := backend.forms(target)):
        others = [form for form in FORMS if form in forms and form != ARTEFACT]
        is_alone = ARTEFACT in forms and not others
        raise UsageError(
            f"what is built for '{target.text}' cannot be emitted as '{emission.form}'",
            why="it is no code that a program in C is linked with" if is_alone else backend.why_only(target),
            help=("leave --emit out" if ARTEFACT in forms else f"--emit {', '.join(others)}")
            + ", or take another target: 'lvc targets' lists them",
        )


def check_artefact(target: Target) -> None:
    """Raise `UsageError` if what is built for a target is only emitted, so that no file of it could be run."""
    if catalogue.BACKENDS.get(target.backend).forms(target):
        check_emission(Emission(ARTEFACT, "model"), target)


def check_emission_writable(path: Path) -> None:
    """Raise `UsageError` if a folder could not be written there, or if what it holds is not all of lvc's making."""
    check_folder_writable(path, _files_of_lvc(path))


def emit(artefact: Artefact, path: Path, emission: Emission) -> None:
    """Write an artefact, as `compile` made it, into a folder, whole or not at all; one that was written so before is
    replaced. `UsageError` if its backend has no such form, or for a folder that holds anything else."""
    from lvc.compiler.backend import Target

    check_emission(emission, Target.parse(artefact.target))
    files: dict[str, Content] = dict(catalogue.BACKENDS.get(artefact.backend).emit(artefact, emission))
    write_folder(path, files, _files_of_lvc(path))


def described(artefact: Artefact, emission: Emission, files: dict[str, Content], more: dict[str, object]) -> bytes:
    """The manifest of a folder with these files: what the model takes and gives, ``more``, and digests."""
    import hashlib

    import lvc

    metadata = artefact.metadata
    known = {key: metadata[key] for key in ("preprocessing", "task", "labels", "pipeline") if metadata.get(key)}
    manifest = {
        "made_by": f"{_MADE_BY} {lvc.__version__}",
        "form": emission.form,
        "name": emission.prefix,
        "model": artefact.name,
        "target": artefact.target,
        "weights": emission.weights,
        "threads": emission.threads,
        "inputs": [[value.name, str(value.spec)] for value in artefact.inputs],
        "outputs": [[value.name, str(value.spec)] for value in artefact.outputs],
        **({"variants": [signature.to_json() for signature in artefact.variants]} if artefact.variants else {}),
        **known,
        **more,
        "files": {
            name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            for name, content in sorted(files.items())
        },
    }
    return json.dumps(manifest, indent=1).encode()


def _files_of_lvc(folder: Path) -> frozenset[str]:
    """The files that a folder's manifest says lvc wrote there; none if there is no such manifest."""
    try:
        with (folder / MANIFEST).open("rb") as file:
            manifest = json.loads(file.read(_MOST_MANIFEST_BYTES))
        is_own = str(manifest["made_by"]).split()[:1] == [_MADE_BY]
        return frozenset({MANIFEST, *map(str, manifest["files"])}) if is_own else frozenset()
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return frozenset()
