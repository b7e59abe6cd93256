"""Numbers and tables as lvc prints them."""

from __future__ import annotations

import pytest

from lvc.compiler.text import counted, duration, percent, printable, shape, si, table


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0, "B", "0 B"),
        (999, "B", "999 B"),
        (1000, "B", "1.00 kB"),
        (999_999, "B", "1.00 MB"),
        (1.814e9, "MACs", "1.81 GMACs"),
        (46_796_448, "B", "46.8 MB"),
        (-0.0005, "s", "-500 µs"),
        (0.0347, "s", "34.7 ms"),
        (1234567, "", "1.23 M"),
        (float("inf"), "s", "inf s"),
    ],
)
def test_si(value: float, unit: str, text: str) -> None:
    assert si(value, unit) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(812e-6, "812 µs"), (2.31, "2.31 s"), (192, "3 min 12 s"), (7980, "2 h 13 min")]
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_table_aligns_columns_and_leaves_no_trailing_space() -> None:
    assert table(("layer", "ms"), [("a", 1), ("longer", 22)], "lr") == "layer   ms\na        1\nlonger  22"


def test_last_letter_of_the_alignment_repeats() -> None:
    assert table(("a", "bb", "cc"), [(1, 2, 3)], "lr") == "a  bb  cc\n1   2   3"


def test_cells_cannot_steer_the_terminal() -> None:
    assert "\x1b" not in table(("a",), [("\x1b[31mred\n",)])
    assert printable("tench\x07") == "tench?"


def test_shape() -> None:
    assert shape((1, 3, 224, 224)) == "1x3x224x224"
    assert shape(()) == "scalar"


def test_shares_and_counts() -> None:
    assert (percent(0.8214), percent(1.0), percent(0.99946, 2)) == ("82.1 %", "100.0 %", "99.95 %")
    assert (counted(0, "layer"), counted(1, "layer"), counted(2, "layer")) == ("0 layers", "1 layer", "2 layers")
