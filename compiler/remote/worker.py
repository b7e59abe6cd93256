"""The process of a device server that loads artefacts and runs them, for one client; it may crash or hang by itself.

It is asked over a socket that it inherits, in the messages of `lvc.compiler.remote.message`.
"""

from __future__ import annotations

import ctypes
import signal
import socket
import sys
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np

from lvc.compiler import container
from lvc.compiler.backend import OtherMachine, check_timed
from lvc.compiler.bench.steps import TimesSteps
from lvc.compiler.errors import CompileError, LvcError, UsageError
from lvc.compiler.ir.signature import signature_of
from lvc.compiler.ir.spec import TensorSpec
from lvc.compiler.loaded import Loaded, load
from lvc.compiler.measure.timing import CLOCKS, interleave
from lvc.compiler.remote.channel import Channel
from lvc.compiler.remote.errors import told
from lvc.compiler.remote.facts import own_target
from lvc.compiler.remote.message import Malformed, Message, typed
from lvc.compiler.tuning.judgement import Judge
from lvc.compiler.tuning.rounds import RunsSteps, in_turns, pinned, timed

T = TypeVar("T")
_Key = tuple[str, int | None, int]
_KEPT = 4
"""Models that stay loaded beside those of a request."""

_MOST_REPEATS, _MOST_SECONDS = 100_000, 3600.0
_BEAT = 1.0
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG


def main(descriptor: int, *, emulate: bool) -> None:
    """Answer requests until there are no more."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
    channel = Channel(socket.socket(fileno=descriptor))
    models = Models(emulate=emulate)
    while True:
        try:
            request = channel.receive()
        except EOFError:
            return
        channel.send(answer(request, models, channel))


def answer(request: Message, models: Models, channel: Channel) -> Message:
    """The answer to a request, whatever happens short of a crash."""
    try:
        return _REQUESTS[request.get("do", str)](request, models.of(request), channel)
    except LvcError as error:
        return told(error)
    except MemoryError:
        return told(CompileError("the board has not enough memory", help="take a smaller model, batch or image"))
    except Exception as error:
        return told(CompileError("a defect of lvc on the board", why=f"{type(error).__name__}: {error}"))


class Models:
    """The models that are loaded, those that were asked for last."""

    def __init__(self, *, emulate: bool) -> None:
        self._emulate = emulate
        self._loaded: OrderedDict[_Key, Loaded] = OrderedDict()

    def of(self, request: Message) -> list[Loaded]:
        """Those of a request."""
        named = request.get("models", list)
        keys = [(typed(str, item.get("path"), "path"), item.get("threads"), item.get("copy", 0)) for item in named]
        found = [self._one(*key) for key in keys]
        while len(self._loaded) > max(_KEPT, len(keys)):
            self._loaded.popitem(last=False)
        return found

    def _one(self, path: str, threads: int | None, copy: int) -> Loaded:
        key = (path, threads, copy)
        if key not in self._loaded:
            self._loaded[key] = _load(Path(path), threads, emulate=self._emulate)
        self._loaded.move_to_end(key)
        return self._loaded[key]


def _load(path: Path, threads: int | None, *, emulate: bool) -> Loaded:
    artefact = container.read(path)
    try:
        return load(artefact, threads, emulate=emulate)
    except OtherMachine as error:
        own = own_target()
        raise CompileError(
            f"the artefact was built for {artefact.target}, and the board cannot run it",
            why=error.why,
            help=f"the board is a {own}: compile with --target {own}" if own else "",
        ) from error


class _Beats:
    """Progress that tells the server that the work goes on."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._last = time.monotonic()

    def track(self, items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
        for item in items:
            self.beat()
            yield item

    def beat(self) -> None:
        if time.monotonic() - self._last > _BEAT:
            self._channel.send(Message({"beat": "running"}))
            self._last = time.monotonic()

    def say(self, text: str) -> None:
        return None


def _run(request: Message, models: Sequence[Loaded], channel: Channel) -> Message:
    (model,) = models
    return Message({}, _outputs(model, request.arrays))


def _time(request: Message, models: Sequence[Loaded], channel: Channel) -> Message:
    counts = [typed(int, count, "inputs") for count in request.get("inputs", list)]
    seconds, repeats = typed(float, request.header.get("seconds"), "seconds"), _repeats(request)
    if len(counts) != len(models) or sum(counts) != len(request.arrays) or min(counts, default=0) < 0 or not models:
        raise Malformed("'inputs' does not count the inputs of the models")
    if not 0 <= seconds <= _MOST_SECONDS:
        raise UsageError(f"a board measures for at most {_MOST_SECONDS:g} s, not {seconds:g} s")
    rest, runs, outputs = iter(request.arrays), [], []
    for model, count in zip(models, counts, strict=True):
        inputs = [next(rest) for _ in range(count)]
        check_timed(model.executable)
        outputs.append(_outputs(model, inputs))
        runs.append(partial(model.executable, *inputs))
    timings = interleave(runs, seconds=seconds, repeats=repeats, clock=_clock(request), progress=_Beats(channel))
    samples = [np.array(timing.samples, np.float64) for timing in timings]
    return Message({"outputs": list(map(len, outputs))}, [*samples, *(part for parts in outputs for part in parts)])


def _steps(request: Message, models: Sequence[Loaded], channel: Channel) -> Message:
    (model,) = models
    check_timed(model.executable)
    if not isinstance(model.executable, TimesSteps):
        raise UsageError(f"the {model.artefact.backend} backend cannot time its kernels")
    outputs = _outputs(model, request.arrays)
    times = model.executable.time_steps(request.arrays, _repeats(request) or 1, CLOCKS[_clock(request)])
    return Message({"steps": [[name, list(nodes), seconds] for name, nodes, seconds in times]}, outputs)


def _race(request: Message, models: Sequence[Loaded], channel: Channel) -> Message:
    (model,) = models
    check_timed(model.executable)
    if not isinstance(model.executable, RunsSteps):
        raise UsageError(f"the {model.artefact.backend} backend cannot run its kernels one by one")
    fewest, most, limit = request.get("fewest", int), request.get("most", int), request.get("seconds", float)
    outputs = _outputs(model, request.arrays)
    control = request.get("control", int)
    if not (1 <= fewest <= most <= _MOST_REPEATS and 0 <= limit <= _MOST_SECONDS and 0 <= control < len(outputs)):
        raise UsageError("a race is of contestants, and of so many rounds and seconds")
    beats = _Beats(channel)
    with pinned():
        run = timed(model.executable.stepper(request.arrays, in_one=True), request.arrays)
        found = in_turns(run, range(len(outputs)), control, Judge(fewest, most, limit), beats.beat)
    return Message({}, [*(np.array(found[number]) for number in range(len(outputs))), *outputs])


_REQUESTS = {"run": _run, "time": _time, "steps": _steps, "race": _race}


def _outputs(model: Loaded, inputs: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
    signature_of(model.artefact.signatures, [TensorSpec.of_array(array) for array in inputs])
    return model.executable(*inputs)


def _repeats(request: Message) -> int | None:
    repeats = request.header.get("repeats")
    if repeats is None:
        return None
    if not 1 <= typed(int, repeats, "repeats") <= _MOST_REPEATS:
        raise UsageError(f"a board measures at most {_MOST_REPEATS} times, not {repeats}")
    return int(repeats)


def _clock(request: Message) -> str:
    clock = request.get("clock", str)
    if clock not in CLOCKS:
        raise Malformed("'clock' is none")
    return clock
