"""One trial: a program, its importer, the passes that it goes through and what it becomes; and the verdict."""

from __future__ import annotations

import dataclasses
import random
import re
import tempfile
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fuzzing import importers
from fuzzing.oracle import Expected, expected
from fuzzing.program import Program, draw_inputs

if TYPE_CHECKING:
    from lvc.compiler.ir.model import Model
    from lvc.compiler.load.request import LoadRequest
    from lvc.compiler.pipeline.workspace import Workspace

WINOGRAD_ERROR = 3e-5
"""What `allow-winograd` may cost a convolution, and a little."""


FILES = (".onnx", ".pt2", ".lvc")
"""Forms of a rewritten model that lvc writes and reads again."""


@dataclass(frozen=True)
class Case:
    """What to compile and how. ``inputs`` is the kind of the values that are compared; with ``verify`` lvc's own
    comparisons run too, which must not refuse what is right."""

    program: Program
    importer: str = "ir"
    pipeline: str = "O2"
    target: str = "native"
    precision: str = "fp32"
    inputs: str = "normal"
    opset: int = 17
    seed: int = 0
    verify: bool = False

    def __str__(self) -> str:
        importer = f"{self.importer} (opset {self.opset})" if self.importer == "onnx" else self.importer
        precision = "" if self.precision == "fp32" else f" {self.precision}"
        return f"{importer} importer, {self.pipeline or 'no passes'}, {self.target}{precision}, {self.inputs} inputs"


@dataclass(frozen=True)
class Verdict:
    """``kind`` is ok, blunt (nothing could be said), refused, fault or oracle (lvc is right, and a peer is
    not, or the fuzzer wrote down what it did not mean).

    ``what`` groups verdicts of one cause; ``detail`` is for people.
    """

    kind: str
    what: str = ""
    detail: str = ""

    @property
    def is_fault(self) -> bool:
        return self.kind == "fault"


def judge(case: Case) -> Verdict:
    """Try a case in this process. Whatever lvc raises that is no refusal is a fault."""
    from lvc.compiler.errors import CheckError, LvcError

    try:
        return _judge(case)
    except CheckError as error:
        return Verdict("fault", f"check: {_general(str(error.what))}", str(error))
    except LvcError as error:
        why = str(error.why).splitlines()[0] if error.why else ""
        return Verdict("refused", _general(f"{error.what}: {why}"), str(error))
    except Exception as error:  # a traceback is what the fuzzer looks for
        inside = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_ours(frame.filename)]
        if not inside:
            return Verdict("oracle", f"{type(error).__name__} in the fuzzer", traceback.format_exc())
        place = f"{_short(inside[-1].filename)}:{inside[-1].name}"
        text = str(error).splitlines()[0][:80] if str(error) else ""
        return Verdict("fault", f"{type(error).__name__} in {place}: {_general(text)}", traceback.format_exc())


def _is_ours(file: str) -> bool:
    """Whether a file is one of lvc's."""
    import lvc.compiler

    root = Path(str(lvc.compiler.__file__)).resolve().parents[1]
    path = Path(file).resolve()
    return any((root / room) in path.parents for room in ("compiler", "passes", "backends"))


def _short(file: str) -> str:
    return "/".join(file.split("/")[-2:])


def _general(text: str) -> str:
    """A message without names and numbers, so that those of one cause are one."""
    text = re.sub(r"'[^']*'|\"[^\"]*\"", "*", text)
    text = re.sub(r"\w+: \w+\[[\d,]*\](, )?", "", text)  # a signature
    return re.sub(r"\b[a-z]*\d[\w.e+-]*", "N", text)[:160]


def _judge(case: Case) -> Verdict:
    arrays = draw_inputs(case.program.inputs.values(), case.inputs, case.seed)
    want = described = expected(case.program, arrays, _noise(case.pipeline))
    with importers.opened(case.program, case.importer, case.opset) as (source, model):
        loaded = model(*arrays)
        if fault := _differ(loaded, want, "the loaded model"):
            return dataclasses.replace(fault, kind="oracle") if _says_so(case, arrays, loaded, want) else fault
        if _is_lossy(case):
            want, what = _expected_of_passes(case, model, arrays), f"{_code(case)}, lossy"
        else:
            what = _code(case)
        found = _outputs(case, source if case.verify else model, model, arrays)
    if fault := _differ(found, want, what):
        return fault
    if (peer := _peer(case, arrays)) and (fault := _differ(peer, described, "the peer")):
        return dataclasses.replace(fault, kind="oracle")
    blunt = all(value.bound is None for value in want)
    return Verdict("blunt" if blunt else "ok")


def _says_so(case: Case, arrays: list[np.ndarray], loaded: tuple[np.ndarray, ...], want: list[Expected]) -> bool:
    """Whether what was loaded is what the peer computes: then the fuzzer wrote down another model than it meant.

    A peer that differs from both excuses nothing, nor does one that fails.
    """
    try:
        peer = _peer(case, arrays)
    except Exception:  # its own affair
        return False
    if peer is None or len(peer) != len(want):
        return False
    theirs = [Expected(array, array.astype(np.float64), value.bound) for array, value in zip(peer, want, strict=True)]
    return _differ(loaded, theirs, "") is None


