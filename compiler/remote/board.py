"""A board as the workstation sees it: artefacts are sent there, run and timed, and what it answers is checked.

A board that does not answer, answers nonsense or wrong numbers is `Retired` with the reason; it is asked no more.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn, Self

import numpy as np

from lvc.compiler import container
from lvc.compiler.errors import LvcError, UsageError
from lvc.compiler.measure.device import Call, Device, Oracle
from lvc.compiler.measure.timing import FEWEST_ROUNDS, Timing
from lvc.compiler.remote.address import Address, reason
from lvc.compiler.remote.channel import Channel
from lvc.compiler.remote.errors import Refused, Retired, error_of
from lvc.compiler.remote.handshake import KeyRefused, greet
from lvc.compiler.remote.message import Malformed, Message, typed
from lvc.compiler.remote.oracle import same_code
from lvc.compiler.remote.remote_model import RemoteModel
from lvc.compiler.remote.store import digest_of
from lvc.compiler.text import counted, printable
from lvc.compiler.tuning.judgement import Share

if TYPE_CHECKING:
    from lvc.compiler.artefact import Artefact
    from lvc.compiler.pipeline.workspace import Progress
    from lvc.compiler.tuning.judgement import Judge

SILENCE = 20.0
"""A board that has said nothing for so many seconds has died or hangs; a server at work says so every two."""

LONGEST = 3600.0
"""Seconds that an answer may take beside those that were asked to be measured, whatever the board says meanwhile."""

_PART = 4 << 20
_AGREE = 1.25
"""Two builds of one kernel surely differ by less: where code happens to lie makes it a tenth slower at most."""


@dataclass
class Checks:
    """How many answers of a board were held against what, and what could not be."""

    answers: int = 0
    checked: int = 0
    largest: float = 0.0
    by: dict[str, None] = field(default_factory=dict)
    missing: dict[str, None] = field(default_factory=dict)

    def __str__(self) -> str:
        lines = [f"unchecked: {why}" for why in self.missing]
        if self.checked:
            told = f"{self.checked} of {self.answers} answers of the board were held against {' and '.join(self.by)}"
            lines.insert(0, told + (f": at most {self.largest:.1e} apart, relative" if self.largest else ": equal"))
        return "\n".join(lines)


class Board(Device):
    """A connection to a device server.

    ``say`` is told what happens meanwhile. `Retired` if there is none, if it has another key, or as above.
    """

    def __init__(self, address: Address, key: bytes, say: Callable[[str], None] = lambda _: None) -> None:
        self.address = address
        self.checks = Checks()
        self._say = say
        self._retired: Retired | None = None
        self._channel: Channel | None = None
        self._channel = self._greeted(key)
        self._facts = self._read_facts()

    def close(self) -> None:
        """Say goodbye; it is asked no more."""
        if self._channel:
            self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def processor(self) -> str:
        return f"{self.processor_name}, board {self.address}"

    @property
    def target(self) -> str:
        """The target that it is; `Retired` where it is none."""
        if not (text := typed(str, self._facts["target"], "target")):
            self.retire("is no target that lvc knows", f"it is {self._facts['machine']}")
        return text

    @property
    def processor_name(self) -> str:
        """What its processor calls itself."""
        return printable(self._facts["processor"])

    @property
    def emulates(self) -> bool:
        """Whether it runs code by emulation, which has no times."""
        return bool(self._facts["emulates"])

    @property
    def where(self) -> str:
        return f"board {self.address}"

    def load(self, artefact: Artefact, threads: int | None = None, oracle: Oracle | None = None) -> RemoteModel:
        content = container.pack(artefact)
        if oracle is None:
            oracle, why = same_code(artefact, threads)
            self.checks.missing |= {why: None} if why else {}
        model = RemoteModel(self, artefact, content, digest_of(content), threads, oracle)
        self._put(model)
        return model

    def time(
        self,
        calls: Sequence[Call],
        *,
        seconds: float = 10.0,
        repeats: int | None = None,
        clock: str = "wall",
        progress: Progress | None = None,
    ) -> list[Timing]:
        models = [model for model, _ in calls if isinstance(model, RemoteModel) and model.board is self]
        if len(models) != len(calls):
            raise UsageError("a board times only what it runs", help="leave out the engines that run here")
        header = {"seconds": seconds, "repeats": repeats, "clock": clock, "inputs": [len(given) for _, given in calls]}
        started = time.perf_counter()
        answer = self.execute("time", models, [array for _, given in calls for array in given], header)
        elapsed = time.perf_counter() - started
        if len(answer.arrays) != len(calls) + sum(len(model.artefact.outputs) for model in models):
            self.retire("answers nonsense", f"{counted(len(answer.arrays), 'array')} about {len(calls)} models")
        samples, rest = answer.arrays[: len(calls)], iter(answer.arrays[len(calls) :])
        for (_, inputs), model in zip(calls, models, strict=True):
            model.check(inputs, [next(rest) for _ in model.artefact.outputs])
        self._check_samples(samples, repeats, elapsed if clock == "wall" else math.inf)
        return [Timing(tuple(map(float, row))) for row in samples]

    def race(
        self, model: RemoteModel, inputs: Sequence[np.ndarray], control: int, judge: Judge
    ) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Run the kernels of a model in turns; see `lvc.compiler.tuning.rounds`. Return the seconds of each one's runs,
        and the outputs of all. The one with the number ``control`` is the first once more: their times must agree."""
        count = len(model.artefact.outputs)
        header = {"control": control, "fewest": judge.fewest, "most": judge.most, "seconds": judge.limit}
        started = time.perf_counter()
        answer = self.execute("race", [model], inputs, header)
        elapsed = time.perf_counter() - started
        if len(answer.arrays) != 2 * count:
            self.retire("answers nonsense", f"{counted(len(answer.arrays), 'array')} about {count} contestants")
        times, outputs = list(answer.arrays[:count]), list(answer.arrays[count:])
        model.check(inputs, outputs)
        for row in times:
            self._check_samples([row], row.size or 1, elapsed - sum(map(np.sum, times)) + row.sum())
        self._check_samples([times[0], times[control]], None, elapsed)
        apart = Share.of(times[control], times[0])
        if apart.least > _AGREE or apart.most < 1 / _AGREE:
            why = f"of two builds of one kernel the second takes {apart.value:.2g} times as long as the first"
            self.retire("answers times that cannot be", why)
        return times, outputs

    def busy(self) -> tuple[float, int]:
        facts = self._read_facts()
        return typed(float, facts["load"], "load"), typed(int, facts["cores"], "cores")

    def remark(self) -> str:
        return str(self.checks)

    def execute(
        self, what: str, models: Sequence[RemoteModel], arrays: Sequence[np.ndarray], header: Mapping[str, Any]
    ) -> Message:
        """Ask for something that concerns models; those that the board has forgotten are sent again."""
        named = [{"digest": model.digest, "threads": model.threads, "copy": model.copy} for model in models]
        asked, longest = {**header, "do": what, "models": named}, LONGEST + float(header.get("seconds") or 0)
        answer = self._ask(asked, arrays, longest)
        if "missing" in answer.header:
            for model in models:
                self._put(model)
            answer = self._ask(asked, arrays, longest)
        if "missing" in answer.header:
            self.retire("forgets artefacts", "it cannot keep these together", "start it with a larger --cache")
        return answer

    def retire(self, what: str, why: str, help: str = "") -> NoReturn:
        """Ask this board no more."""
        self._retired = self._retired or Retired(f"the board {self.address} {what}", why=why, help=help)
        self.close()
        raise self._retired

    def _check_samples(self, samples: Sequence[np.ndarray], repeats: int | None, most: float) -> None:
        """Retire a board whose times cannot be: of another number, not above zero, longer than the answer took."""
        shapes = {(array.dtype.name, array.shape) for array in samples}
        count = samples[0].size
        is_right = count == repeats if repeats else count >= FEWEST_ROUNDS
        sane = is_right and shapes == {("float64", (count,))} and all(np.isfinite(row).all() for row in samples)
        if not sane or min(row.min() for row in samples) <= 0:
            self.retire("answers times that are none", f"{count} of them, or some are not above zero")
        if sum(row.sum() for row in samples) > most:
            self.retire("answers times that cannot be", "together they are longer than it took to answer")

    def _put(self, model: RemoteModel) -> None:
        header = {"do": "put", "digest": model.digest, "bytes": len(model.content)}
        for start in range(-_PART, len(model.content), _PART):
            part = model.content[max(0, start) : start + _PART]
            answer = self._ask({**header, "offset": max(0, start)}, [np.frombuffer(part, np.uint8)], LONGEST)
            if answer.header.get("kept") is True:
                return
        self.retire("does not keep what it is sent", "it says so of all parts")

    def _greeted(self, key: bytes) -> Channel:
        connection = self.address.connect()
        try:
            return greet(connection, key)
        except KeyRefused as error:
            connection.close()
            self.retire("has another key", "what was proved with this one was refused", error.help)
        except (Malformed, EOFError, OSError) as error:
            connection.close()
            why = error.why if isinstance(error, Malformed) else reason(error)
            self.retire("is no device server", why, f"'lvc-serve' must be running at {self.address}")

    def _read_facts(self) -> dict[str, Any]:
        answer = self._ask({"do": "describe"}, (), LONGEST)
        kinds = {"processor": str, "machine": str, "cores": int, "target": str, "load": float, "version": str}
        try:
            known: dict[str, Any] = {name: typed(kind, answer.header.get(name), name) for name, kind in kinds.items()}
            return {**known, "emulates": typed(bool, answer.header.get("emulates", False), "emulates")}
        except Malformed as error:
            self.retire("answers nonsense", error.why)

    def _ask(self, header: Mapping[str, Any], arrays: Sequence[np.ndarray], longest: float) -> Message:
        if self._retired or not self._channel:
            raise self._retired or AssertionError
        try:
            self._channel.send(Message(header, arrays), SILENCE)
            answer = self._answer(self._channel, time.monotonic() + longest)
            error = error_of(answer)
        except TimeoutError:
            self.retire("hangs", f"nothing was heard of it for {SILENCE:g} s")
        except (EOFError, OSError) as lost:
            self.retire("is gone", reason(lost))
        except Malformed as nonsense:
            self.retire("answers nonsense", nonsense.why)
        if error:
            self._refused(error)
        return answer

    def _answer(self, channel: Channel, deadline: float) -> Message:
        is_told = False
        while True:
            answer = channel.receive(SILENCE)
            if "beat" not in answer.header:
                return answer
            if time.monotonic() > deadline:
                self.retire("hangs", f"it has not answered for {LONGEST:g} s")
            if answer.header["beat"] == "waiting" and not is_told:
                self._say(f"the board {self.address} serves somebody else; waiting")
                is_told = True

    def _refused(self, error: LvcError) -> NoReturn:
        """The board says what it cannot do; to whoever asked, that is the error."""
        where = f"board {self.address}" + (f", {error.where}" if error.where else "")
        self._retired = Refused(error.what, where=where, why=error.why, help=error.help)
        self.close()
        raise self._retired from error
