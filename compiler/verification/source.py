"""The model as loaded beside its source: the file as somebody else runs it, or the module before it was traced."""

from __future__ import annotations

from collections.abc import Sequence

from lvc.compiler.errors import CheckError
from lvc.compiler.ir.counts import padded
from lvc.compiler.ir.model import Model, Reference
from lvc.compiler.verification.closeness import Comparison, with_infinities
from lvc.compiler.verification.examples import Example
from lvc.compiler.verification.record import Verified

_SLACK = 4.0  # two ways to sum in single precision, neither of which is the better one


def verify_source(model: Model, examples: Sequence[Example], *, thorough: bool) -> Verified:
    """Raise `CheckError` if the model computes something else than its source, with the first node that does.

    A source that cannot be run, or is too slow for a check that nobody asked for, is skipped with the reason.
    """
    reference, record = model.reference, Verified()
    if reference is None:
        record.skipped = "nothing but lvc can compute such a source"
        return record
    if reference.is_slow and not thorough:
        record.skipped = f"{reference.name} is slow, and computes this with --check only"
        return record
    with record.timed():
        for example in examples:
            try:
                results = padded(model.outputs, model.counts, reference.run(example.inputs))
            except Exception as error:  # whoever computes there fails in his own ways
                record.skipped = f"{reference.name} cannot run it ({_line(error)})"
                return record
            wanted = with_infinities(results, example.outputs)
            found = Comparison(model, example.inputs, example.outputs, wanted, reference.bound, _SLACK)
            if found.explanation is None:
                raise _difference(found, reference, example)
            record.take(found.difference, found.explanation, finds_nothing=found.finds_nothing)
    record.against = reference.name
    return record


def _difference(found: Comparison, reference: Reference, example: Example) -> CheckError:
    first = reference.first_difference(example.inputs) if reference.first_difference else ""
    return CheckError(
        f"the loaded model differs from {reference.name} by {found.difference:.2e} relative",
        where=f"{found.model.source or found.model.name}, {first or _output(found, example)}",
        why=f"a model must be loaded as its source computes: at most {reference.bound:.0e} is allowed",
        help="please report it as a defect of lvc; --no-verify compiles the model all the same",
    )


def _output(found: Comparison, example: Example) -> str:
    names = found.model.output_names
    name = names[found.worst] if found.worst < len(names) else str(found.worst)
    return f"output '{name}' on {example.text}"


def _line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:160] if lines else type(error).__name__
