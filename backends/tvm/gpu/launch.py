"""Launches as values: what each thread of each block does, and the few combinators that every kernel is written with.

Barriers, shared memory and vectors stand where a kernel puts them; no pass of TVM adds or moves any.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tvm import tirx

from lvc.backends.tvm.gpu.gpus import Gpu
from lvc.backends.tvm.nest import Buffer, Expr, Stmt, load

WARP = 32
QUAD = 4  # neighbours that a thread takes at once: channels of a block, columns of a result
VECTOR_BYTES = 16  # the most that a thread loads or stores at once
COPY, BARRIER, FMA, WORD_OF = "lvc_copy", "lvc_barrier", "lvc_fma", "lvc_word"
DP4A, DP4A_UNSIGNED = "lvc_dp4a", "lvc_dp4a_unsigned"
MATRICES, TURNED, MMA = "lvc_matrices", "lvc_turned", "lvc_mma"
EXCHANGE, TO_TF32 = "lvc_exchange", "lvc_to_tf32"
COPY_AHEAD, COMMIT, WAIT = "lvc_copy_ahead", "lvc_commit", "lvc_wait"


@dataclass(frozen=True)
class Launch:
    """``blocks`` of ``threads`` that run ``body``, in which ``block`` and ``thread`` are their indices."""

    blocks: int
    threads: int
    block: Any
    thread: Any
    body: Stmt


@dataclass
class Launches:
    """The launches of one step, in order, for a GPU; what they have in memory between them is ``scratch``."""

    gpu: Gpu
    items: list[Launch] = field(default_factory=list)
    scratch: list[Buffer] = field(default_factory=list)

    def add(self, blocks: int, threads: int, body: Callable[[Expr, Expr], Stmt]) -> None:
        """Launch blocks of threads, each of which runs ``body(block, thread)``."""
        block, thread = tirx.Var("block", "int32"), tirx.Var("thread", "int32")
        self.items.append(Launch(blocks, threads, block, thread, body(block, thread)))


def shared(shape: Sequence[int], name: str, dtype: str = "float32") -> Buffer:
    """Memory of one block."""
    return tirx.decl_buffer(list(shape), dtype, name, scope="shared")


def local(shape: Sequence[int], name: str, dtype: str = "float32") -> Buffer:
    """Registers of one thread; every index must be known when loops are unrolled."""
    return tirx.decl_buffer(list(shape), dtype, name, scope="local")


def barrier() -> Stmt:
    """Wait for all threads of the block."""
    return tirx.Evaluate(tirx.call_extern("int32", BARRIER))


def copy(target: Buffer, at: Sequence[Expr], source: Buffer, place: Sequence[Expr], lanes: int) -> Stmt:
    """Copy neighbours along the last dimensions at once; both begin at a multiple of their bytes."""
    return tirx.Evaluate(tirx.call_extern("int32", COPY, load(target, at), load(source, place), lanes))


def copy_ahead(target: Buffer, at: Sequence[Expr], source: Buffer, place: Sequence[Expr], lanes: int) -> Stmt:
    """The same from global to shared memory without waiting for it (``cp.async``): 4, 8 or 16 bytes."""
    return tirx.Evaluate(tirx.call_extern("int32", COPY_AHEAD, load(target, at), load(source, place), lanes))


def commit() -> Stmt:
    """End a group of such copies."""
    return tirx.Evaluate(tirx.call_extern("int32", COMMIT))


def wait(groups: int) -> Stmt:
    """Wait for a thread's own copies of all groups but so many that were the last to end."""
    return tirx.Evaluate(tirx.call_extern("int32", WAIT, groups))


def fma(x: Expr, y: Expr, z: Expr) -> Expr:
    """x * y + z, rounded once."""
    return tirx.call_extern("float32", FMA, x, y, z)


def matrices(
    target: Buffer, at: Sequence[Expr], source: Buffer, place: Sequence[Expr], *, are_turned: bool = False
) -> Stmt:
    """Load four matrices of eight rows of four words from shared memory by a warp (``ldmatrix``): thread ``8 i + r`` of
    it gives the place of row ``r`` of matrix ``i``, and each gets one word of every matrix at ``at``: that of row
    ``lane / 4`` and column ``lane % 4``. Where they ``are_turned`` it is that of the transposed matrix of elements of
    two bytes: column ``lane / 4`` of rows ``lane % 4 * 2`` and the next."""
    name = TURNED if are_turned else MATRICES
    return tirx.Evaluate(tirx.call_extern("int32", name, load(target, at), load(source, place)))


def multiply_matrices(dtype: str, *places: tuple[Buffer, Sequence[Expr]]) -> Stmt:
    """Add a product of matrices by a warp (``mma.sync``) to four sums of each thread: 16 rows by 8 words of elements of
    a type, in four words of each thread, times 8 words by 8 columns, in two. ``places`` are those of the sums and of
    the two factors."""
    elements = (load(buffer, at) for buffer, at in places)
    return tirx.Evaluate(tirx.call_extern("int32", MMA, dtype, *elements))


def to_tf32(words: Buffer, at: Sequence[Expr]) -> Stmt:
    """Round a word that is a float32 to TF32 (``cvt.rna.tf32.f32``)."""
    return tirx.Evaluate(tirx.call_extern("int32", TO_TF32, load(words, at)))


def exchange(target: Buffer, at: Sequence[Expr], source: Buffer, place: Sequence[Expr], mask: int) -> Stmt:
    """Get a number from the thread of the warp whose place differs in the bits of a mask (``shfl.sync.bfly``); all
    threads of the warp come to it."""
    return tirx.Evaluate(tirx.call_extern("int32", EXCHANGE, load(target, at), load(source, place), mask))


def when(condition: Expr, body: Stmt) -> Stmt:
    """A statement under a condition; without one where it is known."""
    if isinstance(condition, bool):
        return body if condition else tirx.Evaluate(tirx.const(0, "int32"))
    return tirx.IfThenElse(condition, body, None)


def assigned(value: Expr, body: Callable[[Expr], Stmt], name: str = "at") -> Stmt:
    """A statement in which the value of an index has a name, so that it is computed once."""
    buffer = local([1], name, "int32")
    return tirx.SeqStmt([tirx.AllocBuffer(buffer), tirx.BufferStore(buffer, value, [0]), body(load(buffer, [0]))])


def split(index: Expr, extents: Sequence[int]) -> list[Expr]:
    """The indices, the first outermost, of which a flat one is made; extents of 1 have index 0."""
    found: list[Expr] = []
    outer = True
    for number, extent in reversed(list(enumerate(extents))):
        outer = all(size == 1 for size in extents[:number])
        if extent == 1:
            found.append(tirx.const(0, "int32"))
        elif outer:
            found.append(index)
        else:
            found.append(tirx.floormod(index, extent))
            index = tirx.floordiv(index, extent)
    return found[::-1]
