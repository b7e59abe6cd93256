"""Damaged and lying artefacts in C++: refused with a reason, or run with the right numbers, under the sanitizers."""

from __future__ import annotations

import io
import itertools
import json
import os
import random
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cxx_program import Example
from programs import run

from lvc.backends.tvm.plan import PLAN_VERSION

MUTATIONS = 10_000
OK, DAMAGED, WRONG_VERSION, WRONG_MACHINE, CANNOT_LOAD = 0, 2, 3, 4, 5


def test_deflated_data_of_every_kind_become_whole(use: str, tmp_path: Path) -> None:
    source, lines = random.Random(0), []
    contents = [
        source.randbytes(70_000),
        bytes(70_000),
        bytes(source.choices(b"abcdefgh", range(8), k=100_000)),
        b"",
        b"x",
    ]
    for place, content in enumerate(contents):
        (tmp_path / f"{place}").write_bytes(content)
        for level, strategy in itertools.product([0, 1, 6, 9], range(zlib.Z_FIXED + 1)):
            packer = zlib.compressobj(level, zlib.DEFLATED, -15, 9, strategy)
            name = f"{place}-{level}-{strategy}"
            (tmp_path / name).write_bytes(packer.compress(content) + packer.flush())
            lines.append(f"{tmp_path / name} {tmp_path / str(place)}\n")
    (tmp_path / "list").write_text("".join(lines))
    run(use, "inflate", str(tmp_path / "list"))


def test_mutations_are_refused_or_right(use: str, example: Example) -> None:
    """Under the sanitizers, which end the program at the first fault."""
    lines = run(use, "mutate", example.file, example.input, str(MUTATIONS)).splitlines()
    counts = {what: int(times) for times, what in (line.split("\t") for line in lines)}
    assert sum(counts.values()) == MUTATIONS
    assert 0 < counts["ok"] < MUTATIONS / 10
    assert all(what == "ok" or what.startswith("the artefact is damaged: ") for what in counts)


