"""Class names from files and by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from lvc.compiler.data.labels import read_labels
from lvc.compiler.errors import UsageError


def test_well_known_labels() -> None:
    imagenet = read_labels("imagenet")
    assert len(imagenet) == 1000
    assert imagenet[207] == "golden retriever"
    assert read_labels("cifar10")[3] == "cat"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", "cat\ndog \n\n"),
        ("a.json", '["cat", "dog"]'),
        ("a.json", '{"1": "dog", "0": "cat"}'),
        ("a.json", '{"0": ["n01", "cat"], "1": ["n02", "dog"]}'),
    ],
)
def test_forms_of_files(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    assert read_labels(tmp_path / name) == ("cat", "dog")


def test_an_empty_line_in_between_keeps_its_place(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("cat\n\ndog\n")
    assert read_labels(tmp_path / "a.txt") == ("cat", "", "dog")


def test_labels_cannot_steer_the_terminal(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('["\\u001b[31mcat"]')
    assert read_labels(tmp_path / "a.json") == ("?[31mcat",)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"\n\n", "it has none"),
        ("a.txt", b"\xff\xfe\x00", "not a list of labels"),
        ("a.json", b"{", "not a list of labels"),
        ("a.json", b"3", "neither a list nor an object"),
        ("a.json", b'{"0": "cat", "2": "dog"}', "0, 1, 2"),
        ("a.json", b"[1, 2]", "not text"),
        ("a.json", b"[" * 100_000, "not a list of labels"),
    ],
)
def test_unusable_files_are_refused(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError) as caught:
        read_labels(tmp_path / name)
    assert message in str(caught.value)


def test_missing_file_is_told_the_names() -> None:
    with pytest.raises(UsageError, match="there are no labels") as caught:
        read_labels("imagnet")
    assert "imagenet" in caught.value.help
