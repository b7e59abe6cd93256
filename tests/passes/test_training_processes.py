"""Training by processes that torchrun starts: what they write and tell, and what becomes of the others if one dies."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from training_models import Pictures, network

from lvc.compiler.cli import main
from lvc.compiler.pipeline import ranks
from lvc.compiler.pipeline.ranks import ALONE, join
from lvc.compiler.writing import write_model

TRAINING = "finetune{{steps={steps} batch=16 lr=0.05 precision=fp32 mixup=0.2 every=2}}"
PATIENCE = 240


@pytest.fixture
def arguments(tmp_path: Path) -> list[str]:
    """The arguments of ``lvc opt`` but for the pipeline: a network with dropout, and 70 labelled images."""
    inputs, labels = zip(*Pictures(70), strict=True)
    np.savez(tmp_path / "train.npz", x=np.concatenate(inputs), y=np.array(labels))
    write_model(network(), tmp_path / "net.pt2")
    return ["opt", str(tmp_path / "net.pt2"), "--data", f"train={tmp_path / 'train.npz'}", "--checkpoints"]


def environment(**variables: object) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", **{name: str(value) for name, value in variables.items()}}


def trained_alone(arguments: list[str], text: str, output: Path, capfd: pytest.CaptureFixture[str]) -> str:
    """Train in this process; return what is said."""
    threads = torch.get_num_threads()
    try:
        assert main([*arguments, "-p", text, "-o", str(output), "--threads", "1"]) == 0
    finally:
        torch.set_num_threads(threads)
    return capfd.readouterr().err


def assert_same_weights(a: Path, b: Path) -> None:
    ours, theirs = load_file(a), load_file(b)
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=2e-4, atol=2e-5, msg=name)


def test_two_processes_train_to_what_one_does_and_one_writes(
    arguments: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    text, kept = TRAINING.format(steps=4), tmp_path / "kept"
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone", "-m", "lvc"]
    command += [*arguments, str(kept), "-p", text, "-o", str(tmp_path / "two.safetensors")]
    found = subprocess.run(
        command, env=environment(), capture_output=True, text=True, timeout=PATIENCE, check=False, cwd=tmp_path
    )
    assert found.returncode == 0, found.stderr
    assert found.stdout.count("wrote") == 1
    assert found.stderr.count("step 2 of 4") == found.stderr.count("step 4 of 4") == 1
    assert sorted(path.suffix for path in kept.iterdir()) == [".jsonl", ".safetensors", ".svg"]
    trained_alone([*arguments, str(tmp_path / "alone")], text, tmp_path / "one.safetensors", capfd)
    assert_same_weights(tmp_path / "two.safetensors", tmp_path / "one.safetensors")


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.mark.parametrize("dies", [0, 1])
def test_a_process_that_dies_ends_all_with_one_error_and_training_goes_on_in_another_number(
    dies: int, arguments: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    text, kept = TRAINING.format(steps=120), tmp_path / "kept"
    shared = {"TORCHELASTIC_RUN_ID": "test", "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    logs = [tmp_path / f"{rank}.txt" for rank in range(2)]
    started = []
    for rank, log in enumerate(logs):
        command = [sys.executable, "-m", "lvc", *arguments, str(kept), "-p", text, "-o", str(tmp_path / "x.pt2")]
        with log.open("wb") as file:
            own = environment(**shared, RANK=rank, LOCAL_RANK=rank, LOCAL_WORLD_SIZE=2)
            started.append(subprocess.Popen(command, stdout=file, stderr=file, env=own))
    try:
        until = time.monotonic() + PATIENCE
        while "step 6 of" not in logs[0].read_text() and time.monotonic() < until and started[0].poll() is None:
            time.sleep(0.02)
        started[dies].send_signal(signal.SIGKILL)
        assert started[1 - dies].wait(PATIENCE) == 1
    finally:
        for process in started:
            process.kill()
            process.wait()
    told = "".join(log.read_text() for log in logs)
    assert told.count("error:") == told.count("another process of this command ended") == 1, told
    assert "Traceback" not in told
    assert "frame #" not in told
    assert not (tmp_path / "x.pt2").exists()
    if dies == 0:
        return  # once is enough for what follows
    said = trained_alone([*arguments, str(kept)], text, tmp_path / "on.safetensors", capfd)
    after = re.search(r"goes on after step (\d+) of 120", said)
    assert after
    assert int(after[1]) >= 6
    trained_alone([*arguments, str(tmp_path / "alone")], text, tmp_path / "one.safetensors", capfd)
    assert_same_weights(tmp_path / "on.safetensors", tmp_path / "one.safetensors")


def test_one_process_tells_of_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes that fail at the same time: the first to say so tells, the other keeps silent."""
    from torch.distributed import HashStore

    monkeypatch.setattr(signal, "signal", lambda *_: None)
    store = HashStore()
    group = [ranks._Group(rank, 2, store=store) for rank in range(2)]
    assert [group[1].claims_error(), group[0].claims_error()] == [True, False]


def test_processes_are_joined_only_where_torchrun_started_several() -> None:
    assert join({"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "nowhere", "MASTER_PORT": "1"}) is ALONE
    assert join({"TORCHELASTIC_RUN_ID": "x", "RANK": "0", "WORLD_SIZE": "1"}) is ALONE


def test_what_is_not_divided_is_done_by_one_process(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    told = []
    for rank in range(2):
        monkeypatch.setattr("lvc.compiler.cli.are_started", lambda: True)
        monkeypatch.setattr("lvc.compiler.cli.join", lambda rank=rank: ranks.Ranks(rank, 2))
        assert main(["passes"]) == 0
        told.append(capfd.readouterr())
    assert "not divided: one of 2 processes" in told[0].err
    assert "finetune" in told[0].out
    assert told[1] == ("", "")


@pytest.mark.parametrize(
    ("count", "things", "unit", "first", "shares"),
    [
        (3, 10, 1, 0, [range(4), range(4, 7), range(7, 10)]),
        (2, 10, 4, 0, [range(8), range(8, 10)]),
        (2, 10, 1, 8, [range(8), range(8, 10)]),
        (3, 1, 1, 64, [range(1), range(1, 1), range(1, 1)]),
    ],
)
def test_shares_are_in_order_and_whole(count: int, things: int, unit: int, first: int, shares: list[range]) -> None:
    assert [ranks.Ranks(rank, count).share(things, unit, first) for rank in range(count)] == shares
