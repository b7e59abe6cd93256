"""Data sets of image files: what makes a class, and that bad files end in one clear error."""

from __future__ import annotations

import io
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lvc.compiler.data import open_data
from lvc.compiler.data.images import decode_image
from lvc.compiler.data.preprocess import Preprocess
from lvc.compiler.errors import UsageError
from lvc.compiler.ir.signature import Value
from lvc.compiler.ir.spec import TensorSpec

INPUTS = (Value("image", TensorSpec((1, 3, 8, 8))),)
BYTES = Preprocess.parse("range=255")


def image_bytes(shade: int, size: tuple[int, int] = (8, 8), format: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, (shade, shade, shade)).save(buffer, format)
    return buffer.getvalue()


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def pack(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def read(path: Path, labels: tuple[str, ...] = ()) -> list[tuple[int, int | None]]:
    """Return the shade and the label of each sample."""
    data = open_data(str(path), BYTES, INPUTS, labels)
    found = [(int(array[0, 0, 0, 0]), label) for array, label in data]
    assert len(found) == len(data)
    return found


CLASSES = {"cat/b.png": image_bytes(2), "cat/a.png": image_bytes(1), "ant/deep/c.png": image_bytes(3)}


def test_sorted_class_folders_are_numbered_from_zero(tmp_path: Path) -> None:
    write(tmp_path, {**CLASSES, "cat/notes.txt": b"no image", ".hidden/x.png": b"", "cat/.y.png": b""})
    assert read(tmp_path) == [(3, 0), (1, 1), (2, 1)]


def test_folders_named_as_labels_take_their_places(tmp_path: Path) -> None:
    assert read(write(tmp_path, CLASSES), ("dog", "cat", "bee", "ant")) == [(3, 3), (1, 1), (2, 1)]


def test_folders_named_by_index_take_it(tmp_path: Path) -> None:
    write(tmp_path, {"7/a.png": image_bytes(1), "12_pelican/b.png": image_bytes(2)})
    assert sorted(read(tmp_path)) == [(1, 7), (2, 12)]


def test_one_unnumbered_folder_makes_all_of_them_names(tmp_path: Path) -> None:
    write(tmp_path, {"7/a.png": image_bytes(1), "owl/b.png": image_bytes(2)})
    assert read(tmp_path) == [(1, 0), (2, 1)]


def test_flat_folder_has_labels_only_in_the_known_file_names(tmp_path: Path) -> None:
    write(tmp_path, {"0207_n02099601_golden.png": image_bytes(1), "0001_photo.png": image_bytes(2)})
    assert read(tmp_path) == [(2, None), (1, 207)]


def test_zip_is_read_as_a_folder_is(tmp_path: Path) -> None:
    files = {f"set/{name}": content for name, content in CLASSES.items()}
    path = pack(tmp_path / "set.zip", {**files, "__MACOSX/set/cat/a.png": b"", "../../outside.png": image_bytes(9)})
    assert read(path) == [(3, 0), (1, 1), (2, 1)]
    assert not (tmp_path.parent.parent / "outside.png").exists()


def test_it_can_be_iterated_again(tmp_path: Path) -> None:
    data = open_data(str(write(tmp_path, CLASSES)), BYTES, INPUTS)
    assert [label for _, label in data] == [label for _, label in data] == [0, 1, 1]


def test_photographs_are_turned_upright() -> None:
    image = Image.new("RGB", (4, 2))
    exif = image.getexif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", exif=exif)
    assert decode_image(buffer.getvalue(), "photo").size == (2, 4)


def test_sixteen_bits_a_pixel_keep_their_shade(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.full((8, 8), 100 * 256 + 7, np.uint16)).save(buffer, "PNG")
    assert read(write(tmp_path, {"cat/a.png": buffer.getvalue()})) == [(100, 0)]


def test_pixels_of_32_bits_are_refused() -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((2, 2), np.float32)).save(buffer, "TIFF")
    with pytest.raises(UsageError, match="32-bit pixels"):
        decode_image(buffer.getvalue(), "photo")