def _peer(case: Case, arrays: list[np.ndarray]) -> tuple[np.ndarray, ...] | None:
    """What eager PyTorch or ONNX Runtime compute of the form that lvc loads; None where there is no such form."""
    if case.importer == "torch":
        import torch

        with torch.inference_mode():
            outputs = importers.module(case.program)(*map(torch.from_numpy, arrays))
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        return tuple(value.detach().numpy() for value in outputs)
    if case.importer == "onnx":
        from fuzzing import onnx_file

        return _maxima_of_nothing(onnx_file.run(case.program, case.opset, arrays))
    return None


def _maxima_of_nothing(found: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
    """What ONNX Runtime gives, its maxima of minus infinity alone, which are the lowest number, as PyTorch's are."""
    return tuple(
        np.where(array == np.finfo(array.dtype).min, -np.inf, array) if array.dtype.kind == "f" else array
        for array in found
    )


def _differ(found: tuple[np.ndarray, ...], want: list[Expected], what: str) -> Verdict | None:
    if len(found) != len(want):
        return Verdict("fault", f"wrong: {what}", f"{len(found)} outputs for {len(want)}")
    for place, (array, value) in enumerate(zip(found, want, strict=True)):
        if error := value.error(np.asarray(array)):
            return Verdict("fault", f"wrong: {what}", f"output {place}: {error}")
    return None


def _code(case: Case) -> str:
    if case.target in FILES:
        return f"the model written as {case.target} and read again"
    return f"code of {case.target if case.target.startswith('onnx') else 'tvm'}"


def _noise(pipeline: str) -> dict[str, float]:
    return {"conv2d": WINOGRAD_ERROR} if "O2" in pipeline or "O3" in pipeline or "winograd" in pipeline else {}


def _is_lossy(case: Case) -> bool:
    from lvc.compiler.pipeline.passes import Effect
    from lvc.compiler.pipeline.pipeline import Pipeline

    passes = Pipeline.parse(case.pipeline).with_precision(case.precision)
    return any(item.effect is Effect.LOSSY for item in passes)


def _outputs(
    case: Case, subject: LoadRequest | Model, model: Model, arrays: list[np.ndarray]
) -> tuple[np.ndarray, ...]:
    """What the target computes; a file is a target too: what is written is read again and run."""
    import lvc
    from lvc.compiler.writing import write_model

    workspace = _workspace(case, model)
    if case.target in FILES:
        with tempfile.TemporaryDirectory(prefix="lvc-fuzz-") as folder:
            file = Path(folder) / f"again{case.target}"
            write_model(_rewritten(case, model), file)
            return lvc.load_model(str(file))(*arrays)
    artefact = lvc.compile(
        subject, case.pipeline, case.target, precision=case.precision, verify=case.verify, workspace=workspace
    )
    found = lvc.load(artefact, threads=1)(*arrays)
    found = found if isinstance(found, tuple) else (found,)
    return _maxima_of_nothing(found) if case.target.startswith("onnx") else found


def _rewritten(case: Case, model: Model) -> Model:
    """What the passes make of a model, those that the target adds included."""
    from lvc.compiler.backend import Target
    from lvc.compiler.driver import check_request, optimise
    from lvc.compiler.pipeline import catalogue
    from lvc.compiler.pipeline.pipeline import Pipeline

    pipeline = Pipeline.parse(case.pipeline).with_precision(case.precision)
    if case.target in FILES:
        return optimise(model, pipeline, _workspace(case, model))[0]
    target = Target.parse(case.target)
    check_request(pipeline, target)
    completion = catalogue.BACKENDS.get(target.backend).completion
    return optimise(model, pipeline, _workspace(case, model), completion=completion)[0]


def _expected_of_passes(case: Case, model: Model, arrays: list[np.ndarray]) -> list[Expected]:
    """What the rewritten model computes in PyTorch, since what lossy passes gave away is theirs to tell."""
    from fuzzing.rewritten import expected_of

    return expected_of(_rewritten(case, model), arrays, simulated="onnx" in case.target)


@dataclass(frozen=True)
class Calibration:
    """Random inputs of batch 1 as a data set."""

    arrays: list[np.ndarray]

    def __len__(self) -> int:
        return len(self.arrays)

    def __iter__(self) -> Any:
        return iter([(array, None) for array in self.arrays])


def _workspace(case: Case, model: Model) -> Workspace:
    from lvc.compiler.ir.spec import TensorSpec
    from lvc.compiler.pipeline.workspace import Workspace

    first = model.inputs[0].spec
    one = TensorSpec((1, *first.shape[1:]), first.dtype)
    arrays = [
        draw_inputs([one], case.inputs, case.seed + 1 + k)[0] for k in range(random.Random(case.seed).choice((4, 9)))
    ]
    return Workspace(data={"calib": lambda: Calibration(arrays)}, seed=case.seed, threads=1)
