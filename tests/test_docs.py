"""The code that the documentation shows runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from svg_drawing import Drawing

from lvc.compiler.cli import main

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
