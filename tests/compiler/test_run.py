"""`lvc run`: photographs and arrays in, classes or summaries out."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_models import build, convolutions, shades

from lvc.compiler import container
from lvc.compiler.cli import main

LABELS = ("black", "one", "two", "three", "four", "five")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A labelled classifier of batch 1, one of batch 2, and a model of two outputs."""
    folder = tmp_path_factory.mktemp("run")
    for name, batch in (("one", 1), ("two", 2)):
        model = shades(batch=batch)
        model.labels, model.preprocessing = LABELS, "resize=8x8,range=255"
        build(model, folder / f"{name}.lvc")
    build(convolutions(), folder / "pair.lvc")
    return folder


@pytest.fixture
def photos(tmp_path: Path) -> list[str]:
    """Three photographs whose shades are 2, 0 and 4."""
    paths = []
    for shade in (2, 0, 4):
        path = tmp_path / f"photo{shade}.png"
        Image.new("RGB", (20, 10), (shade,) * 3).save(path)
        paths.append(str(path))
    return paths


def lvc_run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(["run", *arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_photograph_gets_labels(capsys: pytest.CaptureFixture[str], models: Path, photos: list[str]) -> None:
    code, out, _ = lvc_run(capsys, str(models / "one.lvc"), photos[0])
    assert code == 0
    header, first, *others = out.splitlines()
    assert header.split() == ["probability", "class", photos[0]]
    share = 1 / (1 + 2 * np.exp(-1) + 2 * np.exp(-4) + np.exp(-9))
    assert first.split() == [f"{share * 100:.2f}", "%", "2", "two"]
    assert len(others) == 4


@pytest.mark.parametrize("model", ["one", "two"])
def test_several_photographs_fill_batches(
    capsys: pytest.CaptureFixture[str], models: Path, photos: list[str], model: str
) -> None:
    code, out, _ = lvc_run(capsys, str(models / f"{model}.lvc"), *photos, "--json", "--top", "1")
    assert code == 0
    results = json.loads(out)["results"]
    assert [result["input"] for result in results] == photos
    assert [result["top"][0]["label"] for result in results] == ["two", "black", "four"]
    assert all(len(result["top"]) == 1 for result in results)


def test_outputs_are_written_without_padding(
    capsys: pytest.CaptureFixture[str], models: Path, photos: list[str], tmp_path: Path
) -> None:
    code, _, err = lvc_run(capsys, str(models / "two.lvc"), *photos, "-o", str(tmp_path / "out.npz"))
    assert code == 0
    assert "out.npz" in err
    with np.load(tmp_path / "out.npz") as written:
        assert written["output"].shape == (3, 6)
        assert written["output"].argmax(axis=1).tolist() == [2, 0, 4]


@pytest.mark.parametrize("name", ["file", "allow_pickle", "a/b"])
def test_outputs_are_written_whatever_they_are_called(
    capsys: pytest.CaptureFixture[str], photos: list[str], tmp_path: Path, name: str
) -> None:
    artefact = build(shades())
    (output,) = artefact.outputs
    renamed = dataclasses.replace(artefact, outputs=(dataclasses.replace(output, name=name),))
    container.write(renamed, tmp_path / "a.lvc")
    command = [str(tmp_path / "a.lvc"), photos[0], "--preprocess", "resize=8x8", "-o", str(tmp_path / "out.npz")]
    assert lvc_run(capsys, *command)[0] == 0
    with np.load(tmp_path / "out.npz") as written:
        assert written[name].shape == (1, 6)


def test_an_error_that_quotes_a_file_cannot_steer_the_terminal(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    container.write(dataclasses.replace(build(shades()), backend="\x1b[2J"), tmp_path / "a.lvc")
    code, _, err = lvc_run(capsys, str(tmp_path / "a.lvc"))
    assert code == 2
    assert "?[2J" in err
    assert "\x1b" not in err


def test_options_replace_the_stored_preprocessing(
    capsys: pytest.CaptureFixture[str], models: Path, photos: list[str]
) -> None:
    _, out, _ = lvc_run(capsys, str(models / "one.lvc"), photos[2], "--preprocess", "resize=8x8", "--json")
    assert json.loads(out)["results"][0]["top"][0]["label"] == "black"


def test_other_outputs_are_summarised(capsys: pytest.CaptureFixture[str], models: Path, tmp_path: Path) -> None:
    array = np.random.default_rng(0).standard_normal((1, 4, 16, 16)).astype(np.float32)
    np.save(tmp_path / "in.npy", array)
    wanted = convolutions()(array)
    code, out, _ = lvc_run(capsys, str(models / "pair.lvc"), str(tmp_path / "in.npy"), "--json")
    assert code == 0
    outputs = json.loads(out)["results"][0]["outputs"]
    assert [item["name"] for item in outputs] == ["output_0", "output_1"]
    for item, part in zip(outputs, wanted, strict=True):
        assert item["spec"] == "f32[1,6,16,16]"
        assert item["max"] == pytest.approx(part.max(), rel=1e-4)
        assert item["mean"] == pytest.approx(part.mean(), abs=1e-4)
    _, out, _ = lvc_run(capsys, str(models / "pair.lvc"), str(tmp_path / "in.npy"))
    assert "f32[1,6,16,16]" in out


def test_npz_inputs_are_matched_by_name(capsys: pytest.CaptureFixture[str], models: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "in.npz", image=np.full((1, 3, 8, 8), 3, np.float64))
    code, out, _ = lvc_run(capsys, str(models / "one.lvc"), str(tmp_path / "in.npz"), "--json")
    assert code == 0
    assert json.loads(out)["results"][0]["top"][0]["index"] == 3


def test_every_row_of_an_array_is_shown(capsys: pytest.CaptureFixture[str], models: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "in.npy", np.stack([np.full((3, 8, 8), shade, np.float32) for shade in (5, 1)]))
    _, out, _ = lvc_run(capsys, str(models / "two.lvc"), str(tmp_path / "in.npy"), "--json")
    assert [result["top"][0]["label"] for result in json.loads(out)["results"]] == ["five", "one"]


def test_without_input_it_runs_on_seeded_numbers(capsys: pytest.CaptureFixture[str], models: Path) -> None:
    code, out, err = lvc_run(capsys, str(models / "one.lvc"), "--seed", "3")
    again = lvc_run(capsys, str(models / "one.lvc"), "--seed", "3")
    assert code == 0
    assert "random numbers of seed 3" in err
    assert out == again[1]


@pytest.mark.parametrize("seed", ["-1", "1.5", "x", "", "18446744073709551616", "9" * 5000])
def test_a_seed_that_is_none_is_an_error(capsys: pytest.CaptureFixture[str], models: Path, seed: str) -> None:
    code, _, err = lvc_run(capsys, str(models / "one.lvc"), f"--seed={seed}")
    assert code == 2
    assert "is not an integer from 0 to" in err
    assert lvc_run(capsys, str(models / "one.lvc"), "--seed=18446744073709551615")[0] == 0


def test_labels_of_another_length_are_not_used(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    artefact = build(shades())
    container.write(dataclasses.replace(artefact, metadata={"labels": ["only"]}), tmp_path / "a.lvc")
    code, out, _ = lvc_run(capsys, str(tmp_path / "a.lvc"), "--json")
    assert code == 0
    assert json.loads(out)["results"][0]["top"][0]["label"] is None


@pytest.mark.parametrize(
    ("model", "file", "message"),
    [
        ("one.lvc", "absent.png", "cannot read"),
        ("one.lvc", "absent.npy", "there is no file"),
        ("one.lvc", "notes.txt", "is not an input"),
        ("one.lvc", "broken.jpg", "cannot be decoded"),
        ("one.lvc", "small.npy", "the array is 1x3x4x4, and input 'image' takes 1x3x8x8"),
        (
            "one.lvc",
            "large.npy",
            "holds float64 1e+39, and input 'image' takes float32, which cannot hold it",
        ),
        ("one.lvc", "two.npz", "holds 2 array(s)"),
        ("pair.lvc", "fine.png", "nothing says how to prepare"),
        ("absent.lvc", "fine.png", "absent.lvc"),
    ],
)
def test_mistakes_end_in_one_error(
    capsys: pytest.CaptureFixture[str], models: Path, tmp_path: Path, *, model: str, file: str, message: str
) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    Image.new("RGB", (8, 8)).save(tmp_path / "fine.png")
    np.save(tmp_path / "small.npy", np.zeros((1, 3, 4, 4), np.float32))
    np.save(tmp_path / "large.npy", np.full((1, 3, 8, 8), 1e39))
    np.savez(tmp_path / "two.npz", image=np.zeros((1, 3, 8, 8)), other=np.zeros(1))
    code, out, err = lvc_run(capsys, str(models / model), str(tmp_path / file), "-o", str(tmp_path / "out.npz"))
    assert code == 2
    assert message in err
    assert err.count("error:") == 1
    assert not out
    assert not (tmp_path / "out.npz").exists()
