"""A wild ONNX file in, a pruned ONNX file out: valid, of the same signature, and equal in ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from lvc.compiler.data.seeded import seeded_inputs
from lvc.compiler.ir.verify import verify
from lvc.compiler.load import load
from lvc.compiler.measure.inspection import layers
from lvc.compiler.measure.layers import totals
from lvc.compiler.writing import write_model
from lvc.passes.analysis.channel_groups import channel_groups
from lvc.passes.analysis.channels.masking import check_removal
from lvc.passes.analysis.channels.surgery import remove


@pytest.mark.parametrize(("name", "most"), [("yolox_nano", 0.8), ("yunet_n_320", 0.8), ("mnist_cntk", 0.8)])
def test_a_wild_file_is_pruned(name: str, most: float, assets: Path, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    source = assets / "onnx" / f"{name}.onnx"
    model = load(str(source))
    channels = channel_groups(model)
    assert channels.free
    removal = {group.name: range(0, group.size, 3) if group.size > 1 else () for group in channels.free}
    pruned = model.copy()
    remove(pruned, channels, removal)
    verify(pruned)
    check_removal(model, pruned, channels, removal)
    assert totals(layers(pruned)).macs < most * totals(layers(model)).macs

    write_model(pruned, path := tmp_path / "pruned.onnx")
    onnx.checker.check_model(onnx.load(path), full_check=True)
    wanted, written = (
        onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"]) for file in (source, path)
    )
    assert [(i.name, i.shape) for i in written.get_inputs()] == [(v.name, list(v.spec.shape)) for v in model.inputs]
    assert [o.name for o in written.get_outputs()] == [o.name for o in wanted.get_outputs()]
    inputs = seeded_inputs(pruned.inputs, 0)
    found = written.run(None, {value.name: array for value, array in zip(pruned.inputs, inputs, strict=True)})
    for ours, theirs in zip(found, pruned(*inputs), strict=True):
        assert np.abs(np.asarray(ours) - theirs).max() <= 1e-4 * max(1.0, np.abs(theirs).max())
