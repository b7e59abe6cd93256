"""Stages are known by the content of what they use, wherever it lies."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from small_models import shades

from lvc.compiler.pipeline.pipeline import Pipeline
from lvc.compiler.recipe import digests
from lvc.compiler.recipe.store import Needs

NEEDS = Needs("original", "model", ("a", "b"), "", "lvc 1", 0, {"calib": "a", "judge": "b"}, "native")


def test_a_folder_of_images_counts_by_names_and_bytes(tmp_path: Path) -> None:
    folder = tmp_path / "one" / "cats"
    folder.mkdir(parents=True)
    (folder / "a.png").write_bytes(b"a")
    (folder / "b.png").write_bytes(b"b")
    known = digests.of_data(str(tmp_path / "one"))
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    assert digests.of_data(str(tmp_path / "two")) == known
    assert digests.of_data(str(tmp_path / "two"), "resize=8") != known
    (tmp_path / "two" / "cats" / "b.png").write_bytes(b"c")
    assert digests.of_data(str(tmp_path / "two")) != known
    (folder / "b.png").rename(folder / "c.png")
    assert digests.of_data(str(tmp_path / "one")) != known


def test_a_callable_counts_by_the_file_that_defines_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "images.py"
    file.write_text("def train(): return []\n")
    known = digests.of_data(f"{file}:train")
    assert digests.of_data(f"{file}:test") != known
    file.write_text("def train(): return [1]\n")
    assert digests.of_data(f"{file}:train") != known


def test_files_that_options_name_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert digests.of_files(Pipeline.parse("prune-channels{macs=0.5}")) == ""
    file = tmp_path / "mine.py"
    file.write_text("def function(outputs, labels): return outputs.sum()\n")
    passes = Pipeline.parse("O1,finetune{loss=mine.py:function}")
    known = digests.of_files(passes)
    assert known
    file.write_text("def function(outputs, labels): return outputs.mean()\n")
    assert digests.of_files(passes) != known
    assert digests.of_files((), [str(file)])


def test_a_model_counts_by_graph_and_weights_and_not_by_its_place() -> None:
    model = shades()
    known = digests.of_model(model)
    moved = model.copy()
    moved.source = "elsewhere"
    assert digests.of_model(moved) == known
    next(moved.module.parameters()).data[0] += 1
    assert digests.of_model(moved) != known


def test_what_ran_serves_where_all_that_it_used_is_the_same() -> None:
    used = replace(NEEDS, data={"calib": "a"}, target="")
    assert used.serve(NEEDS)
    assert used.serve(replace(NEEDS, data={"calib": "a", "judge": "other"}, target="x86-64-v2"))
    assert not used.serve(replace(NEEDS, data={"calib": "other"}))
    assert not used.serve(replace(NEEDS, data={}))
    assert not replace(used, target="native").serve(replace(NEEDS, target="x86-64-v2"))
    for change in (
        {"original": "x"},
        {"model": "x"},
        {"passes": ("b", "a")},
        {"files": "x"},
        {"version": "x"},
        {"seed": 1},
    ):
        now = replace(NEEDS, **change)
        assert not used.serve(now)
        assert len(used.changes(now)) == 1
