from __future__ import annotations

import dataclasses
import json
import math

import pytest
from svg_drawing import Drawing

from lvc.compiler.bench.suite import IN_FLOAT, Built, Entry, Speed, engines_of, geometric_mean, threads_of
from lvc.compiler.bench.suite_picture import speed_picture
from lvc.compiler.bench.suite_table import markdown


def entry(model: str, ours: float, *, two: float | None = None) -> Entry:
    runs = {1: {"lvc": Speed(ours, 2 * ours), "fast": Speed(2.0, 2.5), "slow": Speed(8.0, 9.0)}}
    if two:
        runs[2] = {"lvc": Speed(two, two), "fast": Speed(1.0, 1.0)}
    return Entry(model, "x: f32[1,3,8,8]", Built(3.0, 0.5, 1100, 1000, 240, 200), 1e-6, runs)


def test_ratios_are_the_peers_time_over_ours() -> None:
    one = entry("a", 4.0, two=2.5)
    assert one.ratio(1) == 0.5
    assert one.ratio(1, "slow") == 2.0
    assert one.ratio(2) == 0.4
    assert one.scaling(2) == 1.6


def test_an_entry_survives_json() -> None:
    one = entry("a", 4.0, two=2.5)
    assert Entry.from_json(json.loads(json.dumps(one.to_json()))) == one


def test_geometric_mean() -> None:
    assert geometric_mean([0.5, 2.0]) == pytest.approx(1.0)
    assert math.isnan(geometric_mean([]))


def test_engines_and_threads_of_all_entries() -> None:
    entries = [entry("a", 1.0), entry("b", 1.0, two=1.0)]
    assert engines_of(entries, 1) == ["lvc", "fast", "slow"]
    assert engines_of(entries, 2) == ["lvc", "fast"]
    assert threads_of(entries) == [1, 2]


def test_the_table_shows_times_ratios_and_means() -> None:
    text = markdown([entry("a", 1.0), entry("b", 4.0)], "Suite", ["a fact"])
    lines = text.splitlines()
    assert lines[:3] == ["## Suite", "", "- a fact"]
    row = next(line for line in lines if line.startswith("| a | 1000.00 / 2000.00"))
    assert row.endswith("| 2.00 | 8.00 | **2.00** |")
    assert "| geometric mean |  |  |  | 1.00 | 4.00 | **1.00** |" in lines
    assert "| a | x: f32[1,3,8,8] | 3.0 | 0.50 | 0.00 | 1.100 | 0.00 | 1.20 | 1.0e-06 |" in lines


def test_a_peer_that_did_not_run_leaves_a_gap() -> None:
    alone = Entry("b", "x", entry("b", 1.0).built, 0.0, {1: {"lvc": Speed(1.0, 1.0), "fast": Speed(0.5, 0.5)}})
    text = markdown([entry("a", 1.0), alone], "Suite", [])
    assert "| b | 1000.00 / 1000.00 | 500.00 / 500.00 |  | 0.50 |  | **0.50** |" in text.splitlines()


def test_a_build_in_8_bits_is_shown_beside_the_one_in_floating_point() -> None:
    plain = entry("a", 1.0)
    runs = {1: {**plain.runs[1], IN_FLOAT: Speed(1.5, 1.5)}}
    one = dataclasses.replace(plain, built=dataclasses.replace(plain.built, float_bytes=4400), runs=runs)
    assert one.ratio(1) == 2.0, "it is no peer"
    assert one.ratio(1, IN_FLOAT) == 1.5
    lines = markdown([one], "Suite", []).splitlines()
    assert "| a | x: f32[1,3,8,8] | 3.0 | 0.50 | 0.00 | 1.100 | 0.250 | 0.00 | 1.20 | 1.0e-06 |" in lines
    assert Entry.from_json(json.loads(json.dumps(one.to_json()))) == one


def test_the_picture_has_the_worst_model_first_and_the_mean_last() -> None:
    picture = speed_picture([entry("a", 1.0), entry("b", 4.0, two=2.0)], "Two cores.")
    assert [row.name for row in picture.rows] == ["b", "a", "geometric mean"]
    assert [row.panels[0]["lvc"] for row in picture.rows] == [0.5, 2.0, pytest.approx(1.0)]
    assert picture.rows[0].panels[0] == {"lvc": 0.5, "fast": 1.0, "slow": 0.25}
    assert [dict(row.panels[1]) for row in picture.rows] == [{"lvc": 0.5, "fast": 1.0}, {}, {"lvc": 0.5, "fast": 1.0}]
    drawing = Drawing(picture.render(".svg"))
    assert {"1 thread", "2 threads", "speed, the fastest other engine = 1", "lvc", "slow"} <= set(drawing.texts)
    assert drawing.texts.count("0.50") == 3
    assert drawing.marks("dots-0-2") == 3, "the third engine on one thread"


def test_a_model_without_a_peer_is_not_in_the_picture() -> None:
    alone = Entry("b", "x", entry("b", 1.0).built, 0.0, {1: {"lvc": Speed(1.0, 1.0)}})
    assert [row.name for row in speed_picture([alone, entry("a", 1.0)], "").rows] == ["a", "geometric mean"]
    assert b"geometric mean" in speed_picture([alone], "").render(".svg")
