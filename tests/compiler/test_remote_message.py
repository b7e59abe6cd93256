"""Messages survive the way as they are; what is no message is refused before it costs anything."""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Iterator

import ml_dtypes  # noqa: F401  # with it NumPy knows a bfloat16, which is no number to it
import numpy as np
import pytest

from lvc.compiler.errors import UsageError
from lvc.compiler.remote import channel as channels
from lvc.compiler.remote.channel import Channel, Keys
from lvc.compiler.remote.message import MOST_BODY, MOST_HEADER, Malformed, Message, decode, encode


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=np.float32).reshape(2, 3),
        np.array(3.5),
        np.zeros((0, 4), np.int8),
        np.array([True, False]),
        np.arange(12, dtype=np.float16).reshape(3, 4)[:, ::2],
        np.array([np.nan, np.inf, -0.0]),
    ],
)
def test_arrays_arrive_as_they_were(array: np.ndarray) -> None:
    header, parts = encode(Message({"do": "run", "n": 1}, (array, array)))
    found = decode(header, memoryview(b"".join(parts)))
    assert found.header == {"do": "run", "n": 1}
    for copy in found.arrays:
        assert (copy.dtype, copy.shape, copy.tobytes()) == (array.dtype, array.shape, array.tobytes())
        assert copy.flags.writeable
        assert copy.flags.aligned


@pytest.mark.parametrize(
    ("header", "body", "says"),
    [
        (b"", b"", "no JSON"),
        (b"\x80\x04K\x01.", b"", "no JSON"),
        (b"[1]", b"", "'header' is no dict"),
        (b"[" * 100_000, b"", "no JSON"),
        (b'{"x": NaN}', b"", "no JSON"),
        (b'{"arrays": 3}', b"", "'arrays' is no list"),
        (b'{"arrays": [3]}', b"", "3 is no array's type"),
        (b'{"arrays": ["object[1]"]}', bytes(8), "is no array's type"),
        (b'{"arrays": ["bf16[1]"]}', bytes(2), "is no array's type"),
        (b'{"arrays": ["f32[-1]"]}', bytes(4), "is no array's type"),
        (b'{"arrays": ["f32[1_0]"]}', bytes(40), "is no array's type"),
        (b'{"arrays": ["f32[2]"]}', bytes(7), "larger than its body"),
        (b'{"arrays": ["f32[999999999999,999999999999]"]}', bytes(4), "larger than its body"),
        (b'{"arrays": ["f32[2]"]}', bytes(9), "larger than its arrays"),
        (b"{}", bytes(1), "larger than its arrays"),
        (b'{"arrays": ["bool[2]"]}', b"\x00\x02", "truth values"),
        (json.dumps({"arrays": ["u8[0]"] * 257}).encode(), b"", "257 arrays"),
    ],
)
def test_what_is_no_message_is_refused(header: bytes, body: bytes, says: str) -> None:
    with pytest.raises(Malformed) as caught:
        decode(header, memoryview(body))
    assert says in caught.value.why


@pytest.mark.parametrize("value", [True, 1.0, "1", None, [1]])
def test_fields_have_types(value: object) -> None:
    with pytest.raises(Malformed, match="does not keep to the protocol"):
        Message({"n": value}).get("n", int)


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    left, right = socket.socketpair()
    with left, right:
        yield left, right


def keyed(pair: tuple[socket.socket, socket.socket]) -> tuple[Channel, Channel]:
    return Channel(pair[0], Keys(b"a" * 32, b"b" * 32)), Channel(pair[1], Keys(b"b" * 32, b"a" * 32))


def test_both_directions_work(ends: tuple[socket.socket, socket.socket]) -> None:
    left, right = keyed(ends)
    for number in range(3):
        left.send(Message({"n": number}, (np.full(3, number),)))
        found = right.receive(5)
        assert (found.header, found.arrays[0].tolist()) == ({"n": number}, [number] * 3)
        right.send(Message({}))
        assert left.receive(5).header == {}


@pytest.mark.parametrize("sizes", [(MOST_HEADER + 1, 0), (2, MOST_BODY + 1), (2**32 - 1, 2**64 - 1)])
def test_giant_lengths_take_no_memory(ends: tuple[socket.socket, socket.socket], sizes: tuple[int, int]) -> None:
    ends[0].sendall(struct.pack("<IQ", *sizes))
    with pytest.raises(Malformed, match="does not keep") as caught:
        keyed(ends)[1].receive(5)
    assert "it says that it has" in caught.value.why


def captured(pair: tuple[socket.socket, socket.socket], *messages: Message) -> list[bytes]:
    """The frames of messages as they are on the wire."""
    sender = keyed(pair)[0]
    frames = []
    for message in messages:
        sender.send(message)
        frames.append(pair[1].recv(1 << 16))
    return frames


@pytest.mark.parametrize("place", [12, -33, -1])
def test_a_changed_bit_is_noticed(ends: tuple[socket.socket, socket.socket], place: int) -> None:
    (frame,) = captured(ends, Message({"do": "run"}, (np.zeros(4),)))
    changed = bytearray(frame)
    changed[place] ^= 1
    ends[0].sendall(changed)
    with pytest.raises(Malformed) as caught:
        keyed(ends)[1].receive(5)
    assert "changed on its way" in caught.value.why


def test_a_message_counts_once_and_in_order(ends: tuple[socket.socket, socket.socket]) -> None:
    first, second = captured(ends, Message({"n": 1}), Message({"n": 2}))
    for frames in ([first, first], [second]):
        receiver = keyed(ends)[1]
        ends[0].sendall(b"".join(frames))
        with pytest.raises(Malformed):
            [receiver.receive(5) for _ in frames]


def test_cut_messages_and_silence_are_told_apart(ends: tuple[socket.socket, socket.socket]) -> None:
    (frame,) = captured(ends, Message({"do": "run"}))
    receiver = keyed(ends)[1]
    ends[0].sendall(frame[:-5])
    with pytest.raises(TimeoutError):
        receiver.receive(0.05)
    ends[0].close()
    with pytest.raises(EOFError):
        keyed(ends)[1].receive(5)


def test_what_is_too_large_is_not_sent(
    ends: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channels, "MOST_BODY", 100)
    left, right = keyed(ends)
    with pytest.raises(UsageError, match="at most 100 B of arrays, not 101 B"):
        left.send(Message({}, (np.zeros(101, np.uint8),)))
    left.send(Message({"n": 1}))
    assert right.receive(5).header == {"n": 1}
