"""What a person sees while a model is tuned: on a terminal, in a narrow one, in a pipe, and when it is interrupted."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from dataclasses import replace
from pathlib import Path

import pytest
import tuned_sketch
from tuned_sketch import SketchKernel, tunable

from lvc.compiler.cli.tuning_display import screen
from lvc.compiler.tuning.account import Account, Row
from lvc.compiler.tuning.budget import Budget
from lvc.compiler.tuning.database import Database
from lvc.compiler.tuning.tuner import Tuner

PROGRAM = """
import fcntl
import signal
import sys
import termios
from lvc.compiler.cli.console import Console
from lvc.compiler.cli.tune import _show
from lvc.compiler.cli.tuning_display import Display
from lvc.compiler.tuning.budget import Budget
from lvc.compiler.tuning.database import Database
from lvc.compiler.tuning.tuner import Tuner
from tuned_sketch import three, tunable

signal.signal(signal.SIGINT, signal.default_int_handler)  # what a shell starts in the background ignores it
if sys.stdin.isatty():
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # so that its ctrl-c comes here
kernels, console = three(), Console()
for kernel in kernels:
    kernel.wait = float(sys.argv[2])
with Display(console) as display:
    account = Tuner(tunable(kernels), Database(sys.argv[1], create=True), Budget(trials=30), display.show).run()
_show(account, console)
sys.exit(130 if account.is_interrupted else 0)
"""
LAST = re.compile(r"(\d\.\d\d)x so far( \(give or take \d %\)|, by its kernels), about \d+ % more to expect; (.*)")


def command(folder: Path, wait: float) -> list[str]:
    return [sys.executable, "-c", PROGRAM, str(folder / "t.db"), str(wait)]


def environment(**more: str) -> dict[str, str]:
    sketch = str(Path(tuned_sketch.__file__).parent)
    paths = [sketch, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "TERM": "xterm", **more}


def on_terminal(folder: Path, wait: float, interrupt: bool = False, columns: int = 80, **more: str) -> tuple[str, int]:
    """What a terminal gets of so many columns and 24 rows, and the exit code."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))

    process = subprocess.Popen(
        command(folder, wait),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environment(**more),
        start_new_session=True,
    )
    os.close(theirs)
    found, deadline, sent = b"", time.monotonic() + 60, not interrupt
    while time.monotonic() < deadline:
        if not select.select([ours], [], [], 0.2)[0]:
            continue
        try:
            part = os.read(ours, 1 << 16)
        except OSError:  # the terminal is closed
            break
        found += part
        if not sent and found.count(b"to expect") > 3:
            sent = bool(os.write(ours, b"\x03"))
    os.close(ours)
    return found.decode().replace("\r\n", "\n"), process.wait(20)


def frames(told: str) -> list[str]:
    """The tables that were shown, one after the other."""
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "\f", told).replace("\r", "")
    return [part for part in plain.split("\f") if part.startswith("kernel ")]


def test_a_terminal_shows_kernels_and_what_is_left(tmp_path: Path) -> None:
    told, code = on_terminal(tmp_path, 0.0)
    assert code == 0
    seen = frames(told)
    first, later = seen[0].splitlines(), seen[-3].splitlines()
    assert first[0].split() == ["kernel", "runs", "rule", "best", "roof", "gain", "trials"]
    assert re.search(r"1\.00x; 0 trials, 30 trials left, about \d+ % more to expect", first[-1])
    assert any(re.search(r" \d+ \+ 6$", line) for frame in seen for line in frame.splitlines())
    assert re.search(r"ms of .* ms, 1\.\d\dx; \d+ trials", later[-1])
    assert max(len(line) for frame in seen[:-1] for line in frame.splitlines()) <= 80
    assert told.rindex("\x1b[?25h") > told.rindex("\x1b[?25l"), "the cursor is back"
    found = LAST.fullmatch(told.strip().splitlines()[-1])
    assert found
    assert found[3] == "the budget of 30 trials is spent"
    assert "where the rule was more than 10 % off, which is worth a report (a processor, lvc a version):" in told


def test_no_colour_is_asked_for(tmp_path: Path) -> None:
    told, code = on_terminal(tmp_path, 0.0, NO_COLOR="1")
    assert code == 0
    assert frames(told)
    assert not re.search(r"\x1b\[[0-9;]*m", told)


def test_ctrl_c_ends_with_what_was_found(tmp_path: Path) -> None:
    told, code = on_terminal(tmp_path, 1.0, interrupt=True)
    assert code == 130
    assert "Traceback" not in told
    found = LAST.fullmatch(told.strip().splitlines()[-1])
    assert found
    assert found[3] == "interrupted, and the same command goes on"
    assert told.rindex("\x1b[?25h") > told.rindex("\x1b[?25l")
    database = Database(tmp_path / "t.db")
    trials = len(database.trials())
    assert 0 < trials < 30
    kernels = tuned_sketch.three()
    assert Tuner(tunable(kernels), database, Budget(trials=30)).run().trials == 30
    assert sum(len(set(kernel.raced)) for kernel in kernels) == 30 - trials, "claims were given back, and no trial lost"


@pytest.mark.parametrize("terminal", [True, False])
def test_elsewhere_there_is_a_line_for_each_gain(terminal: bool, tmp_path: Path) -> None:
    """In a pipe, and on a terminal that can do no more."""
    if terminal:
        told, code = on_terminal(tmp_path, 0.0, TERM="dumb")
    else:
        run = subprocess.run(
            command(tmp_path, 0.0),
            capture_output=True,
            text=True,
            env=environment(),
            check=False,
            stdin=subprocess.DEVNULL,
        )
        told, code = run.stderr + run.stdout, run.returncode
    assert code == 0
    assert "\x1b" not in told
    gains = [line for line in told.splitlines() if line.startswith("a sketch: ") and "trials left" in line]
    assert gains
    assert re.match(
        r"a sketch: 1\.\d\dx; [\d.]+ ms of [\d.]+ ms, 1\.\d\dx; \d+ trials, \d+ trials left, about", gains[0]
    )
    assert LAST.fullmatch(told.strip().splitlines()[-1])


def test_a_small_terminal_gets_what_matters_most() -> None:
    kernel = SketchKernel("a", 12)
    row = Row("model.layer4.block2.conv1", "a", 1, 1e-3, 9e-4, 1e-4, kernel.rule, kernel.rule, 3)
    rows = [replace(row, key=str(number), rule=1e-3 * (number + 1)) for number in range(40)]
    lines = screen(Account(rows, 0.0, left="3 trials"), 60, 12).splitlines()
    assert len(lines) == 11
    assert max(map(len, lines[:-1])) <= 60
    assert re.match(r"….*\.conv1 ", lines[1])
    assert lines[-2] == "and 32 kernels that take less"
    assert len(screen(Account(rows[:1], 0.0), 200, 3).splitlines()) == 3
