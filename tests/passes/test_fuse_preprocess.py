"""Pictures as inputs: what preprocessing does to their numbers is a part of the model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import lvc
from lvc.compiler.cli import main
from lvc.compiler.data.preprocess import Preprocess
from lvc.compiler.errors import UsageError
from lvc.compiler.ir.model import Model
from lvc.compiler.pipeline.pipeline import Pipeline
from lvc.compiler.writing import write_model

SIZE = 20, 24
IMAGENET = "mean=0.485/0.456/0.406,std=0.229/0.224/0.225"


def model(preprocess: str | None, channels: int = 3) -> Model:
    torch.manual_seed(0)
    made = lvc.from_module(torch.nn.Conv2d(channels, 4, 3, padding=1), torch.rand(1, channels, *SIZE))
    made.preprocessing = preprocess
    return made


def fused(preprocess: str | None, channels: int = 3) -> Model:
    return Pipeline.parse("O1").with_ends(None, preprocess=True).run(model(preprocess, channels))[0]


@settings(max_examples=20, deadline=None)
@given(
    st.integers(0, 2**31),
    st.sampled_from(["rgb", "bgr", "gray"]),
    st.sampled_from(["1", "255", "symmetric"]),
    st.sampled_from([("", ""), ("0.5", ""), ("", "0.25"), ("0.4", "0.3"), ("1/2/3", "4/5/6")]),
)
def test_the_numbers_are_those_of_the_preprocessing(
    seed: int, layout: str, scale: str, moments: tuple[str, str]
) -> None:
    mean, std = (part.partition("/")[0] if layout == "gray" else part for part in moments)
    named = [f"{name}={part}" for name, part in (("mean", mean), ("std", std)) if part]
    text = ",".join(["resize=20x24", f"layout={layout}", f"range={scale}", *named])
    channels = 1 if layout == "gray" else 3
    made, preprocess = fused(text, channels), Preprocess.parse(text)
    assert str(made.inputs[0]).endswith(f"u8[1,20,24,{channels}]")
    pixels = np.random.default_rng(seed).integers(0, 256, (*SIZE, channels), np.uint8)
    np.testing.assert_allclose(
        made(pixels[None])[0], model(text, channels)(preprocess(pixels))[0], rtol=1e-5, atol=1e-4
    )
    left = Preprocess.parse(made.preprocessing or "")
    assert left.keeps_bytes
    np.testing.assert_array_equal(left(pixels)[0], pixels.transpose(2, 0, 1))


@pytest.mark.parametrize(
    ("preprocess", "channels", "message"),
    [(None, 3, "nothing says how pictures are prepared"), ("layout=gray", 3, "does not take the pictures")],
)
def test_what_takes_no_pictures(preprocess: str | None, channels: int, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        fused(preprocess, channels)


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_model(model(None), tmp_path / "m.onnx")
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (31, 40, 3), np.uint8)).save(tmp_path / "photo.png")
    found = {}
    for name, more in (("plain", []), ("fused", ["--fuse-preprocess"])):
        file, out = str(tmp_path / f"{name}.lvc"), str(tmp_path / f"{name}.npz")
        prepare = ["--preprocess", f"resize=20x24,layout=bgr,{IMAGENET}"]
        assert main(["compile", str(tmp_path / "m.onnx"), "-t", "native", *prepare, *more, "-o", file]) == 0
        assert main(["run", file, str(tmp_path / "photo.png"), "-o", out]) == 0
        with np.load(out) as arrays:
            (found[name],) = arrays.values()
    np.testing.assert_allclose(found["fused"], found["plain"], rtol=1e-5, atol=1e-5)
    loaded = lvc.load(tmp_path / "fused.lvc")
    assert str(loaded.inputs[0].spec) == "u8[1,20,24,3]"
    picture = loaded.prepare(np.asarray(Image.open(tmp_path / "photo.png")))
    np.testing.assert_array_equal(np.asarray(loaded(picture)), found["fused"])
    assert main(["compile", str(tmp_path / "m.onnx"), "--fuse-preprocess", "-o", str(tmp_path / "x.lvc")]) == 2
    assert "nothing says how pictures are prepared" in capsys.readouterr().err


def test_several_numbers_of_images() -> None:
    artefact = lvc.compile(
        model("range=1"), Pipeline.parse("O2").with_ends(None, preprocess=True), "native", batches=(3,)
    )
    pictures = np.random.default_rng(0).integers(0, 256, (3, *SIZE, 3), np.uint8)
    run = lvc.load(artefact)
    together = np.asarray(run(pictures))
    apart = np.concatenate([np.asarray(run(pictures[i : i + 1])) for i in range(3)])
    np.testing.assert_allclose(together, apart, rtol=1e-5, atol=1e-5)
