"""Parts of a concatenation are made in their places only where a vector may begin."""

from __future__ import annotations

import numpy as np
import torch

import lvc
from lvc.backends.tvm.cpu.code_generator import CpuCodeGenerator
from lvc.backends.tvm.cpu.isa.avx2 import Avx2
from lvc.backends.tvm.cpu.vector import Vector
from lvc.backends.tvm.lower import lower
from lvc.compiler.ir.graph_text import parse_model
from lvc.compiler.pipeline.pipeline import Pipeline
from lvc.compiler.pipeline.workspace import Workspace

AVX2 = CpuCodeGenerator(Vector(Avx2()))


def test_parts_of_bytes_that_end_between_two_vectors() -> None:
    """24 channels of 7x7 bytes are 1,176: no multiple of 16, where kernels would store whole vectors."""
    model = parse_model("""
        model parts(x: f32[1,16,7,7])
          @a : f32[24,16,1,1]
          @b : f32[24,16,1,1]
          @c : f32[16,48,1,1]
          %p = conv2d(%x, @a)
          %q = conv2d(%x, @b)
          %y = cat([%p, %q], 1)
          %z = conv2d(%y, @c)
          return out=%z
    """)
    image = np.random.default_rng(0).normal(size=(1, 16, 7, 7)).astype(np.float32)
    workspace = Workspace({"calib": lambda: [(image, None)]})
    whole, _ = Pipeline.parse("insert-fake-quant,calibrate,lower-to-integer,fuse-operators").run(model, workspace)
    arguments = [argument for step in lower(whole, AVX2).steps for argument in step.arguments]
    assert all(argument.place.offset % AVX2.alignment == 0 for argument in arguments)
    found = lvc.load(lvc.compile(whole, "O0", "native"))(image)
    assert np.array_equal(found, whole.module(torch.from_numpy(image))[0].detach().numpy())
