"""The runtime in C by itself: a model whose kernels are written by hand, run under the compiler's sanitizers."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from lvc.backends.tvm.cpu.entry import Entry, headers
from lvc.backends.tvm.program import Argument, Kind, Place, Program, Step, Storage
from lvc.compiler.measure.memory import Memory

COMPILER = shutil.which("gcc") or shutil.which("clang")
SIZE = 1000

KERNELS = """
#include <stdint.h>
#include <stddef.h>
extern int (*__TVMBackendParallelLaunch)(int (*)(int32_t, void *, void *), void *, int32_t);
extern void *(*__TVMBackendAllocWorkspace)(int32_t, int32_t, uint64_t, int32_t, int32_t);
extern int (*__TVMBackendFreeWorkspace)(int32_t, int32_t, void *);
struct group { void *unused; int32_t tasks; };
enum { SIZE = 1000 };

int k_double(void *weights, void *prepared) {
  for (int i = 0; i < SIZE; i++) ((float *)prepared)[i] = 2 * ((float *)weights)[i];
  return 0;
}

static int part(int32_t task, void *group, void *data) {
  float **all = data, *kept = __TVMBackendAllocWorkspace(1, 0, SIZE * sizeof(float), 2, 32);
  if (!kept) return -1;
  int tasks = ((struct group *)group)->tasks, each = (SIZE + tasks - 1) / tasks;
  for (int i = task * each; i < SIZE && i < (task + 1) * each; i++) {
    kept[i] = all[0][i] * all[1][i];
    all[2][i] = kept[i];
  }
  return __TVMBackendFreeWorkspace(1, 0, kept);
}

int k_product(void *x, void *factors, void *result) {
  float *all[] = {x, factors, result};
  return __TVMBackendParallelLaunch(part, all, 0);
}
"""

DRIVER = """
#include "lvc.h"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
enum { SIZE = 1000, CALLS = 200 };
static float *weights;
static lvc_model *first;

static int check(int condition, const char *what) {
  if (!condition) fprintf(stderr, "failed: %s\\n", what);
  return !condition;
}

static void *serve(void *argument) {
  long threads = (long)argument, failed = 0;
  lvc_model *model;
  failed += check(!lvc_model_create(weights, threads, first, &model), "create");
  float *memory = aligned_alloc(64, 8192), *x = memory, *y = memory + SIZE + 1;
  for (int call = 0; call < CALLS; call++) {
    for (int i = 0; i < SIZE; i++) x[i] = call + i, y[i] = -1;
    const void *inputs[] = {x};
    void *outputs[] = {y};
    failed += check(!lvc_run(model, inputs, outputs), "run");
    for (int i = 0; i < SIZE; i++) failed += check(y[i] == 4.0f * weights[i] * weights[i] * (call + i), "value");
    x = x == memory ? memory + 1 : memory; /* in turns aligned and not */
    if (failed) break;
  }
  const void *inputs[] = {x};
  void *outputs[] = {y};
  failed += check(lvc_run_step(model, 2, inputs, outputs) == LVC_NO_SUCH_STEP, "step");
  lvc_model_destroy(model);
  free(memory);
  return (void *)failed;
}

int main(void) {
  weights = aligned_alloc(64, 4096);
  for (int i = 0; i < SIZE; i++) weights[i] = i % 7;
  const lvc_info *info = lvc_model_info();
  long failed = check(info->inputs == 1 && info->outputs == 1 && info->steps == 2, "counts");
  failed += check(info->input[0].rank == 1 && info->input[0].shape[0] == SIZE && info->input[0].bits == 32, "input");
  failed += check(info->weight_bytes == 4032, "weights");
  failed += check(lvc_model_create((char *)weights + 4, 1, 0, &first) == LVC_UNALIGNED && !first, "unaligned");
  failed += check(lvc_model_create(weights, 0, 0, &first) == LVC_NO_SUCH_THREADS && !first, "no thread");
  failed += check(lvc_model_create(weights, -1, 0, &first) == LVC_NO_SUCH_THREADS && !first, "negative threads");
  failed += check(!lvc_model_create(weights, 3, 0, &first), "first");
  pthread_t callers[3];
  for (long i = 0; i < 3; i++) pthread_create(&callers[i], 0, serve, (void *)(i + 1));
  for (int i = 0; i < 3; i++) {
    void *found;
    pthread_join(callers[i], &found);
    failed += (long)found;
  }
  lvc_model_destroy(first);
  lvc_model_destroy(0);
  free(weights);
  return failed != 0;
}
"""


def program() -> Program:
    """The input times twice the weights, times twice the weights."""
    stored, made = Storage(Kind.CONSTANT, 4 * SIZE), Storage(Kind.CONSTANT, 4 * SIZE, 4032)
    between = Storage(Kind.WORKSPACE, 4 * SIZE, 64)

    def value(storage: Storage) -> Argument:
        return Argument(Place(storage), (SIZE,), "float32")

    given, result = value(Storage(Kind.INPUT, 0)), value(Storage(Kind.OUTPUT, 0))
    setup = Step("double", (), None, lambda *_: None, (value(stored), value(made)))
    steps = [
        Step("product", (), None, lambda *_: None, tuple(arguments))
        for arguments in ([given, value(made), value(between)], [value(between), value(made), result])
    ]
    return Program([given], [result], setup=[setup], steps=steps)


@pytest.mark.skipif(COMPILER is None, reason="there is no C compiler")
@pytest.mark.parametrize(
    "flags", [["-fsanitize=address,undefined"], ["-fsanitize=thread"], ["-DLVC_THREADS=0"]], ids=str
)
def test_instances_on_threads_of_their_own(flags: list[str], tmp_path: Path) -> None:
    memory = Memory(weights=4032, prepared=4032, workspace=64 + 4032, scratch=4032, external=8 * SIZE, live=4032)
    sources = {
        "model.c": Entry.of(program(), ["k_double", "k_product", "k_product"], memory).source(),
        "kernels.c": KERNELS,
        "driver.c": DRIVER,
        **headers(),
    }
    for name, text in sources.items():
        (tmp_path / name).write_text(text)
    options = [
        "-std=gnu11",
        "-O1",
        "-g",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-fno-sanitize-recover=all",
        "-pthread",
        *flags,
    ]
    command = [str(COMPILER), *options, "model.c", "kernels.c", "driver.c", "-o", "driver"]
    built = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert not built.returncode, built.stderr
    run = subprocess.run([str(tmp_path / "driver")], capture_output=True, text=True, check=False, timeout=120)
    assert not run.returncode, run.stderr