def test_images_beside_folders_have_no_classes(tmp_path: Path) -> None:
    """Not even those whose names or folders would tell: half of a set's labels would measure half of an accuracy."""
    write(tmp_path, {**CLASSES, "7/x.png": image_bytes(4), "0207_n02099601_golden.png": image_bytes(5)})
    assert sorted(read(tmp_path)) == [(1, None), (2, None), (3, None), (4, None), (5, None)]
    data = open_data(str(tmp_path), BYTES, INPUTS)
    assert data.unlabelled == "1 images lie beside the folders '7', ..."
    assert data.classes == ()


def test_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there are no images in"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (b"GIF89a", ""),
        (image_bytes(1, size=(64, 64))[:60], ""),
        (image_bytes(1, format="JPEG", size=(64, 64))[:400], "Truncated"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n", "none of the formats"),
    ],
)
def test_broken_image_names_its_file(tmp_path: Path, content: bytes, reason: str) -> None:
    write(tmp_path, {"cat/bad.png": content})
    with pytest.raises(UsageError, match="cannot be decoded") as caught:
        read(tmp_path)
    assert caught.value.where.endswith("cat/bad.png")
    assert reason in caught.value.why


def test_decompression_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    for size in ((11, 11), (50, 50)):
        with pytest.raises(UsageError, match="the image is too large"):
            read(write(tmp_path, {"cat/a.png": image_bytes(1, size)}))


def test_image_of_another_size_than_the_input_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="a sample is 1x3x9x10, and input 'image' takes 1x3x8x8") as caught:
        read(write(tmp_path, {"cat/a.png": image_bytes(1, (10, 9))}))
    assert "resize=8x8" in caught.value.help


def test_gray_model_is_advised_to_set_the_layout(tmp_path: Path) -> None:
    write(tmp_path, {"cat/a.png": image_bytes(1)})
    gray = (Value("image", TensorSpec((1, 1, 8, 8))),)
    with pytest.raises(UsageError) as caught:
        list(open_data(str(tmp_path), BYTES, gray))
    assert "layout=gray" in caught.value.help


def test_images_without_a_preprocessing_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nothing says how to prepare"):
        open_data(str(write(tmp_path, CLASSES)), None, INPUTS)


def test_model_of_two_inputs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="a model of one input, not 2"):
        open_data(str(tmp_path), BYTES, INPUTS * 2)


@pytest.mark.parametrize("text", ["nothing/here", "no.such:thing/x", "missing.npz"])
def test_what_is_no_data_set_is_told_the_forms(text: str) -> None:
    with pytest.raises(UsageError, match="there is no data set") as caught:
        open_data(text, BYTES, INPUTS)
    assert "file.py:callable" in caught.value.help


def test_damaged_zip_is_refused(tmp_path: Path) -> None:
    path = pack(tmp_path / "a.zip", CLASSES)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(UsageError, match="cannot read"):
        read(path)


def test_damaged_member_of_a_zip_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("cat/a.png", image_bytes(1))
    content = path.read_bytes()
    path.write_bytes(content.replace(b"IDAT", b"XDAT"))
    with pytest.raises(UsageError, match="the image cannot be read") as caught:
        read(path)
    assert caught.value.where.endswith("a.zip/cat/a.png")


def test_assets_of_imagenet_have_their_index_in_the_name(assets: Path) -> None:
    inputs = (Value("image", TensorSpec((1, 3, 224, 224))),)
    data = open_data(str(assets / "imagenet" / "imagenet1000_224_webp85.zip"), BYTES, inputs)
    assert len(data) == 1000
    samples = iter(data)
    assert [next(samples)[1] for _ in range(5)] == [0, 1, 2, 3, 4]
    assert np.isfinite(next(samples)[0]).all()


def test_without_pillow_pictures_are_refused_and_say_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    content = image_bytes(1)
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(UsageError, match="not installed") as caught:
        decode_image(content, "a.png")
    assert "pip install pillow" in caught.value.help
