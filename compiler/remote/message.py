"""What a workstation and a device server say to one another: messages of a JSON header and arrays.

Why a protocol of our own: a board has NumPy and this package, nothing else. TVM's RPC server would need TVM there, gRPC
and HTTP servers more packages still, and `multiprocessing.connection` unpickles what it receives, has no timeouts, and
authenticates the beginning of a connection only. Of the standard library there is `socket`, `hmac` and `json`, which
have long been looked after by others, and that is enough.

On the wire, all integers little-endian:

1. Handshake, at most ten seconds (`lvc.compiler.remote.handshake`). The server sends ``lvcdev1\\n`` and 32 random bytes
   S; the client ``lvcdev1\\n``, 32 random bytes C, and HMAC-SHA256(key, ``client`` S C); the server
   HMAC-SHA256(key, ``server`` S C), or 32 zeros for a key that is not its own. Neither sends the key, and what one of
   them sends is of no use to answer another one.
2. Frames (`lvc.compiler.remote.channel`): u32 bytes of the header, u64 bytes of the body, header, body, and
   HMAC-SHA256 over the frame's number and all of it, by a key that both derive from the key, S and C for one direction.
   So nothing can be changed, repeated or left out on the way. It is not secret: whoever needs that goes through SSH.
3. The header is a JSON object. ``arrays`` in it lists shapes and types, ``f32[1,3,8,8]``, of the arrays that are the
   body, one behind the other; none are Python objects. Sizes are bounded before memory is taken.

The client asks, one request at a time, and says in ``do`` what:

``describe``
    What the board is: ``processor``, ``machine``, ``cores``, ``target``, ``load``, ``version``, ``emulates``.
``put``
    A part of a file: ``digest`` (SHA-256 of the whole, hexadecimal), ``bytes`` of the whole, ``offset`` of the part,
    and the part as an array of bytes. The answer says in ``kept`` whether the board has the whole.
    An answer with ``missing`` in place of a result names the digest of a file that has to be sent again.
``run``
    ``models``, one of ``{"digest", "threads"}``, and its inputs. The answer has the outputs. Here and below a ``copy``
    beside the digest is a number: copies with different ones are loaded apart, at other places in memory.
``time``
    ``models``, and the inputs of all of them; ``inputs`` says how many each has. ``repeats`` or ``seconds`` and
    ``clock`` are those of `lvc.compiler.measure.timing.interleave`. The answer has the seconds of each model's runs,
    ``f64[runs]``, and the outputs of all models.
``steps``
    One model and its inputs, ``repeats`` and ``clock``. The answer has ``steps``, triples of a kernel's name, its nodes
    and its seconds, and the outputs.
``race``
    One model whose kernels are contestants, each with an output of its own, and its inputs; ``control`` is the number
    of the one that is the first once more. ``fewest``, ``most`` and ``seconds`` are those of
    `lvc.compiler.tuning.judgement.Judge`. The answer has the seconds of each contestant's runs, ``f64[runs]``, and the
    outputs.

An answer with ``error`` has the parts of an `LvcError`. Before an answer there may be any number of messages with
``beat``, ``waiting`` while another client has its turn or ``running``: a server that is silent has died or hangs.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn, TypeVar

import numpy as np

from lvc.compiler.errors import CompileError, UsageError
from lvc.compiler.ir.spec import TensorSpec

MOST_HEADER = 1 << 20
MOST_BODY = 256 << 20
_MOST_ARRAYS = 256
_SPEC = re.compile(r"[a-z]+[0-9]{0,2}\[(?:[0-9]{1,12}(?:,[0-9]{1,12}){0,15})?\]")

T = TypeVar("T")


class Malformed(CompileError):
    """A message that is none of this protocol."""

    def __init__(self, why: str) -> None:
        super().__init__("a message does not keep to the protocol", why=why)


@dataclass(frozen=True)
class Message:
    """Plain JSON data, and arrays."""

    header: Mapping[str, Any]
    arrays: Sequence[np.ndarray] = field(default_factory=tuple)

    def get(self, name: str, kind: type[T]) -> T:
        """A field of the header that has to be there, and of a type; `Malformed` otherwise."""
        return typed(kind, self.header.get(name), name)


def typed(kind: type[T], value: object, name: str) -> T:
    """A value that has to be of a type; JSON's true is no integer, and an integer is a number."""
    if kind is float and type(value) is int:
        value = float(value) if abs(value) < 1 << 53 else math.inf
    if type(value) is not kind:
        raise Malformed(f"'{name}' is no {kind.__name__}")
    return value


def encode(message: Message) -> tuple[bytes, list[memoryview]]:
    """Return the header of a message in bytes, and those of its arrays."""
    arrays = [np.asarray(array, order="C") for array in message.arrays]
    specs = [str(TensorSpec.of_array(array)) for array in arrays]
    header = json.dumps({**message.header, **({"arrays": specs} if specs else {})}, allow_nan=False).encode()
    little = (array.astype(array.dtype.newbyteorder("<"), copy=False) for array in arrays)
    return header, [memoryview(array.reshape(-1).view(np.uint8)) for array in little]  # type: ignore[arg-type]


def decode(header: bytes, body: memoryview) -> Message:
    """Read a message whose sizes are within bounds; `Malformed` for anything else than `encode` makes."""
    try:
        found = json.loads(header, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise Malformed("its header is no JSON") from error
    fields = typed(dict, found, "header")
    specs = typed(list, fields.pop("arrays", []), "arrays")
    if len(specs) > _MOST_ARRAYS:
        raise Malformed(f"it has {len(specs)} arrays")
    return Message(fields, tuple(_arrays([_spec(text) for text in specs], body)))


def _refuse(text: str) -> NoReturn:
    raise ValueError(text)


def _spec(text: object) -> tuple[tuple[int, ...], np.dtype[Any]]:
    if not isinstance(text, str) or not _SPEC.fullmatch(text):
        raise Malformed(f"{text!r:.60} is no array's type")
    try:
        spec = TensorSpec.parse(text)
        dtype = np.dtype(spec.type_name)
    except (UsageError, TypeError) as error:
        raise Malformed(f"{text!r:.60} is no array's type") from error
    if dtype.kind not in "biuf":  # one that another package has brought is no number to NumPy
        raise Malformed(f"{text!r:.60} is no array's type")
    return spec.shape, dtype.newbyteorder("<")


def _arrays(specs: Iterable[tuple[tuple[int, ...], np.dtype[Any]]], body: memoryview) -> list[np.ndarray]:
    """Copies of the arrays in a body, in this machine's order and well aligned."""
    arrays, place = [], 0
    for shape, dtype in specs:
        size = math.prod(shape) * dtype.itemsize
        if size > len(body) - place:
            raise Malformed("its arrays are larger than its body")
        raw = np.frombuffer(body, np.uint8, size, place)
        if dtype.kind == "b" and raw.max(initial=0) > 1:
            raise Malformed("an array of truth values has others")
        arrays.append(raw.view(dtype).astype(dtype.newbyteorder("=")).reshape(shape))
        place += size
    if place != len(body):
        raise Malformed("its body is larger than its arrays")
    return arrays