def packed(entries: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in entries.items():
            archive.writestr(zipfile.ZipInfo(name), content, method)
    return out.getvalue()


def test_texts_that_lie_are_refused_or_right(use: str, plain: Example, tmp_path: Path) -> None:
    """Mutated manifests and plans whose sums are right; numbers stay those of the code, whatever the texts say."""
    source, names = random.Random(0), []
    for place in range(500):
        entries = plain.entries
        name = source.choice(["manifest.json", "plan.json"])
        text = bytearray(entries[name])
        for _ in range(source.randint(1, 3)):
            at = source.randrange(len(text))
            kind = source.randrange(4)
            if kind == 0:
                text[at] = source.randrange(256)
            elif kind == 1:
                text[at : at + source.randrange(30)] = b""
            elif kind == 2:
                text[at:at] = text[(begin := source.randrange(len(text))) : begin + source.randrange(60)]
            else:
                text[at:at] = source.choice(
                    [b"[" * 200, b"9" * 30, b'"', b"}", b"{", b"\\ud800", b"-1", b"1e9", b"null"]
                )
        (tmp_path / f"{place}").write_bytes(packed(entries | {name: bytes(text)}))
        names.append(str(tmp_path / f"{place}"))
    lines = run(use, "mutate", plain.file, plain.input, text="\n".join(names)).splitlines()
    counts = {what: int(times) for times, what in (line.split("\t") for line in lines)}
    assert sum(counts.values()) == len(names)
    assert counts["ok"] > len(names) / 20  # a label that is another is no fault
    assert len(counts) > 3


def patched(content: bytes, change: Callable[[bytearray, int], None]) -> bytes:
    """An artefact with a change to the last entry's record in the directory, which begins there."""
    data = bytearray(content)
    change(data, data.rindex(b"PK\x01\x02"))
    return bytes(data)


def written(place: int, form: str, value: int) -> Callable[[bytearray, int], None]:
    return lambda data, at: struct.pack_into(form, data, at + place, value)


def retold(example: Example, name: str, **members: Any) -> bytes:
    """An artefact whose manifest or plan says something else."""
    told = json.loads(example.entries[name]) | members
    return packed(example.entries | {name: json.dumps(told).encode()})


def with_files(example: Example, **files: bytes) -> bytes:
    """An artefact with other files, and a manifest that lists their sizes."""
    entries = example.entries | {name.replace("__", "."): content for name, content in files.items()}
    manifest = json.loads(entries["manifest.json"])
    for name, content in entries.items():
        if name != "manifest.json":
            manifest["files"][name] = {"bytes": len(content)}
    return packed(entries | {"manifest.json": json.dumps(manifest).encode()})


def streamed(entries: dict[str, bytes]) -> bytes:
    """A zip that could not be gone back in: sizes stand behind the entries."""

    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

        def tell(self) -> int:
            raise OSError

    with zipfile.ZipFile(pipe := Pipe(), "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return pipe.getvalue()


def zip64(entries: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in entries.items():
            with archive.open(zipfile.ZipInfo(name), "w", force_zip64=True) as entry:
                entry.write(content)
    return out.getvalue()


def hostile(example: Example) -> dict[str, tuple[bytes, int, str]]:
    """Artefacts that are not sound, by what is wrong with them, and how each is refused."""
    sound, entries, plan = example.content, example.entries, json.loads(example.entries["plan.json"])
    manifest = json.loads(entries["manifest.json"])
    other_weights = bytes(len(entries["weights.bin"]))
    sums = plan["checksums"]
    elf = entries["model.so"][:64] + bytes(len(entries["model.so"]) - 64)
    return {
        "empty": (b"", DAMAGED, "begin and end as a zip"),
        "no zip": (b"x" * 1000, DAMAGED, "begin and end as a zip"),
        "prefixed": (b"#!/bin/sh\n" + sound, DAMAGED, "begin and end as a zip"),
        "commented": (sound + b"x", DAMAGED, "begin and end as a zip"),
        "nothing in it": (packed({}), DAMAGED, "begin and end as a zip"),
        "split": (sound[:-18] + b"\1" + sound[-17:], DAMAGED, "in several parts"),
        "far away": (patched(sound, written(42, "<I", 2**31)), DAMAGED, "is not where the directory says"),
        "at another": (patched(sound, written(42, "<I", 0)), DAMAGED, "the two headers of 'weights.bin' differ"),
        "beyond 4 GB": (patched(sound, written(24, "<I", 2**32 - 1)), DAMAGED, "zip64"),
        "zip64": (zip64(entries), DAMAGED, "differ"),
        "encrypted": (patched(sound, written(8, "<H", 1)), DAMAGED, "'weights.bin' is encrypted"),
        "streamed": (streamed(entries), DAMAGED, "written in a way that is not known"),
        "bzip2": (packed(entries, zipfile.ZIP_BZIP2), DAMAGED, "compressed in a way that is not known"),
        "path": (packed({"../" + name: data for name, data in entries.items()}), DAMAGED, "no plain name"),
        "absolute": (packed({"/" + name: data for name, data in entries.items()}), DAMAGED, "no plain name"),
        "hidden": (packed({"." + name: data for name, data in entries.items()}), DAMAGED, "no plain name"),
        "twice": (
            packed(entries | {"plam.json": b""}).replace(b"plam.json", b"plan.json"),
            DAMAGED,
            "two entries are called 'plan.json'",
        ),
        "many": (packed({f"e{i}": b"" for i in range(65)}), DAMAGED, "too many entries"),
        "bomb": (packed({"manifest.json": bytes(10_000_000)}), DAMAGED, "more than 64 times as large"),
        "no manifest": (packed({"plan.json": b"{}"}), DAMAGED, "lacks 'manifest.json'"),
        "no weights": (packed({n: d for n, d in entries.items() if n != "weights.bin"}), DAMAGED, "other files"),
        "an extra file": (packed(entries | {"extra.bin": b""}), DAMAGED, "other files"),
        "sizes that lie": (
            retold(example, "manifest.json", files=manifest["files"] | {"weights.bin": {"bytes": 7}}),
            DAMAGED,
            "'weights.bin' is not as its manifest says",
        ),
        "cut weights": (with_files(example, weights__bin=entries["weights.bin"][:-64]), DAMAGED, "its plan is of"),
        "other weights": (with_files(example, weights__bin=other_weights), DAMAGED, "its plan is of"),
        "cut weights by plan": (
            with_files(
                example,
                weights__bin=entries["weights.bin"][:-64],
                plan__json=json.dumps(
                    plan | {"checksums": sums | {"weights.bin": zlib.crc32(entries["weights.bin"][:-64])}}
                ).encode(),
            ),
            DAMAGED,
            "its weights have another size than its code says",
        ),
        "no code": (
            with_files(
                example,
                model__so=elf,
                plan__json=json.dumps(plan | {"checksums": sums | {"model.so": zlib.crc32(elf)}}).encode(),
            ),
            CANNOT_LOAD,
            "the artefact's code cannot be loaded",
        ),
        "other shape": (
            retold(example, "manifest.json", inputs=[["input", "f32[1,3,32,32]"]]),
            DAMAGED,
            "its code has another signature",
        ),
        "other type": (
            retold(example, "manifest.json", outputs=[["output", "i32[1,10]"]]),
            DAMAGED,
            "its code has another signature",
        ),
        "absurd shape": (
            retold(example, "manifest.json", inputs=[["input", f"f32[{2**40},{2**40}]"]]),
            DAMAGED,
            "manifest is not as it should be",
        ),
        "format": (
            retold(example, "manifest.json", format=99),
            WRONG_VERSION,
            "has format 99, and this lvc.hpp reads 1",
        ),
        "version": (
            retold(example, "plan.json", version=99)
            and with_files(example, plan__json=json.dumps(plan | {"version": 99}).encode()),
            WRONG_VERSION,
            f"has version 99, and this lvc.hpp reads {PLAN_VERSION}",
        ),
        "backend": (retold(example, "manifest.json", backend="onnx"), WRONG_MACHINE, "of the backend 'onnx'"),
        "kind": (
            with_files(example, plan__json=json.dumps(plan | {"kind": "z80"}).encode()),
            WRONG_MACHINE,
            "built for native, and cannot run here: it is code for z80",
        ),
        "flags": (
            with_files(
                example,
                plan__json=json.dumps(plan | {"flags": plan["flags"] | {"words": ["turbo9000"]}}).encode(),
            ),
            WRONG_MACHINE,
            "the processor lacks turbo9000",
        ),
        "sound": (packed(entries), OK, ""),
    }


def test_hostile_artefacts_are_refused_with_a_reason(use: str, example: Example, tmp_path: Path) -> None:
    cases = hostile(example)
    for name, (content, _, _) in cases.items():
        (tmp_path / name).write_bytes(content)
    lines = run(use, "explain", *(str(tmp_path / name) for name in cases)).splitlines()
    for (name, (_, code, text)), line in zip(cases.items(), lines, strict=True):
        found, _, message = line.partition(" ")
        assert int(found) == code, f"{name}: {message}"
        assert text in message, name
        assert not message.endswith("."), name


def test_a_pipe_is_not_waited_for(use: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert run(use, "open", str(tmp_path / "pipe")).rstrip().endswith("it is no file")
