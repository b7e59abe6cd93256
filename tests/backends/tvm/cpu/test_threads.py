"""Threads of a built model: as many as asked for, none that stay busy, and none of anybody else's changed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from lvc.compiler import driver
from lvc.compiler.load import from_module
from lvc.compiler.threads import usable_cores

pytestmark = pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are counted in /proc")

CODE = """
import json, os, sys, time
import numpy as np

def threads():
    return len(os.listdir("/proc/self/task"))

if sys.argv[3:]:
    import torch
    torch.set_num_threads(2)
    data = torch.rand(256, 256)
    expected = data @ data
np.ones((300, 300)) @ np.ones((300, 300))
before = threads()
from lvc.backends.tvm.cpu.executable import CpuExecutable
from pathlib import Path
folder = Path(sys.argv[1])
run = CpuExecutable({file.name: file.read_bytes() for file in folder.iterdir()}, int(sys.argv[2]))
image = np.ones((1, 3, 32, 32), np.float32)
for _ in range(5):
    run(image)
found = {"before": before, "after": threads()}
used = time.process_time()
time.sleep(0.5)
found["busy"] = time.process_time() - used
found["affinity"] = len(os.sched_getaffinity(0))
if sys.argv[3:]:
    found["torch"] = [torch.get_num_threads(), bool(torch.equal(data @ data, expected)), threads()]
print(json.dumps(found))
"""

FORK = """
import gc, os, sys
import numpy as np
from lvc.backends.tvm.cpu.executable import CpuExecutable
from pathlib import Path
run = CpuExecutable({file.name: file.read_bytes() for file in Path(sys.argv[1]).iterdir()}, 2)
image = np.ones((1, 3, 32, 32), np.float32)
(wanted,) = run(image)
child = os.fork()
if not child:
    (found,) = run(image)
    del run
    gc.collect()
    os._exit(not np.array_equal(found, wanted))
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""

EXIT = """
import sys, threading
import numpy as np
from lvc.backends.tvm.cpu.executable import CpuExecutable
from pathlib import Path
run = CpuExecutable({file.name: file.read_bytes() for file in Path(sys.argv[1]).iterdir()}, int(sys.argv[2]))
image, begun = np.ones((1, 3, 32, 32), np.float32), threading.Event()
def serve():
    while True:
        run(image)
        begun.set()
for _ in range(4):
    threading.Thread(target=serve, daemon=True).start()
begun.wait()
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of a small built network."""
    torch.manual_seed(0)
    layers = torch.nn.Sequential(torch.nn.Conv2d(3, 32, 3), torch.nn.ReLU(), torch.nn.Conv2d(32, 64, 3))
    artefact = driver.compile(from_module(layers, torch.zeros(1, 3, 32, 32)))
    folder = tmp_path_factory.mktemp("threads")
    for name, content in artefact.files.items():
        (folder / name).write_bytes(content)
    return folder


def measure(folder: Path, threads: int, *more: str) -> Any:
    """Run the network in a process of its own."""
    command = [sys.executable, "-c", CODE, str(folder), str(threads), *more]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def test_one_thread_is_the_callers(folder: Path) -> None:
    found = measure(folder, 1)
    assert found["after"] == found["before"]
    assert found["busy"] < 0.1


@pytest.mark.skipif(usable_cores() < 2, reason="there is one core to use")
def test_threads_sleep_after_a_call(folder: Path) -> None:
    found = measure(folder, 2)
    assert found["after"] == found["before"] + 1
    assert found["busy"] < 0.1  # of half a second; TVM's own setting would use half of it
    assert found["affinity"] == len(os.sched_getaffinity(0))


def test_torch_keeps_its_own_threads(folder: Path) -> None:
    found = measure(folder, 2, "torch")
    assert found["torch"] == [2, True, found["after"]]


def test_a_forked_process_has_threads_of_its_own(folder: Path) -> None:
    subprocess.run([sys.executable, "-c", FORK, str(folder)], check=True, timeout=60)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_process_may_end_in_the_middle_of_a_call(folder: Path, threads: int) -> None:
    """Daemon threads run on while Python ends; the memory of their models is still theirs."""
    for _ in range(3):
        subprocess.run([sys.executable, "-c", EXIT, str(folder), str(threads)], check=True, timeout=60)
