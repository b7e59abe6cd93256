"""What the backend has to say about a model that it builds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lvc.backends.tvm.backend import TvmBackend
from lvc.backends.tvm.cpu.kernel_schedule import KernelSchedule
from lvc.backends.tvm.legality import check
from lvc.compiler import driver
from lvc.compiler.backend import Target
from lvc.compiler.errors import CompileError
from lvc.compiler.ir.graph_text import parse_model
from lvc.compiler.measure.artefact import artefact_facts
from lvc.compiler.pipeline.pipeline import Pipeline
from lvc.compiler.pipeline.workspace import Workspace


@pytest.mark.parametrize(("bits", "target", "count"), [(8, "x86-64-v3", 1), (7, "x86-64-v3", 0), (8, "cascadelake", 0)])
def test_wide_weights_are_remarked_on_where_they_are_slow(bits: int, target: str, count: int) -> None:
    model = parse_model("""
        model layer(x: f32[1,8,4,4])
          @w : f32[8,8,1,1]
          %y = conv2d(%x, @w)
          return out=%y
    """)
    images = [(np.random.default_rng(0).normal(size=(1, 8, 4, 4)).astype(np.float32), None)]
    pipeline = Pipeline.parse(f"insert-fake-quant{{weight_bits={bits}}},calibrate,lower-to-integer")
    lowered, _ = pipeline.run(model, Workspace({"calib": lambda: images}))
    remarks = TvmBackend().remarks(lowered, Target.parse(target))
    assert len(remarks) == count
    assert all("int8-avx2" in remark for remark in remarks)


def test_a_kernel_whose_schedule_is_refused_is_remarked_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Exact still, and told in the report and the artefact; by the cache of kernels, too.

    The channels fill vectors of every width, so that the two kernels are one.
    """

    def refuse(*_: object) -> None:
        raise ValueError("loops of another kind")

    model = parse_model("""
        model layers(x: f32[1,16,4,4])
          @w : f32[16,16,1,1]
          %y = conv2d(%x, @w)
          %z = conv2d(%y, @w)
          return out=%z
    """)
    monkeypatch.setenv("LVC_CACHE", str(tmp_path))
    assert driver.compile_and_report(model)[1].notes == ()
    monkeypatch.setenv("LVC_CACHE", str(tmp_path / "other"))
    with monkeypatch.context() as patch:
        patch.setattr(KernelSchedule, "__call__", refuse)
        artefact, report = driver.compile_and_report(model, check=True)
    (note,) = report.notes
    assert "the kernel of y and 1 more is exact but many times slower" in note
    assert "ValueError: loops of another kind" in note
    assert ("note", note) in artefact_facts(artefact)
    assert driver.compile_and_report(model)[1].notes == (note,)


def test_a_model_in_half_precision_is_told_a_way() -> None:
    model = parse_model("model half(x: f16[1,4])\n  %y = relu(%x)\n  return out=%y\n")
    with pytest.raises(
        CompileError, match="float16 is a type of what kernels hand on, not of inputs and outputs"
    ) as caught:
        check(model)
    assert caught.value.help.startswith("export the model in float32; ")
