"""Trials in processes of their own, forked from a warm one, so that a hang or a crash is a verdict like any other."""

from __future__ import annotations

import contextlib
import faulthandler
import importlib
import json
import os
import resource
import select
import signal
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch

from fuzzing.case import Verdict

SECONDS = 90.0
"""How long a trial may compute."""

PATIENCE = 8.0
"""How many times longer it may take by the clock, on a machine that others use."""

NEEDED = (
    "torch.export",
    "torch._dynamo",
    "lvc.compiler.driver",
    "lvc.compiler.load.onnx_importer",
    "lvc.compiler.load.torch_importer",
    "lvc.backends.onnx.writer",
    "lvc.backends.tvm.build",
    "lvc.backends.tvm.cpu.code_generator",
    "lvc.backends.tvm.lower",
)


def warm() -> None:
    """Import what every trial needs; no computation, which would start threads that a fork loses."""
    import onnxruntime

    from lvc.compiler.pipeline.pipeline import Pipeline

    for module in NEEDED:
        importlib.import_module(module)
    for preset in ("int8", "int8-fast", "O3", "sparsify", "prune-channels"):
        Pipeline.parse(preset)
    onnxruntime.set_default_logger_severity(4)


def apart(trial: Callable[[], Verdict], seconds: float = SECONDS) -> Verdict:
    """The verdict of a trial that runs in a fork of this process; it may compute for so long."""
    with tempfile.TemporaryFile() as talk:
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            os.close(reading)
            _run(trial, writing, talk.fileno(), seconds)
        os.close(writing)
        answer, status = _wait(child, reading, PATIENCE * seconds)
        talk.seek(0)
        said = talk.read()[-3000:].decode(errors="replace")
    if answer:
        return Verdict(**json.loads(answer))
    if status is None or (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXCPU):
        return Verdict("fault", f"hang in {_deepest(said)}", f"no end after {seconds:.0f} s\n{said}")
    name = (
        signal.Signals(os.WTERMSIG(status)).name
        if os.WIFSIGNALED(status)
        else f"exit {os.waitstatus_to_exitcode(status)}"
    )
    return Verdict("fault", f"crash: {name}", said)


def _run(trial: Callable[[], Verdict], writing: int, talk: int, seconds: float) -> None:
    """The child: it ends here, whatever happens."""
    try:
        os.setpgid(0, 0)
        os.dup2(talk, 1)
        os.dup2(talk, 2)
        faulthandler.enable(2)
        torch.set_num_threads(1)  # those of the parent are not here
        faulthandler.dump_traceback_later(max(1.0, PATIENCE * seconds - 2), file=2)
        faulthandler.register(signal.SIGXCPU, file=2, chain=True)
        resource.setrlimit(resource.RLIMIT_CPU, (max(1, int(seconds)), resource.RLIM_INFINITY))
        answer = json.dumps(asdict(trial())).encode()
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(answer)
        os._exit(0)
    except BaseException:
        os.write(talk, traceback.format_exc().encode())
        os._exit(70)


def _wait(child: int, reading: int, seconds: float) -> tuple[bytes, int | None]:
    """What a child wrote and how it ended; None if it had to be killed."""
    deadline, parts, ended = time.monotonic() + seconds, [], False
    while not ended and select.select([reading], [], [], max(0.0, deadline - time.monotonic()))[0]:
        part = os.read(reading, 1 << 16)
        parts.append(part)
        ended = not part
    os.close(reading)
    if not ended:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return b"".join(parts), status if ended else None


def _deepest(said: str) -> str:
    """The innermost function of lvc in a traceback of faulthandler's."""
    for line in said.splitlines():
        if 'File "' in line and ("/backends/" in line or "/compiler/" in line or "/passes/" in line):
            file, _, function = line.strip().partition(", line")
            return f"{Path(file.split(chr(34))[1]).name} {function.rpartition(' in ')[2]}"
    return "code outside lvc"
