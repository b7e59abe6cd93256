"""Races and models on boards: built and, where this machine runs the code, checked here, and timed there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from lvc.backends.tvm.build import build_files
from lvc.backends.tvm.device import Device, Peak
from lvc.backends.tvm.kernel import Kernel
from lvc.backends.tvm.program import Argument
from lvc.backends.tvm.tuning.apart import Tell
from lvc.backends.tvm.tuning.contest import contest, difference, random_inputs
from lvc.backends.tvm.tuning.race import CONTROL, Arena, right
from lvc.compiler import container
from lvc.compiler.artefact import Artefact
from lvc.compiler.backend import Place, Target
from lvc.compiler.errors import LvcError, UsageError
from lvc.compiler.ir.model import Model
from lvc.compiler.ir.signature import Value
from lvc.compiler.ir.spec import TensorSpec
from lvc.compiler.measure.device import Oracle
from lvc.compiler.measure.timing import CLOCKS
from lvc.compiler.pipeline.workspace import Workspace
from lvc.compiler.remote.board import Board
from lvc.compiler.remote.errors import Refused
from lvc.compiler.remote.oracle import Known
from lvc.compiler.remote.pool import Emulators, Pool
from lvc.compiler.remote.remote_model import RemoteModel
from lvc.compiler.tuning.judgement import BLOCK, Judge
from lvc.compiler.tuning.kernels import CannotRace, Choice, Race
from lvc.compiler.verification.oracle import GraphOracle

BLOCKS = 3
PEAK_ROUNDS = 100
_CONTEST, _ARRAYS = "contest.lvc", "arrays.npz"
_BRIEF = Judge(fewest=BLOCK, most=BLOCK)
_TVM = "tvm"


@dataclass(frozen=True)
class Afar:
    """Races of a kernel on the boards of a pool; see `lvc.compiler.tuning.kernels.Kernel.race`."""

    arena: Arena
    pool: Pool

    def race(self, incumbent: Choice, challengers: Sequence[Choice], judge: Judge) -> Race:
        failures: dict[Choice, str] = {}
        while alive := [choice for choice in challengers if choice not in failures]:
            try:
                found = self._once(incumbent, alive, judge)
            except Refused as error:
                failures |= self._blamed(error, incumbent, alive)
            else:
                return Race(found.rounds, found.control, {**failures, **found.failures})
        return Race({}, np.empty(0), failures)

    def _once(self, incumbent: Choice, challengers: Sequence[Choice], judge: Judge) -> Race:
        with TemporaryDirectory(prefix="lvc-race-") as folder:
            told, failures = self.arena.apart(incumbent, challengers, partial(self._pack, Path(folder)))
            if told is None:
                return Race({}, np.empty(0), failures)
            names = next(m["names"] for m in told.messages if "names" in m)
            try:
                times, outputs = self.pool.timers.do(partial(self._run, Path(folder), names.index(CONTROL), judge))
            except UsageError as error:  # its arrays are too large for a message
                raise CannotRace(_line(error)) from error
        rule = outputs[names.index(self.arena.rule)]
        wrong = {name: why for name, output in zip(names, outputs, strict=True) if (why := difference(output, rule))}
        failures |= wrong
        if broken := next((failures[name] for name in (incumbent, CONTROL) if name in failures), ""):
            raise CannotRace(broken)
        rounds = {name: row for name, row in zip(names, times, strict=True) if name not in failures}
        return Race(rounds, rounds.pop(CONTROL), failures)

    def _blamed(self, error: Refused, incumbent: Choice, challengers: Sequence[Choice]) -> dict[Choice, str]:
        """Which of the challengers a board refuses when each runs alone; `CannotRace` if it is none of them."""
        if len(challengers) == 1:
            return {challengers[0]: _line(error)}
        found = {}
        for choice in challengers:
            try:
                self._once(incumbent, [choice], _BRIEF)
            except Refused as refused:
                found[choice] = _line(refused)
        if not found or len(found) == len(challengers):
            raise CannotRace(_line(error))
        return found

    def _pack(self, folder: Path, names: list[str], kernels: list[Kernel], tell: Tell) -> None:
        """Build the contest in the other process, and see here what it computes where that can be."""
        arena = self.arena
        program = contest(kernels, in_one=False)
        files = build_files(program, arena.generator, arena.target, Workspace(threads=1)).files
        arrays = {f"input{number}": array for number, array in enumerate(random_inputs(program))}
        if arena.device.place(arena.target) is Place.HERE:
            steps = arena.device.load(files, 1).stepper(list(arrays.values()))  # type: ignore[attr-defined]
            right(steps, names, arena.rule, tell)
            arrays |= {f"output{number}": array for number, array in enumerate(steps.outputs)}
        np.savez(folder / _ARRAYS, **arrays)  # type: ignore[arg-type]
        artefact = _artefact("contest", arena.target, _values(program.inputs), _values(program.outputs), files)
        (folder / _CONTEST).write_bytes(container.pack(artefact))
        tell({"names": names})

    def _run(self, folder: Path, control: int, judge: Judge, board: Board) -> tuple[list[np.ndarray], list[np.ndarray]]:
        artefact = container.read(folder / _CONTEST)
        with np.load(folder / _ARRAYS) as arrays:
            inputs = [arrays[f"input{number}"] for number in range(len(artefact.inputs))]
            known = [arrays[name] for name in (f"output{n}" for n in range(len(artefact.outputs))) if name in arrays]
        oracle: Oracle | None = Known(artefact, known) if known else None
        if oracle is None and self.pool.checkers.boards:
            oracle = Emulators(artefact, self.pool.checkers)
        return board.race(board.load(artefact, 1, oracle), inputs, control, judge)


@dataclass(frozen=True)
class Boards:
    """Where a model is timed that is tuned for the boards of a pool; see `lvc.backends.tvm.tuning.tunable.Bench`."""

    model: Model
    device: Device
    target: Target
    pool: Pool
    inputs: Sequence[np.ndarray]

    @property
    def workers(self) -> int:
        return len(self.pool.timers.boards)

    @property
    def processor(self) -> str:
        return self.device.processor(self.target, self.pool.processor)

    def arena(self, arena: Arena) -> Afar:
        return Afar(arena, self.pool)

    def profile(self, files: Mapping[str, bytes], rounds: int) -> tuple[np.ndarray, float]:
        peak = self.device.peak(self.target)

        def work(board: Board) -> tuple[np.ndarray, float]:
            found = _peak_of(board, self.target, peak) if peak else 0.0
            return self._steps(self._load(board, files, 0), rounds), found

        return self.pool.timers.do(work)

    def rounds(self, by_rule: Mapping[str, bytes], tuned: Mapping[str, bytes]) -> np.ndarray:
        """All on one board. Models of each block are copies of their own."""

        def work(board: Board) -> np.ndarray:
            blocks = []
            for block in range(BLOCKS):
                order = np.roll((0, 1, 2), block)
                files = (by_rule, by_rule, tuned)
                models = [self._load(board, files[place], 1 + 3 * block + int(place)) for place in order]
                rounds = [[self._steps(model, 1) for model in models] for _ in range(BLOCK)]
                blocks.append(np.array(rounds)[:, np.argsort(order)])
            return np.concatenate(blocks)

        return self.pool.timers.do(work)

    def _load(self, board: Board, files: Mapping[str, bytes], copy: int) -> RemoteModel:
        artefact = _artefact(self.model.name, self.target, self.model.inputs, self.model.outputs, files)
        model = board.load(artefact, 1, GraphOracle(self.model))
        model.copy = copy
        return model

    def _steps(self, model: RemoteModel, rounds: int) -> np.ndarray:
        return np.array([seconds for *_, seconds in model.time_steps(self.inputs, rounds, CLOCKS["cpu"])])


def _peak_of(board: Board, target: Target, peak: Peak) -> float:
    """Operations a second."""
    program = peak.program
    artefact = _artefact("peak", target, _values(program.inputs), _values(program.outputs), peak.files)
    ((*_, seconds),) = board.load(artefact, 1).time_steps(peak.inputs, PEAK_ROUNDS, CLOCKS["wall"])
    return peak.operations / seconds


def _artefact(
    name: str, target: Target, inputs: tuple[Value, ...], outputs: tuple[Value, ...], files: Mapping[str, bytes]
) -> Artefact:
    return Artefact(name, _TVM, target.text, inputs, outputs, files)


def _values(arguments: Sequence[Argument]) -> tuple[Value, ...]:
    return tuple(
        Value(one.value or f"value{number}", TensorSpec.of_array(np.empty(one.shape, one.dtype)))
        for number, one in enumerate(arguments)
    )


def _line(error: LvcError) -> str:
    return f"{error.what}: {error.why}" if error.why else error.what
