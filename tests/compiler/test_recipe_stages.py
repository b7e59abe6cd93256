"""A recipe is compiled stage by stage; what has not changed is not done again, and that changes nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recipe_files import RECIPE, images, write_folder

from lvc.compiler.cli import main
from lvc.compiler.container import read
from lvc.compiler.recipe import stages, store

Run = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recipe")
    write_folder(folder)
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of its own for each test, which is the working folder."""
    shutil.copytree(made, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


@pytest.fixture
def run(folder: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Compile the recipe with stages kept; return the report."""

    def compiled(*options: str, code: int = 0) -> dict[str, Any]:
        capsys.readouterr()
        arguments = ["compile", "--recipe", "r.toml", "--checkpoints", "kept", "-o", "net.out.lvc", "--json", *options]
        assert main(arguments) == code
        output = capsys.readouterr()
        found: dict[str, Any] = json.loads(output.out)
        return {**found, "talk": output.err}

    return compiled


def cached(report: dict[str, Any]) -> dict[str, bool]:
    return {stage["name"]: stage["cached"] for stage in report["stages"][1:-1]}


def reasons(report: dict[str, Any]) -> dict[str, str]:
    return {stage["name"]: stage["reason"] for stage in report["stages"][1:-1]}


def edit(text: str, other: str) -> None:
    assert text in RECIPE
    Path("r.toml").write_text(RECIPE.replace(text, other))


def test_the_report_has_a_line_for_each_stage(run: Run) -> None:
    report = run()
    loaded, prune, quantise, compiled = report["stages"]
    assert [line["name"] for line in report["stages"]] == ["as loaded", "prune", "quantise", "compiled"]
    assert loaded["score"] == 1.0  # the labels are what the network chose
    assert prune["macs"] < 0.81 * loaded["macs"]
    assert prune["bytes"] < loaded["bytes"]
    assert quantise["sqnr"] <= prune["sqnr"] < 60
    assert prune["seconds"] > 0
    assert 0.4 < compiled["score"] == quantise["score"] <= 1
    assert compiled["bytes"] == Path("net.out.lvc").stat().st_size
    assert [check["holds"] for check in report["checks"]] == [True]


def test_what_has_not_changed_is_not_done_again(run: Run) -> None:
    first = run()
    assert cached(first) == {"prune": False, "quantise": False}
    assert set(reasons(first).values()) == {"it was not finished before"}
    content = Path("net.out.lvc").read_bytes()
    again = run()
    assert cached(again) == {"prune": True, "quantise": True}
    assert Path("net.out.lvc").read_bytes() == content
    assert [line["seconds"] for line in again["stages"][:3]] == [line["seconds"] for line in first["stages"][:3]]
    assert [item["text"] for item in again["passes"]] == [item["text"] for item in first["passes"]]
    assert "no pass read" not in again["talk"]


def test_stages_that_are_kept_change_nothing(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    run()
    content = Path("net.out.lvc").read_bytes()
    assert main(["compile", "--recipe", "r.toml", "-o", "plain.lvc"]) == 0
    assert Path("plain.lvc").read_bytes() == content


def test_a_run_that_goes_on_in_the_middle_ends_the_same(run: Run) -> None:
    run()
    content = Path("net.out.lvc").read_bytes()
    next(Path("kept").glob("quantise-*")).unlink()
    report = run()
    assert cached(report) == {"prune": True, "quantise": False}
    assert Path("net.out.lvc").read_bytes() == content


def test_an_edited_stage_and_what_follows_run_again(run: Run) -> None:
    run()
    edit("calibrate{images=16}", "calibrate{images=8}")
    report = run()
    assert cached(report) == {"prune": True, "quantise": False}
    assert reasons(report)["quantise"] == "calibrate{images=16} is gone, calibrate{images=8} is new"
    edit("macs=0.8", "macs=0.6")
    report = run()
    assert cached(report) == {"prune": False, "quantise": False}
    assert reasons(report)["quantise"] == "the model that it starts from changed"
    Path("r.toml").write_text(RECIPE)
    assert all(cached(run()).values())  # both ways are kept


def test_a_stage_by_another_name_or_split_is_still_known(run: Run) -> None:
    run()
    edit('name = "prune"', 'name = "narrow"')
    assert cached(run()) == {"narrow": True, "quantise": True}


def test_an_edit_that_changes_no_model_stops_there(run: Run) -> None:
    run()
    edit("criterion=l1},O1", "criterion=l1},O1,O1")
    assert cached(run()) == {"prune": False, "quantise": True}


def test_data_count_by_their_content(run: Run, folder: Path) -> None:
    run()
    shutil.copy("calib.npz", "other.npz")
    edit('calib = "calib.npz"', 'calib = "other.npz"')
    assert all(cached(run()).values())
    np.savez("other.npz", x=images(40, 3))
    report = run()
    assert cached(report) == {"prune": False, "quantise": False}
    assert "the data set 'calib' changed" in reasons(report)["prune"]


def test_data_that_only_checks_read_run_no_stage_again(run: Run) -> None:
    before = run()
    with np.load("test.npz") as data:
        np.savez("test.npz", x=data["x"], y=(data["y"] + 1) % 4)
    after = run("--set", "checks.max-drop=100")
    assert all(cached(after).values())
    assert after["stages"][0]["score"] == 0.0 != before["stages"][0]["score"]


def test_weights_seed_and_version_count(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run()
    report = run("--seed", "5")
    assert reasons(report)["prune"] == "the seed changed from 0 to 5"
    monkeypatch.setattr(stages, "running_version", lambda: "lvc 9 with PyTorch 9")
    report = run()
    assert "and this is lvc 9 with PyTorch 9" in reasons(report)["prune"]
    monkeypatch.undo()
    monkeypatch.chdir(folder)
    model = read(Path("net.lvc"))
    (name,) = [name for name in model.files if name == "weights.bin"]
    changed = bytearray(model.files[name])
    changed[3] ^= 1
    from dataclasses import replace

    from lvc.compiler import container

    container.write(replace(model, files={**model.files, name: bytes(changed)}), Path("net.lvc"))
    assert reasons(run())["prune"] == "the model as it was loaded changed"


def test_explain_says_why_a_stage_ran(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    run()
    edit("calibrate{images=16}", "calibrate{images=8}")
    options = ["compile", "--recipe", "r.toml", "--checkpoints", "kept", "-o", "net.out.lvc"]
    assert main([*options, "--explain"]) == 0
    shown = capsys.readouterr().out
    assert "stage 'quantise' ran: calibrate{images=16} is gone, calibrate{images=8} is new" in shown
    assert "stage 'prune' ran" not in shown
    assert "cached" in shown


def damage_end(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-50])


def damage_middle(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 16
    path.write_bytes(content)


def damage_all(path: Path) -> None:
    path.write_bytes(b"not an artefact")


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [damage_end, damage_middle, damage_all, empty])
@pytest.mark.parametrize("stage", ["prune", "quantise"])
def test_a_damaged_file_is_noticed_and_made_anew(run: Run, damage: Callable[[Path], None], stage: str) -> None:
    run()
    content = Path("net.out.lvc").read_bytes()
    path = next(Path("kept").glob(f"{stage}-*"))
    damage(path)
    report = run()
    assert cached(report) == {"prune": stage != "prune", "quantise": stage != "quantise"}
    assert f"note: '{path}' is damaged" in report["talk"]
    assert "is damaged" in reasons(report)[stage]
    assert Path("net.out.lvc").read_bytes() == content
    assert all(cached(run()).values())


def test_a_damaged_measurement_is_made_anew(run: Run) -> None:
    first = run()
    for path, content in zip(sorted(Path("kept").glob("measured-*")), (b"", b"{}", b'{"of": 1'), strict=False):
        path.write_bytes(content)
    again = run()
    assert "measured again" in again["talk"]
    assert [line["score"] for line in again["stages"]] == [line["score"] for line in first["stages"]]


def test_a_changed_measurement_is_noticed(run: Run) -> None:
    first = run()
    path = next(path for path in Path("kept").glob("measured-*") if '"score": 1.0' in path.read_text())
    path.write_text(path.read_text().replace('"score": 1.0', '"score": 0.5'))
    again = run()
    assert "is damaged" in again["talk"]
    assert [line["score"] for line in again["stages"]] == [line["score"] for line in first["stages"]]


def test_kept_stages_are_model_files(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    run()
    capsys.readouterr()
    path = next(Path("kept").glob("prune-*"))
    assert main(["eval", str(path), "--data", "test.npz", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["labelled"] == 30


def test_a_folder_that_cannot_hold_stages_is_wrong_usage(run: Run) -> None:
    Path("kept").write_text("a file")
    assert "cannot be a folder of checkpoints" in run(code=2)["error"]


def test_nothing_is_read_back_that_another_version_wrote(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run()
    monkeypatch.setattr(store, "running_version", lambda: "lvc 9")
    monkeypatch.setattr(stages, "running_version", lambda: "lvc 9")
    assert not any(cached(run()).values())
