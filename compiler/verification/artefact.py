"""What was built beside the model that it was built from, run once before it is written."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lvc.compiler.artefact import Artefact
from lvc.compiler.backend import EMULATED_MACS, Executable, Untimed
from lvc.compiler.errors import CheckError, LvcError
from lvc.compiler.ir.model import Model
from lvc.compiler.measure.counts import total_macs
from lvc.compiler.measure.device import Device
from lvc.compiler.pipeline import catalogue
from lvc.compiler.text import si
from lvc.compiler.verification.closeness import (
    BOUND,
    MOST_STEPS,
    Comparison,
    differences,
    quantises,
    slack_of,
    with_infinities,
)
from lvc.compiler.verification.examples import Example
from lvc.compiler.verification.oracle import GraphOracle
from lvc.compiler.verification.record import Verified


def verify_artefact(
    artefact: Artefact,
    rewritten: Model,
    examples: Sequence[Example],
    *,
    is_lossy: bool,
    is_thorough: bool = False,
    threads: int | None = None,
    device: Device | None = None,
) -> Verified:
    """Raise `CheckError` if an artefact computes something else than its model.

    Without lossy passes that is the model as it was loaded, which the ``examples`` hold. Otherwise what was lost is for
    the user to judge, and the artefact is held against the ``rewritten`` model. Where that quantises, the
    artefact may differ as far as rounding moved the outputs: a value in the middle goes either way.

    Where there is a ``device`` the code runs there. Else code for another machine is emulated where there is an
    emulator; a large model only if it is to be ``is_thorough``.
    """
    record = Verified(against="the rewritten graph in PyTorch" if is_lossy else "PyTorch")
    with record.timed():
        if device:
            run: Executable | None = device.load(artefact, threads, GraphOracle(rewritten))
            record.where = device.where
        else:
            run = _runnable(artefact, rewritten, record, is_thorough, threads)
        if run is None:
            return record
        for example in examples:
            judged = _compare(example, run(*example.inputs), rewritten, is_lossy)
            if judged.explanation is None:
                raise _difference(judged, example.text)
            record.take(judged.difference, judged.explanation, finds_nothing=judged.finds_nothing)
    return record


def _runnable(
    artefact: Artefact, rewritten: Model, record: Verified, is_thorough: bool, threads: int | None
) -> Executable | None:
    """What runs an artefact, by an emulator if need be; without any the record says why."""
    backend = catalogue.BACKENDS.get(artefact.backend)
    try:
        run = backend.load(artefact, threads)
    except LvcError as error:
        try:
            run = backend.emulate(artefact, threads)
        except LvcError as missing:
            reasons = dict.fromkeys(one.why or one.what for one in (error, missing))
            record.skipped = f"this machine cannot run it ({'; '.join(reasons)})"
            return None
    is_emulated, amount = isinstance(run, Untimed), total_macs(rewritten.module.graph)
    if is_emulated and not is_thorough and amount > EMULATED_MACS:
        record.skipped = f"{si(amount, 'MACs')} take minutes to emulate, so only --check does"
        return None
    record.emulated = is_emulated
    return run


def _compare(example: Example, found: tuple[np.ndarray, ...], rewritten: Model, is_lossy: bool) -> Comparison:
    model, wanted, bound = example.model, example.outputs, BOUND
    if is_lossy:
        model, wanted = rewritten, rewritten(*example.inputs)
        if quantises(rewritten):
            bound = max(BOUND, min(MOST_STEPS, max(differences(wanted, example.outputs))))
    return Comparison(model, example.inputs, wanted, with_infinities(found, wanted), bound, slack_of(rewritten))


def _difference(judged: Comparison, inputs: str) -> CheckError:
    return CheckError(
        f"the compiled model differs from PyTorch by {judged.difference:.2e} relative",
        where=f"output '{judged.model.output_names[judged.worst]}' on {inputs}",
        why=f"code must compute what the rewritten graph says: at most {judged.bound:.0e} is allowed",
        help="'lvc opt --check' shows which pass moves the outputs; if none does, the backend is at fault: please "
        "report it; --no-verify writes the file all the same",
    )
