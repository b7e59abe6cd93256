"""From a picture to a model's input in C++: number for number what Python makes of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from cxx_program import Example
from programs import run

from lvc.compiler.data.images import prepare
from lvc.compiler.data.preprocess import Preprocess
from lvc.compiler.data.samples import Fit
from lvc.compiler.ir.spec import TensorSpec

PICTURES = [
    ("resize=20,crop=16,layout=rgb,range=1,mean=0.5,std=0.25", "f32[1,3,16,16]", (37, 61, 3)),
    ("resize=16x16,layout=rgb,range=255", "u8[1,3,16,16]", (61, 37, 3)),
    ("resize=16x16,interpolation=bicubic,layout=bgr,range=symmetric", "f32[2,16,16,3]", (7, 9, 3)),
    ("letterbox=24x32@114,layout=bgr,range=255", "f32[1,3,24,32]", (50, 13, 3)),
    ("letterbox=24x32,interpolation=bicubic,layout=gray,range=1", "f32[1,1,24,32]", (13, 50, 3)),
    ("resize=17,interpolation=nearest,crop=16x17,layout=rgb,range=1", "f32[1,3,16,17]", (100, 31, 3)),
    ("resize=33x35,interpolation=nearest,layout=rgb,range=1", "f32[1,3,33,35]", (20, 20, 1)),
    ("crop=15x12,layout=gray,range=1,mean=0.1307,std=0.3081", "f32[1,1,15,12]", (20, 17, 1)),
    ("layout=rgb,range=1,mean=0.485/0.456/0.406,std=0.229/0.224/0.225", "f32[1,3,9,8]", (9, 8, 3)),
    ("resize=9x30,resize=9,layout=rgb,range=1", "f32[1,3,9,18]", (11, 22, 3)),
    ("letterbox=8@9,letterbox=24x32,layout=rgb,range=1", "f32[1,3,24,32]", (50, 13, 3)),
    ("resize=64x3,interpolation=bicubic,layout=rgb,range=1", "f32[1,3,64,3]", (5, 400, 3)),
]


def test_pictures_become_the_inputs_that_python_makes_of_them(use: str, tmp_path: Path) -> None:
    source, lines, wanted = np.random.default_rng(0), [], b""
    for place, (how, spec, shape) in enumerate(PICTURES):
        pixels = source.integers(0, 256, shape, np.uint8)
        (tmp_path / f"{place}.bin").write_bytes(pixels.tobytes())
        lines.append(f"{how} {spec} {shape[2]} {shape[0]} {shape[1]} {tmp_path / f'{place}.bin'}\n")
        value = TensorSpec.parse(spec)
        fits = Fit("x", (1, *value.shape[1:]), np.dtype(value.type_name))
        wanted += fits(prepare(pixels, "it", Preprocess.parse(how), fits), "it").tobytes()
    (tmp_path / "list").write_text("".join(lines))
    run(use, "prepare", str(tmp_path / "list"), str(tmp_path / "result"))
    assert (tmp_path / "result").read_bytes() == wanted


def test_pictures_and_inputs_that_do_not_fit_are_refused(use: str, plain: Example) -> None:
    run(use, "misprepare", plain.file)


def test_a_preprocessing_that_is_none_is_refused(use: str, tmp_path: Path) -> None:
    texts = [
        "imagenet",
        "resize=0",
        "resize=99999",
        "crop=8x",
        "mean=a",
        "mean=1/2",
        "std=0",
        "mean=nan",
        "layout=cmyk",
    ]
    texts += [
        "letterbox=8@300",
        "letterbox=8,resize=4",
        "range=2",
        "=",
        "resize",
        "mean=",
        "mean=0.5/",
        "layout=rgb,",
        ",layout=rgb",
        "layout=rgb,,range=1",
        "std=1e999",
        "x=1",
        "a" * 9999,
    ]
    (tmp_path / "list").write_text("".join(f"{text}\n" for text in texts))
    run(use, "refuse-preprocessing", str(tmp_path / "list"))
