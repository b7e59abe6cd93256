"""Samples by place are the samples that iterating gives, whatever the data set is."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lvc.compiler.data.access import Access, access
from lvc.compiler.data.preprocess import Preprocess
from lvc.compiler.data.sources import open_data
from lvc.compiler.errors import UsageError
from lvc.compiler.ir.signature import Value
from lvc.compiler.ir.spec import TensorSpec
from lvc.compiler.pipeline.held_out import split

INPUT = (Value("x", TensorSpec((1, 3, 8, 8), torch.float32)),)
PREPARE = Preprocess.parse("resize=8x8,range=1,mean=0.5,std=0.25")
PIXELS = np.random.default_rng(0).integers(0, 256, (6, 10, 12, 3), np.uint8)


def folder(path: Path) -> Path:
    for index, pixels in enumerate(PIXELS):
        place = path / "pictures" / "ab"[index % 2]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(place / f"{index}.png")
    return path / "pictures"


@pytest.fixture(params=["folder", "zip", "npz", "ready", "callable"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    labels = np.arange(6) % 2
    if request.param == "folder":
        return str(folder(tmp_path))
    if request.param == "zip":
        files = folder(tmp_path)
        with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
            for file in sorted(files.rglob("*.png")):
                archive.write(file, file.relative_to(files))
        return str(tmp_path / "all.zip")
    if request.param == "callable":
        (tmp_path / "mine.py").write_text(
            "import numpy as np\n"
            "def data():\n"
            "    for i in range(6):\n"
            "        yield np.full((8, 12, 3), 40 * i, np.uint8), i % 2\n"
        )
        return f"{tmp_path / 'mine.py'}:data"
    images = PIXELS if request.param == "npz" else np.random.default_rng(1).random((6, 3, 8, 8), np.float32)
    np.savez(tmp_path / "all.npz", x=images, y=labels)
    return str(tmp_path / "all.npz")


def test_by_place_and_in_order_are_the_same(place: str) -> None:
    data = open_data(place, PREPARE, INPUT)
    by_place, in_order = access(data), list(data)
    assert len(by_place) == len(in_order) == 6
    for at in (3, 0, 5):
        assert np.array_equal(by_place.read(by_place.places[at]), in_order[at][0])
        assert by_place.target(by_place.places[at]) == in_order[at][1]


def test_pictures_become_inputs_by_the_preprocessing(place: str) -> None:
    found = access(open_data(place, PREPARE, INPUT))
    if found.picture is None:
        return
    assert found.preprocess == PREPARE
    assert np.array_equal(PREPARE(found.picture(2)), found.read(2))


def test_parts_of_a_data_set_have_their_own_places(tmp_path: Path) -> None:
    np.savez(tmp_path / "all.npz", x=np.arange(20, dtype=np.float32).reshape(20, 1, 1, 1) * np.ones((1, 3, 8, 8), "f4"))
    data = open_data(str(tmp_path / "all.npz"), None, INPUT)
    for part in split(data, 0):
        found = access(part)
        assert [found.read(at)[0, 0, 0, 0] for at in found.places] == [image[0, 0, 0, 0] for image, _ in part]


def test_targets_that_are_arrays(tmp_path: Path) -> None:
    masks = np.random.default_rng(2).integers(0, 4, (6, 10, 12))
    np.savez(tmp_path / "all.npz", x=PIXELS, y=masks)
    data = open_data(str(tmp_path / "all.npz"), PREPARE, INPUT)
    assert all(label is None for _, label in data)
    target = access(data).target(4)
    assert isinstance(target, np.ndarray)
    assert np.array_equal(target, masks[4])


def test_a_set_that_only_iterates_is_held_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    class Endless:
        def __iter__(self) -> Iterator[tuple[np.ndarray, int | None]]:
            while True:
                yield np.zeros((1, 3, 8, 8), np.float32), None

    monkeypatch.setattr("lvc.compiler.data.access.MOST_BYTES", 10_000)
    with pytest.raises(UsageError, match="too large to be held in memory"):
        access(Endless())


def test_only_some_places() -> None:
    found = Access(range(10), lambda place: np.array([place]), lambda place: place).only([7, 2])
    assert [found.read(place)[0] for place in found.places] == found.targets() == [7, 2]
