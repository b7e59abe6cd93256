"""A model for several numbers of images as C: one instance runs any variant, to the bits of the artefact."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from c_program import HERE, WARNINGS, compiler
from programs import SHAPE, network, run

import lvc
from lvc.compiler.emission import Emission, emit


@pytest.mark.parametrize("flags", [["-O2"], ["-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]])
def test_variants_give_the_bits_of_the_artefact(flags: list[str], tmp_path: Path) -> None:
    artefact = lvc.compile(network(), verify=False, batches=(5,))
    folder = tmp_path / "net"
    emit(artefact, folder, Emission("c-package", "net", "linked", "none"))
    assert json.loads((folder / "manifest.json").read_text())["variants"] == [
        {"inputs": [["input", "f32[5,3,16,16]"]], "outputs": [["output", "f32[5,10]"]]}
    ]
    x = np.random.default_rng(0).standard_normal((6, *SHAPE[1:])).astype(np.float32)
    (tmp_path / "input").write_bytes(x.tobytes())
    files = [str(HERE / "variants.c"), str(folder / "net.c"), str(folder / "libnet_kernels.a")]
    run(*compiler("gcc"), *WARNINGS, *flags, "-I", str(folder), "-o", "variants", *files, "-lm", folder=tmp_path)
    run("./variants", "input", "output", folder=tmp_path)
    loaded = lvc.load(artefact)
    wanted = np.concatenate([np.asarray(loaded(x[:1])), np.asarray(loaded(x[1:]))])
    assert (tmp_path / "output").read_bytes() == wanted.tobytes()


def test_the_shared_library_shows_them(tmp_path: Path) -> None:
    artefact = lvc.compile(network(), verify=False, batches=(2,))
    emit(artefact, tmp_path / "net", Emission("shared", "net", "linked", "none"))
    shown = run("nm", "-D", "--defined-only", str(tmp_path / "net" / "libnet.so"))
    assert {"net_variant_info", "net_variant_for", "net_run_variant"} <= {
        line.split()[-1] for line in shown.splitlines()
    }
