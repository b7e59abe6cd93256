"""Preprocessing: the text form both ways, and the same numbers as torchvision."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision import transforms

from lvc.compiler.data.preprocess import Preprocess
from lvc.compiler.errors import UsageError

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def photo(height: int, width: int, mode: str = "RGB", seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), np.uint8)
    return Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC).convert(mode)


@pytest.mark.parametrize("size", [(300, 400), (400, 300), (333, 257), (256, 256), (100, 90)])
def test_imagenet_preset_is_that_of_torchvision(size: tuple[int, int]) -> None:
    image = photo(*size)
    theirs = transforms.Compose(
        [
            transforms.Resize(256),
            transforms.CenterCrop(224),
            transforms.ToTensor(),
            transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        ]
    )(image)
    ours = Preprocess.parse("imagenet")(image)
    assert ours.shape == (1, 3, 224, 224)
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours[0], theirs.numpy(), atol=1e-6)


def test_bicubic_and_exact_size() -> None:
    image = photo(120, 200)
    theirs = transforms.Resize((64, 96), transforms.InterpolationMode.BICUBIC)(image)
    ours = Preprocess.parse("resize=64x96,interpolation=bicubic,range=255")(image)
    np.testing.assert_array_equal(ours[0], np.asarray(theirs, np.float32).transpose(2, 0, 1))


def test_layouts_and_ranges() -> None:
    pixels = np.array([[[255, 0, 51]]], np.uint8)
    assert Preprocess.parse("layout=bgr,range=255")(pixels).ravel().tolist() == [51, 0, 255]
    assert Preprocess.parse("range=1")(pixels).ravel().tolist() == pytest.approx([1, 0, 0.2])
    assert Preprocess.parse("range=symmetric")(pixels).ravel().tolist() == pytest.approx([1, -1, -0.6])
    assert Preprocess.parse("layout=gray,range=255")(pixels).shape == (1, 1, 1, 1)


def test_mean_and_std_are_in_the_order_of_the_layout() -> None:
    pixels = np.array([[[10, 20, 30]]], np.uint8)
    found = Preprocess.parse("layout=bgr,range=255,mean=30/20/10,std=1/2/4")(pixels)
    assert found.ravel().tolist() == [0, 0, 0]


def test_letterbox_scales_to_fit_and_fills_right_and_bottom() -> None:
    found = Preprocess.parse("letterbox=8@114,range=255")(np.full((4, 8, 3), 200, np.uint8))
    assert found.shape == (1, 3, 8, 8)
    assert (found[0, :, :4] == 200).all()
    assert (found[0, :, 4:] == 114).all()


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "1", "LA"])
def test_every_mode_of_images_becomes_three_channels(mode: str) -> None:
    assert Preprocess.parse("resize=8x8")(photo(20, 20, mode)).shape == (1, 3, 8, 8)


@pytest.mark.parametrize(
    "text",
    [
        "imagenet",
        "cifar10",
        "imagenet,crop=200x180,std=1/2/3.5",
        "letterbox=416x640@114,layout=bgr,range=255",
        "resize=300,interpolation=bicubic,crop=288",
        "resize=32x48",
        "layout=gray,range=symmetric,mean=0.5,std=1e-3",
        "range=1",
    ],
)
def test_text_reads_back_equal(text: str) -> None:
    wanted = Preprocess.parse(text)
    assert Preprocess.parse(str(wanted)) == wanted


sizes = st.integers(1, 512)
number = st.floats(-1e3, 1e3, allow_nan=False)


@settings(max_examples=50, deadline=None)
@given(
    crop=st.none() | st.tuples(sizes, sizes),
    layout=st.sampled_from(["rgb", "bgr", "gray"]),
    range=st.sampled_from(["1", "255", "symmetric"]),
    mean=st.tuples() | st.tuples(number),
    std=st.tuples() | st.tuples(number.filter(bool)),
)
def test_any_preprocessing_reads_back_equal(**fields: object) -> None:
    wanted = Preprocess(**fields)  # type: ignore[arg-type]
    assert Preprocess.parse(str(wanted)) == wanted


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("imgenet", "did you mean 'imagenet'"),
        ("", "presets: imagenet, cifar10"),
        ("resiz=3", "did you mean 'resize'"),
        ("resize", "there is no preprocessing 'resize'"),
        ("resize=big", "'big' is no size for resize"),
        ("crop=0", "out of range"),
        ("crop=99999", "out of range"),
        ("imagenet,crop=300", "crop=300 does not fit into resize=256"),
        ("resize=100x300,crop=200", "crop=200 does not fit into resize=100x300"),
        ("layout=rbg", "did you mean 'rgb'"),
        ("mean=a/b", "'a/b' is no mean"),
        ("mean=nan", "'nan' is no mean"),
        ("mean=1/2", "'mean' needs 1 or 3 number(s)"),
        ("layout=gray,std=1/2/3", "'std' needs 1 number(s)"),
        ("std=0", "'std' cannot be zero"),
        ("letterbox=416@300", "no fill"),
        ("letterbox=416,crop=224", "either 'letterbox'"),
        ("x" * 5000, "too long"),
    ],
)
def test_mistakes_are_explained(text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        Preprocess.parse(text)
    assert message in str(caught.value)


def test_crop_of_a_smaller_image_is_refused() -> None:
    with pytest.raises(UsageError, match="an image of 10x20 is smaller than crop=16x16"):
        Preprocess.parse("crop=16")(photo(10, 20))


def test_enormous_results_are_refused() -> None:
    with pytest.raises(UsageError, match="would become"):
        Preprocess.parse("resize=8192")(Image.new("RGB", (10, 100_000)))


@pytest.mark.parametrize("array", [np.zeros((4, 4, 3)), np.zeros((4, 4, 2), np.uint8), np.zeros((0, 4), np.uint8)])
def test_arrays_that_are_no_images_are_refused(array: np.ndarray) -> None:
    with pytest.raises(UsageError, match="an image must be"):
        Preprocess.parse("range=1")(array)


def test_size_is_known_where_it_does_not_depend_on_the_image() -> None:
    assert Preprocess.parse("imagenet").size == (224, 224)
    assert Preprocess.parse("letterbox=416x640").size == (416, 640)
    assert Preprocess.parse("resize=32x48").size == (32, 48)
    assert Preprocess.parse("resize=32").size is None
