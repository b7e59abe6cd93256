"""From a case that fails to the least that fails in the same way."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

from fuzzing.case import Case
from fuzzing.program import Program, Ref, Step, renamed

Fails = Callable[[Case], bool]
MOST_TRIALS = 400


def shrink(case: Case, fails: Fails, most: int = MOST_TRIALS) -> Case:
    """Take away steps, outputs, passes and options as long as what is left fails; no more than so many trials."""
    left, tried = [most], {repr(case)}

    def tries(smaller: Case) -> bool:
        if left[0] <= 0 or repr(smaller) in tried or not _is_sound(smaller.program):
            return False
        left[0] -= 1
        tried.add(repr(smaller))
        return fails(smaller)

    moved = True
    while moved and left[0] > 0:
        moved = False
        for smaller in candidates(case):
            if tries(smaller):
                case, moved = smaller, True
                break
    return case


def _is_sound(program: Program) -> bool:
    try:
        specs = program.specs()
    except Exception:  # PyTorch raises many types for calls that cannot be made
        return False
    return all(specs[step.name].elements for step in program.steps)


def candidates(case: Case) -> Iterator[Case]:
    """Smaller cases, those that take most away first."""
    program = case.program
    for smaller in _programs(program):
        yield dataclasses.replace(case, program=smaller.pruned())
    for text in _pipelines(case.pipeline):
        yield dataclasses.replace(case, pipeline=text)
    if case.verify:
        yield dataclasses.replace(case, verify=False)
    if case.inputs != "normal":
        yield dataclasses.replace(case, inputs="normal")
    if case.target in ("x86-64-v2", "x86-64-v4", "native"):
        yield dataclasses.replace(case, target="x86-64-v3")


def _programs(program: Program) -> Iterator[Program]:
    if len(program.outputs) > 1:
        for name in program.outputs:
            yield dataclasses.replace(program, outputs=(name,))
        for at in range(len(program.outputs)):
            yield dataclasses.replace(program, outputs=program.outputs[:at] + program.outputs[at + 1 :])
    count = len(program.steps)
    size = count // 2
    while size:
        for start in range(0, count, size):
            yield _cut(program, program.steps[start : start + size])
        size //= 2
    specs = program.specs()
    for step in reversed(program.steps):
        for name in step.operands:
            if specs[name] == specs[step.name]:
                yield _bypassed(program, step, name)
        if step.name not in program.outputs:
            yield dataclasses.replace(program, outputs=(step.name,))
    for step in program.steps:
        for plainer in _plainer(step):
            steps = tuple(plainer if other is step else other for other in program.steps)
            yield dataclasses.replace(program, steps=steps)


def _cut(program: Program, steps: tuple[Step, ...]) -> Program:
    """Steps become inputs of the values' own types; those that are outputs are outputs no longer."""
    specs, gone = program.specs(), {step.name for step in steps}
    inputs = {**program.inputs, **{name: specs[name] for name in gone}}
    outputs = tuple(name for name in program.outputs if name not in gone)
    kept = tuple(step for step in program.steps if step.name not in gone)
    return Program(inputs, program.stored, kept, outputs) if outputs else program


def _bypassed(program: Program, step: Step, name: str) -> Program:
    names = {step.name: name}
    steps = tuple(renamed(other, names) for other in program.steps if other is not step)
    return Program(program.inputs, program.stored, steps, tuple(names.get(out, out) for out in program.outputs))


def _plainer(step: Step) -> Iterator[Step]:
    """The same call with fewer operands or hints."""
    if step.op == "cat" and len(step.args[0]) > 2:
        for at in range(len(step.args[0])):
            yield dataclasses.replace(step, args=(step.args[0][:at] + step.args[0][at + 1 :], *step.args[1:]))
    if step.op in ("conv2d", "linear", "conv_transpose2d") and any(isinstance(bias, Ref) for bias in step.args[2:3]):
        yield dataclasses.replace(step, args=(*step.args[:2], None, *step.args[3:]))
    if step.hint:
        yield dataclasses.replace(step, hint={})


def _pipelines(text: str) -> Iterator[str]:
    """Shorter pipelines: none, the presets below, one pass less."""
    if not text:
        return
    yield ""
    for preset in ("O1", "O2"):
        if text != preset:
            yield preset
    from lvc.compiler.pipeline.pipeline import Pipeline

    passes = [str(item) for item in Pipeline.parse(text)]
    if len(passes) > 1:
        for at in range(len(passes)):
            yield ",".join(passes[:at] + passes[at + 1 :])
