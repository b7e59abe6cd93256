"""Passes that ask for latencies take them from the board that is given, and the code is for what it is."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from device_servers import FACTS, KEY, board_that, key_file

from lvc.compiler import container
from lvc.compiler.artefact import Artefact
from lvc.compiler.cli import main
from lvc.compiler.loaded import load
from lvc.compiler.remote.address import Address
from lvc.compiler.remote.channel import Channel
from lvc.compiler.remote.message import Message

NET = """
import torch
from torch import nn

def make():
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 24, 3), nn.ReLU(), nn.Conv2d(24, 32, 3), nn.ReLU(), nn.Conv2d(32, 24, 3), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 4)).eval()
"""
NET_OPTIONS = ["net.py:make", "--shape", "1x3x16x16", "-p", "prune-channels{latency=0.5},O2", "--threads", "1"]


class Clockwork:
    """A board on which a model takes a nanosecond for each byte of its weights, and each kernel the same."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.files: dict[str, bytearray] = {}
        self.asked: list[str] = []

    def put(self, request: Message) -> Message:
        content = self.files.setdefault(request.header["digest"], bytearray())
        content += request.arrays[0].tobytes()
        return Message({"kept": len(content) == request.header["bytes"]})

    def answer(self, request: Message, channel: Channel) -> Message:
        what = request.header["do"]
        self.asked.append(what)
        artefacts = [self.artefact(item["digest"]) for item in request.header["models"]]
        outputs = [load(one, 1).executable(given) for one, given in zip(artefacts, request.arrays, strict=False)]
        parts = [part for found in outputs for part in found]
        seconds = [1e-9 * len(one.files["weights.bin"]) for one in artefacts]
        if what == "run":
            return Message({}, parts)
        assert what == "time"
        return Message({}, [*(np.full(request.header["repeats"], each) for each in seconds), *parts])

    def artefact(self, digest: str) -> Artefact:
        file = self._folder / f"{digest}.lvc"
        file.write_bytes(self.files[digest])
        return container.read(file)


@contextmanager
def clockwork(folder: Path) -> Iterator[tuple[Clockwork, Address]]:
    board = Clockwork(folder)
    with board_that(board.answer, {**FACTS, "target": "x86-64-v2"}, put=board.put) as address:
        yield board, address


def test_pruning_comes_to_a_share_of_the_board_s_latency(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LVC_DEVICE_KEY", KEY.decode())
    Path("net.py").write_text(NET)
    with clockwork(tmp_path) as (board, address):
        outputs = ["-o", "small.lvc", "--report", "report.json"]
        assert main(["compile", *NET_OPTIONS, "--device", str(address), *outputs]) == 0
    found = capsys.readouterr()
    told = re.search(rf"latency on x86-64-v2, board {address} (\d\.\d+)x, in turns", found.out)
    assert told
    assert 0.48 <= float(told[1]) <= 0.5
    small = container.read(Path("small.lvc"))
    assert small.target == "x86-64-v2"
    assert "time" in board.asked
    assert board.asked[-1] == "run"  # what was built, beside PyTorch
    report = json.loads(Path("report.json").read_text())
    assert report["built"]["where"] == f"board {address}"
    whole = max(len(board.artefact(digest).files["weights.bin"]) for digest in board.files)
    assert len(small.files["weights.bin"]) / whole == pytest.approx(float(told[1]), abs=1e-3)
    assert "answers of the board were held against the rewritten graph in PyTorch" in found.err


def test_a_board_that_lies_in_the_middle_takes_all_of_its_times_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the next board is asked is as if there had been no other."""
    monkeypatch.chdir(tmp_path)
    key = str(key_file(tmp_path))
    Path("net.py").write_text(NET)
    command = [
        "compile",
        "net.py:make",
        "--shape",
        "1x3x16x16",
        "-p",
        "prune-channels{latency=0.5},O2",
        "--threads",
        "1",
    ]
    with clockwork(tmp_path) as (alone, address):
        assert main([*command, "--device", str(address), "--key-file", key, "-o", "one.lvc"]) == 0
    lies = Clockwork(tmp_path)

    def lie(request: Message, channel: Channel) -> Message:
        found = lies.answer(request, channel)
        *rest, last = found.arrays
        return Message({}, [*rest, last + 1]) if len(lies.asked) == 2 else found

    with board_that(lie, FACTS, put=lies.put) as liar, clockwork(tmp_path) as (board, address):
        devices = ["--device", str(liar), "--device", str(address), "--key-file", key]
        assert main([*command, *devices, "-o", "two.lvc"]) == 0
    assert f"the board {liar} answers wrong numbers" in capsys.readouterr().err
    assert len(lies.asked) == 2
    assert board.asked == alone.asked
    assert container.read(Path("two.lvc")).files == container.read(Path("one.lvc")).files
