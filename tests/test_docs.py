"""The code that the documentation shows runs as it stands."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest
from svg_drawing import Drawing

from lvc.compiler.cli import main
from lvc.compiler.ir.graph_text import parse_model
from lvc.compiler.pipeline.observers import Drift, Verifier
from lvc.compiler.pipeline.pipeline import Pipeline

DOCS = Path(__file__).resolve().parents[1] / "docs"


def blocks(file: str, language: str) -> list[str]:
    if not (DOCS / file).is_file():
        pytest.skip("the documentation is not beside the installed wheel")
    return re.findall(rf"^```{language}\n(.*?)^```", (DOCS / file).read_text(), re.MULTILINE | re.DOTALL)


def test_the_pass_of_the_guide_runs_as_a_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    example = next(text for text in blocks("extending.md", "python") if "class RoundWeightsToHalf" in text)
    (tmp_path / "round_weights_to_half.py").write_text(example)
    pipeline = "O1,round-weights-to-half{largest=8}"
    model = ["torchvision.models:squeezenet1_1", "--shape", "1x3x64x64"]
    code = main(["opt", *model, "--plugin", "round_weights_to_half.py", "-p", pipeline, "--check", "-o", "half.onnx"])
    assert code == 0
    assert (tmp_path / "half.onnx").is_file()


def test_the_rules_of_the_guide_rewrite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    example = next(text for text in blocks("extending.md", "python") if "class MergeFactors" in text)
    (tmp_path / "merge_factors.py").write_text(example)
    monkeypatch.syspath_prepend(str(tmp_path))
    pipeline = Pipeline((importlib.import_module("merge_factors").MergeFactors(),))
    model = parse_model("""model factors(x: f32[4])
  %a = mul(%x, 2.0)
  %b = mul(%a, 3.0)
  %c = mul(%b, 0.5)
  %kept = mul(%c, 4.0)
  %also = mul(%kept, 5.0)
  return kept=%kept, also=%also
""")
    result, (step,) = pipeline.run(model, observers=[Verifier(), Drift()])
    assert "%kept = mul(%x, 12.0)" in result.to_text()
    assert (step.outcome.changed, step.outcome.removed) == (["kept"], ["b", "c"])
    assert [str(skip) for skip in step.outcome.skipped] == ["also: 'kept' is read by others too"]


def test_the_criterion_of_the_guide_judges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    example = next(text for text in blocks("extending.md", "python") if "class LargestWeight" in text)
    (tmp_path / "largest_weight.py").write_text(example)
    pipeline = "prune-channels{macs=0.7 criterion=largest_weight.py:LargestWeight}"
    model = ["torchvision.models:squeezenet1_1", "--shape", "1x3x64x64"]
    assert main(["opt", *model, "-p", pipeline, "-o", "small.lvc"]) == 0
    assert (tmp_path / "small.lvc").is_file()


def test_the_build_system_example_runs() -> None:
    example = next(text for text in blocks("extending.md", "python") if "lvc.Pipeline.parse" in text)
    names: dict[str, object] = {}
    exec(compile(example, "extending.md", "exec"), names)
    assert len(names["steps"]) == len(names["pipeline"])  # type: ignore[arg-type]
    assert names["artefact"].files  # type: ignore[attr-defined]


def test_the_picture_of_speed_shows_the_ratios_of_the_tables() -> None:
    """Both come of one run: the last column is what lvc's dots are, their numbers stand beside them."""
    if not DOCS.is_dir():
        pytest.skip("the documentation is not beside the installed wheel")
    text = (DOCS / "results.md").read_text()
    tables = text[text.index("### 1 thread") : text.index("### Build, size, memory")]
    ratios = re.findall(r"^\| .* \| \*\*(\d+\.\d\d)\*\* \|$", tables, re.MULTILINE)
    drawing = Drawing((DOCS / "speed.svg").read_bytes())
    assert len(ratios) == 26
    assert sorted(ratios) == sorted(text for text in drawing.texts if re.fullmatch(r"\d+\.\d\d", text))
    assert drawing.marks("dots-0-0") == drawing.marks("dots-1-0") == 13
