from __future__ import annotations

import dataclasses
import json
import math
from xml.etree import ElementTree

import pytest

from lvc.compiler.bench.chart import Panel, bar_chart
from lvc.compiler.bench.suite import IN_FLOAT, Built, Entry, Speed, engines_of, geometric_mean, threads_of
from lvc.compiler.bench.suite_table import markdown

SVG = "{http://www.w3.org/2000/svg}"


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


def test_bars_are_as_high_as_their_values() -> None:
    groups = {"first & last": {"ours": 1.5, "theirs": 1.0}, "other": {"ours": 0.5}}
    root = ElementTree.fromstring(bar_chart("Title", "below", [Panel("1 thread", groups)]))
    heights = {}
    for bar in root.iter(f"{SVG}rect"):
        if (title := bar.find(f"{SVG}title")) is not None:
            heights[title.text] = float(bar.attrib["height"])
    assert set(heights) == {"first & last, ours: 1.50", "first & last, theirs: 1.00", "other, ours: 0.50"}
    unit = heights["first & last, theirs: 1.00"]
    assert heights["first & last, ours: 1.50"] == pytest.approx(1.5 * unit, abs=0.2)
    assert heights["other, ours: 0.50"] == pytest.approx(0.5 * unit, abs=0.2)
    texts = [text.text for text in root.iter(f"{SVG}text")]
    assert {"Title", "1 thread", "first & last", "1.50", "0.50"} <= set(texts)
    assert "1.00" not in texts
