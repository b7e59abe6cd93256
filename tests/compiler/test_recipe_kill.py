"""A recipe that is killed goes on where it was, and ends the same as one that was left alone."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from recipe_files import RECIPE, write_folder

from lvc.compiler import container, files
from lvc.compiler.cli import main

TRAINED = RECIPE.replace(
    '[[stage]]\nname = "quantise"',
    '[[stage]]\nname = "train"\n'
    'pipeline = "distil{data=calib steps=12 batch=8 augment=none minutes=0 precision=fp32}"\n\n'
    '[[stage]]\nname = "quantise"',
).replace("macs=0.8 steps=1", "macs=0.6 steps=3")
COMMAND = ["compile", "--recipe", "r.toml", "--checkpoints", "kept", "-o", "out.lvc", "--threads", "1"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_folder(tmp_path)
    (tmp_path / "r.toml").write_text(TRAINED)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def content(path: Path) -> tuple[dict[str, bytes], dict[str, Any]]:
    """The files of an artefact and what it says of itself, but for how long training took."""
    artefact = container.read(path)
    metadata = json.loads(json.dumps(artefact.metadata))
    for item in metadata["report"]["passes"]:
        if item["text"].startswith("distil"):
            del item["notes"], item["tables"]
    return {name: bytes(part) for name, part in artefact.files.items()}, metadata


class Killed(BaseException):
    """What ends a run at once: nobody catches it."""


def test_a_run_that_ends_at_any_write_goes_on_to_the_same(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*COMMAND, "--checkpoints", "whole"]) == 0
    wanted = content(folder / "out.lvc")
    (folder / "out.lvc").unlink()
    fsync, left = files.os.fsync, [0]

    def dies_after_a_few(handle: int) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise Killed
        fsync(handle)

    monkeypatch.setattr(files.os, "fsync", dies_after_a_few)
    runs = 0
    while not (folder / "out.lvc").exists():
        runs, left[0] = runs + 1, 2
        try:
            assert main(COMMAND) == 0
        except Killed:
            assert not (folder / "out.lvc").exists()
        assert runs < 40
    assert runs > 3
    assert content(folder / "out.lvc") == wanted


def kill_until_done(folder: Path, kills: int, seed: int) -> int:
    """Run the recipe again and again, killed after random times; return how often it was killed."""
    draw = random.Random(seed)
    command = [sys.executable, "-m", "lvc", *COMMAND]
    started = time.perf_counter()
    subprocess.run([*command, "--checkpoints", "whole"], cwd=folder, check=True, capture_output=True)
    longest = time.perf_counter() - started
    (folder / "out.lvc").rename(folder / "wanted.lvc")
    killed = 0
    for _ in range(kills):
        run = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            run.wait(draw.uniform(0.5, 1) * longest)
        except subprocess.TimeoutExpired:
            run.send_signal(signal.SIGKILL)
        killed += run.wait() == -signal.SIGKILL
        if (folder / "out.lvc").exists():
            assert content(folder / "out.lvc") == content(folder / "wanted.lvc")
            (folder / "out.lvc").unlink()
            for path in (folder / "kept").iterdir():
                path.unlink()
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return killed


def test_a_killed_recipe_ends_the_same(folder: Path) -> None:
    assert kill_until_done(folder, 2, seed=3) >= 1
    assert content(folder / "out.lvc") == content(folder / "wanted.lvc")


@pytest.mark.slow
def test_a_recipe_that_is_killed_twenty_times_ends_the_same(folder: Path) -> None:
    assert kill_until_done(folder, 24, seed=1) >= 10  # a fast machine is done sooner
    assert content(folder / "out.lvc") == content(folder / "wanted.lvc")
