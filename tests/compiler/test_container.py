"""The artefact's file: the same bytes every time, whole or not at all, and safe to read whatever it holds."""

from __future__ import annotations

import io
import json
import mmap
import os
import random
import stat
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lvc.compiler import container
from lvc.compiler.artefact import Artefact
from lvc.compiler.errors import CompileError, LvcError, UsageError
from lvc.compiler.files import write_atomically
from lvc.compiler.ir.signature import Value
from lvc.compiler.ir.spec import TensorSpec


def artefact() -> Artefact:
    return Artefact(
        name="tiny",
        backend="reference",
        target="reference",
        inputs=(Value("x", TensorSpec((1, 3, 8, 8))),),
        outputs=(Value("y", TensorSpec((1, 10))),),
        files={"weights.bin": bytes(range(256)), "graph.json": b"{}"},
        metadata={"pipeline": "", "labels": ["a", "b"]},
    )


def repacked(path: Path, **entries: bytes | None) -> None:
    """Replace entries of an artefact's file (None removes one), digests left as they were."""
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    content.update({name.replace("__", "."): data for name, data in entries.items() if data is not None})
    for name in [name for name, data in entries.items() if data is None]:
        del content[name.replace("__", ".")]
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in content.items():
            archive.writestr(name, data)


def test_round_trip(tmp_path: Path) -> None:
    container.write(artefact(), tmp_path / "a.lvc")
    assert container.read(tmp_path / "a.lvc") == artefact()


def test_equal_artefacts_make_equal_bytes() -> None:
    assert container.pack(artefact()) == container.pack(artefact())


def test_a_standalone_file_is_written_as_it_is(tmp_path: Path) -> None:
    model = Artefact("m", "onnx", "onnx", (), (), {"model.onnx": b"content"}, suffix=".onnx")
    container.write(model, tmp_path / "m.onnx")
    assert (tmp_path / "m.onnx").read_bytes() == b"content"


