"""The entry functions of a built model, in C: tables of kernel calls, and the loop over them.

It is no TIR, since TVM declares a called function anew at each call, which LLVM renames from the second one on.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from lvc.backends.tvm.program import ITEM_BYTES, Argument, Kind, Program

ENTRY, SETUP = "lvc_entry", "lvc_setup"

_CODES = {"int": 0, "uint": 1, "float": 2, "bool": 6}  # DLDataTypeCode

_PROLOGUE = """\
#include <stdint.h>

typedef struct {
  void *data;
  int32_t device_type, device_id, ndim;
  uint8_t code, bits;
  uint16_t lanes;
  const int64_t *shape, *strides;
  uint64_t byte_offset;
} tensor; /* DLTensor */

typedef struct {
  int32_t type;
  uint32_t padding;
  union { int64_t number; void *pointer; } value;
} any; /* TVMFFIAny */

typedef int (*kernel)(void *, any *, int32_t, any *);
struct type { int32_t shape; uint8_t ndim, code, bits; };
struct argument { int32_t base; int64_t offset; struct type type; };
struct step { kernel call; int32_t first, count; };

enum { TENSOR_POINTER = 7, TENSOR_OBJECT = 70, OBJECT_HEADER = 24, CPU = 1 };

extern void TVMFFIErrorSetRaisedFromCStr(const char *kind, const char *message);
"""

_EPILOGUE = """\
static int refuse(const char *message) {
  TVMFFIErrorSetRaisedFromCStr("ValueError", message);
  return -1;
}

static const tensor *tensor_of(const any *value) {
  if (value->type == TENSOR_POINTER) return value->value.pointer;
  if (value->type == TENSOR_OBJECT) return (const tensor *)((const char *)value->value.pointer + OBJECT_HEADER);
  return 0;
}

static int fits(const tensor *given, struct type wanted) {
  if (given->ndim != wanted.ndim || given->code != wanted.code || given->bits != wanted.bits) return 0;
  for (int i = 0; i < wanted.ndim; i++)
    if (given->shape[i] != shapes[wanted.shape + i]) return 0;
  return 1;
}

static int find_base(const any *given, int which, char **bases) {
  const tensor *value = tensor_of(given);
  if (!value || !fits(value, signature[which])) return refuse("lvc: an argument has another shape or type");
  bases[which] = (char *)value->data + value->byte_offset;
  if ((uintptr_t)bases[which] % 64) return refuse("lvc: an argument does not begin at a multiple of 64 bytes");
  return 0;
}

static int run(const struct step *steps, int count, char **bases) {
  for (int s = 0; s < count; s++) {
    tensor tensors[MOST];
    any values[MOST], none = {0, 0, {0}};
    for (int i = 0; i < steps[s].count; i++) {
      const struct argument *a = &arguments[steps[s].first + i];
      tensors[i] = (tensor){bases[a->base] + a->offset, CPU, 0, a->type.ndim, a->type.code, a->type.bits, 1,
                            shapes + a->type.shape, 0, 0};
      values[i] = (any){TENSOR_POINTER, 0, {.pointer = &tensors[i]}};
    }
    int failed = steps[s].call(0, values, steps[s].count, &none);
    if (failed) return failed;
  }
  return 0;
}

/* to be called once, before any other call, with the constants: fills in those that are not stored */
int __tvm_ffi_lvc_setup(void *self, any *given, int32_t count, any *result) {
  char *bases[BASES] = {0};
  (void)self;
  (void)result;
  if (count != 1) return refuse("lvc: wrong number of arguments");
  if (find_base(given, CONSTANTS, bases)) return -1;
  return run(setup, SETUP_STEPS, bases);
}

/* inputs, outputs, constants, workspace: tensors that are contiguous and begin at a multiple of 64 bytes */
int __tvm_ffi_lvc_entry(void *self, any *given, int32_t count, any *result) {
  char *bases[BASES];
  (void)self;
  (void)result;
  if (count != BASES) return refuse("lvc: wrong number of arguments");
  for (int i = 0; i < BASES; i++)
    if (find_base(&given[i], i, bases)) return -1;
  return run(steps, STEPS, bases);
}

/* what kernels call for a parallel loop when the model runs on one thread; see TVMBackendParallelLaunch */
struct group { void *sync; int32_t tasks; };
int lvc_serial_launch(int (*task)(int, struct group *, void *), void *data, int tasks) {
  struct group alone = {0, 1};
  (void)tasks;
  return task(0, &alone, data);
}
"""


def entry_source(program: Program, kernels: Sequence[str], workspace: int, constants: int) -> str:
    """Write ``setup(constants)`` and ``entry(inputs.., outputs.., constants, workspace)``.

    ``kernels`` names the kernel of each step, those of setup first; ``workspace`` and ``constants`` are in bytes.
    """
    shapes = _Shapes()
    external = [*program.inputs, *program.outputs]
    signature = [shapes.type_of(argument.shape, argument.dtype) for argument in external]
    signature += [shapes.type_of((max(1, size),), "uint8") for size in (constants, workspace)]
    arguments: list[str] = []
    steps: list[str] = []
    called = [*program.setup, *program.steps]
    for name, step in zip(kernels, called, strict=True):
        steps.append(f"{{__tvm_ffi_{name}, {len(arguments)}, {len(step.arguments)}}}")
        arguments += [_written(argument, len(program.inputs), len(external), shapes) for argument in step.arguments]
    most = max((len(step.arguments) for step in called), default=1)
    first = len(program.setup)
    return "\n".join(
        [
            _PROLOGUE,
            f"enum {{ BASES = {len(signature)}, CONSTANTS = {len(external)}, MOST = {most} }};",
            f"enum {{ SETUP_STEPS = {first}, STEPS = {len(program.steps)} }};",
            *(f"extern int __tvm_ffi_{name}(void *, any *, int32_t, any *);" for name in sorted(set(kernels))),
            _table("int64_t shapes", map(str, shapes.sizes)),
            _table("struct type signature", signature),
            _table("struct argument arguments", arguments),
            _table("struct step setup", steps[:first]),
            _table("struct step steps", steps[first:]),
            _EPILOGUE,
        ]
    )


class _Shapes:
    """All shapes, one after the other, each kept once."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.known: dict[tuple[int, ...], int] = {}

    def type_of(self, shape: tuple[int, ...], dtype: str) -> str:
        shape = shape or (1,)
        if shape not in self.known:
            self.known[shape] = len(self.sizes)
            self.sizes.extend(shape)
        code = _CODES[dtype.rstrip("0123456789")]
        return f"{{{self.known[shape]}, {len(shape)}, {code}, {8 * ITEM_BYTES[dtype]}}}"


def _written(argument: Argument, inputs: int, external: int, shapes: _Shapes) -> str:
    storage, offset = argument.place.storage, argument.place.offset
    base = {
        Kind.INPUT: storage.position,
        Kind.OUTPUT: inputs + storage.position,
        Kind.CONSTANT: external,
        Kind.WORKSPACE: external + 1,
    }[storage.kind]
    if storage.kind in (Kind.CONSTANT, Kind.WORKSPACE):
        offset += storage.position
    return f"{{{base}, {offset}, {shapes.type_of(argument.shape, argument.dtype)}}}"


def _table(name: str, rows: Iterable[str]) -> str:
    lines = "".join(f"  {row},\n" for row in rows) or "  0\n"
    return f"static const {name}[] = {{\n{lines}}};"