def test_missing_file_is_wrong_usage(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read"):
        container.read(tmp_path / "none.lvc")


def test_changed_content_is_refused(tmp_path: Path) -> None:
    container.write(artefact(), tmp_path / "a.lvc")
    repacked(tmp_path / "a.lvc", weights__bin=bytes(256))
    with pytest.raises(CompileError) as caught:
        container.read(tmp_path / "a.lvc")
    assert "digest of 'weights.bin'" in caught.value.why


@pytest.mark.parametrize(
    "manifest",
    [None, b"", b"[]", b"{", b'{"format": 1}', b"[" * 100_000, b'{"format": 1, "files": {"no": {}}}'],
    ids=["missing", "empty", "list", "cut", "bare", "deep", "absent-file"],
)
def test_broken_manifest_is_refused(tmp_path: Path, manifest: bytes | None) -> None:
    container.write(artefact(), tmp_path / "a.lvc")
    repacked(tmp_path / "a.lvc", manifest__json=manifest)
    with pytest.raises(CompileError, match="not a sound lvc artefact"):
        container.read(tmp_path / "a.lvc")


def test_a_name_that_is_no_text_is_refused(tmp_path: Path) -> None:
    container.write(artefact(), tmp_path / "a.lvc")
    with zipfile.ZipFile(tmp_path / "a.lvc") as archive:
        manifest = json.loads(archive.read("manifest.json"))
    manifest["outputs"] = [["\ud800", "f32[1,10]"]]
    repacked(tmp_path / "a.lvc", manifest__json=json.dumps(manifest).encode())
    with pytest.raises(CompileError, match="not a sound lvc artefact"):
        container.read(tmp_path / "a.lvc")


def test_newer_format_is_named(tmp_path: Path) -> None:
    container.write(artefact(), tmp_path / "a.lvc")
    repacked(tmp_path / "a.lvc", manifest__json=json.dumps({"format": 99}).encode())
    with pytest.raises(CompileError, match="format 99"):
        container.read(tmp_path / "a.lvc")


def test_what_gets_smaller_is_deflated(tmp_path: Path) -> None:
    normal = np.random.default_rng(0).standard_normal(200_000).astype(np.float32)
    files = {
        "model.so": json.dumps(list(range(50_000))).encode(),
        "random.bin": random.Random(0).randbytes(100_000),
        "float32.bin": normal.tobytes(),
        "int8.bin": (normal * 28).clip(-127, 127).astype(np.int8).tobytes(),
    }
    container.write(replace(artefact(), files=files), tmp_path / "a.lvc")
    with zipfile.ZipFile(tmp_path / "a.lvc") as archive:
        sizes = {info.filename: info.compress_size / info.file_size for info in archive.infolist()}
    assert sizes["random.bin"] == sizes["float32.bin"] == 1
    assert sizes["model.so"] < 0.5
    assert sizes["int8.bin"] < 0.9
    assert container.read(tmp_path / "a.lvc").files == files


def test_what_is_stored_can_be_used_where_it_lies(tmp_path: Path) -> None:
    files = {f"{'x' * length}.bin": random.Random(length).randbytes(99 + length) for length in range(1, 40)}
    content = container.pack(replace(artefact(), files=files))
    assert all(content.index(data) % 64 == 0 for data in files.values())
    (tmp_path / "a.lvc").write_bytes(content)
    assert container.read(tmp_path / "a.lvc").files == files


@pytest.mark.parametrize("kind", ["float32", "int8"])
def test_what_is_large_lies_at_the_begin_of_a_page_once(tmp_path: Path, kind: str) -> None:
    content = (np.random.default_rng(0).standard_normal(3 << 20) * 20).astype(kind).tobytes()
    container.write(replace(artefact(), files={"weights.bin": content, "graph.json": b"{}"}), tmp_path / "a.lvc")
    files = container.read(tmp_path / "a.lvc").files
    assert files["weights.bin"] == content
    found = np.frombuffer(files["weights.bin"], np.uint8)
    assert found.ctypes.data % mmap.PAGESIZE == 0
    assert not found.flags.writeable
    container.write(replace(artefact(), files=files), tmp_path / "again.lvc")
    assert (tmp_path / "again.lvc").read_bytes() == (tmp_path / "a.lvc").read_bytes()


@pytest.mark.parametrize("kind", ["float32", "int8"])
def test_damage_to_what_is_large_is_seen(tmp_path: Path, kind: str) -> None:
    content = (np.random.default_rng(0).standard_normal(3 << 20) * 20).astype(kind).tobytes()
    good = container.pack(replace(artefact(), files={"weights.bin": content}))
    for place in (len(good) // 2, len(good) - 1000):
        (tmp_path / "a.lvc").write_bytes(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])
        with pytest.raises(CompileError, match="not a sound lvc artefact"):
            container.read(tmp_path / "a.lvc")


def test_what_is_all_but_empty_can_be_read_again(tmp_path: Path) -> None:
    files = {"weights.bin": bytes(1_000_000)}
    container.write(replace(artefact(), files=files), tmp_path / "a.lvc")
    assert container.read(tmp_path / "a.lvc").files == files


def test_entries_that_grow_out_of_all_proportion_are_refused(tmp_path: Path) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("manifest.json", bytes(10_000_000))
    (tmp_path / "bomb.lvc").write_bytes(out.getvalue())
    with pytest.raises(CompileError, match="not a sound lvc artefact"):
        container.read(tmp_path / "bomb.lvc")


def test_no_damage_gets_past_the_reader(tmp_path: Path) -> None:
    good = container.pack(artefact())
    source = random.Random(0)
    path = tmp_path / "a.lvc"
    for _ in range(300):
        data = bytearray(good)
        for _ in range(source.randint(1, 8)):
            data[source.randrange(len(data))] = source.randrange(256)
        path.write_bytes(data[: source.randint(0, len(data))] if source.random() < 0.3 else data)
        try:
            found = container.read(path)
        except LvcError:
            continue
        assert found.files == artefact().files


def test_no_damage_to_one_byte_gets_past_the_reader(tmp_path: Path) -> None:
    good, path = container.pack(artefact()), tmp_path / "a.lvc"
    for place, byte in enumerate(good):
        path.write_bytes(good[:place] + bytes([byte ^ 1]) + good[place + 1 :])
        try:
            found = container.read(path)
        except LvcError:
            continue
        assert found == artefact()


def test_names_that_are_no_text_are_refused(tmp_path: Path) -> None:
    good, path = container.pack(artefact()), tmp_path / "a.lvc"
    place = good.index(b"PK\x01\x02")
    entry = bytearray(good[place:])
    entry[9] |= 8  # names are UTF-8
    entry[46] = 0xFF
    path.write_bytes(good[:place] + entry)
    with pytest.raises(CompileError, match="not a sound lvc artefact"):
        container.read(path)


def test_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.lvc"
    path.write_bytes(b"old")
    with pytest.raises(TypeError):
        write_atomically(path, "not bytes")  # type: ignore[arg-type]
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_written_files_follow_the_umask(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a", b"x")
    (tmp_path / "b").write_bytes(b"x")
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in "ab"}
    assert len(modes) == 1


@pytest.mark.parametrize("name", ["none/a.lvc", "."])
def test_unwritable_place_is_wrong_usage(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="cannot write"):
        container.write(artefact(), tmp_path / name)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.lvc")
    with pytest.raises(UsageError, match="cannot read") as caught:
        container.read(tmp_path / "pipe.lvc")
    assert caught.value.why == "it is no file"
