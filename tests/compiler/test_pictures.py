"""Pictures by what they contain: names, units, round ticks, one mark a value, where the value says."""

from __future__ import annotations

import math
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from svg_drawing import Drawing

from lvc.compiler.errors import UsageError
from lvc.compiler.measure.pictures.canvas import Head, check_drawable
from lvc.compiler.measure.pictures.curves import Curves
from lvc.compiler.measure.pictures.dots import Dots, Row
from lvc.compiler.measure.pictures.steps import Steps

HEAD = Head("What it shows", "How it is read")


def dots(*rows: Row, series: tuple[str, ...] = ("ours", "theirs"), panels: tuple[str, ...] = ("",)) -> Dots:
    return Dots(HEAD, "noise, dB", panels, rows, {name: f"the {name}" for name in series}, series[0], reference=1.0)


def curves(count: int) -> Curves:
    points = {f"layer{n}": [(0.25, n / 100), (0.5, n / 50)] for n in range(count)}
    return Curves(HEAD, "removed, %", "error, relative", "group", points, high_is_good=False)


def ticks(drawing: Drawing, within: float) -> list[float]:
    """The numbers beside the axes that are multiples of a step."""
    numbers = [float(text) for text in drawing.texts if text.replace(".", "", 1).isdecimal()]
    return [number for number in numbers if math.isclose(number / within, round(number / within), abs_tol=1e-9)]


def test_a_row_has_a_name_and_a_mark_for_each_value() -> None:
    picture = dots(Row("first", [{"ours": 1.5, "theirs": 1.0}]), Row("second", [{"ours": 0.5}]))
    drawing = Drawing(picture.render(".svg"))
    assert {"What it shows", "How it is read", "the ours", "the theirs", "noise, dB"} <= set(drawing.texts)
    assert {"first", "second", "1.5", "0.5"} <= set(drawing.texts)
    assert (drawing.marks("dots-0-0"), drawing.marks("dots-0-1")) == (2, 1)


def test_marks_lie_where_their_values_say() -> None:
    picture = dots(*(Row(str(value), [{"ours": value}]) for value in (0.5, 1.0, 1.5)))
    (x1, y1), (x2, y2), (x3, y3) = Drawing(picture.render(".svg")).places("dots-0-0")
    assert x3 - x2 == pytest.approx(x2 - x1, abs=1e-3)
    assert x2 - x1 > 50
    assert y1 < y2 < y3, "the first row is on top"


def test_a_value_holds_until_the_next() -> None:
    picture = Steps(HEAD, "minutes", "ms", [(0.0, 4.0), (1.0, 4.0), (3.0, 2.0)])
    drawing = Drawing(picture.render(".svg"))
    assert {"minutes", "ms", "2"} <= set(drawing.texts)
    assert picture.render(".png").startswith(b"\x89PNG")
    assert picture.render(".svg") == picture.render(".svg")


def test_panels_share_one_axis() -> None:
    picture = dots(Row("a", [{"ours": 1.0}, {"ours": 1.0}]), Row("b", [{"ours": 9.0}, {}]), panels=("left", "right"))
    drawing = Drawing(picture.render(".svg"))
    assert {"left", "right"} <= set(drawing.texts)
    ((one, _), (nine, _)), ((other, _),) = drawing.places("dots-0-0"), drawing.places("dots-1-0")
    assert nine < other, "panels stand side by side"
    assert drawing.texts.count("a") == 1
    assert one < nine


@pytest.mark.parametrize("values", [(0.0703, 0.252), (31.7, 44.13), (0.2, 1830.0)])
def test_ticks_are_round(values: tuple[float, float]) -> None:
    picture = Dots(HEAD, "", [""], [Row("x", [{"ours": value}]) for value in values], {"ours": ""}, "ours", digits=9)
    span = values[1] - values[0]
    step = 10 ** math.floor(math.log10(span)) / 20
    found = ticks(Drawing(picture.render(".svg")), step)
    assert 3 <= len(found) <= 9
    assert all(b - a == pytest.approx(found[1] - found[0]) for a, b in pairwise(found))


def test_values_beyond_all_numbers_are_hollow_at_the_edge_and_named() -> None:
    rows = [Row("a", [{"ours": math.inf}]), Row("b", [{"ours": -math.inf}]), Row("c", [{"ours": 20.0}])]
    picture = Dots(HEAD, "dB", [""], rows, {"ours": "ours"}, "ours", edges=("lost", "exact"))
    drawing = Drawing(picture.render(".svg"))
    assert {"exact", "lost", "20.0"} <= set(drawing.texts)
    (exact, _), (lost, _) = drawing.places("dots-0-0-edge")
    ((inside, _),) = drawing.places("dots-0-0")
    assert lost < inside < exact


def test_the_worst_curves_are_named_worst_first_and_the_others_counted() -> None:
    drawing = Drawing(curves(11).render(".svg"))
    named = [text for text in drawing.texts if text.startswith("layer")]
    assert named == [f"layer{number}" for number in range(10, 2, -1)]
    assert {"3 others", "group, worst first", "removed, %", "error, relative"} <= set(drawing.texts)
    assert len(drawing.series("curve-")) == 11
    assert drawing.marks("curve-0") == 2


def test_where_high_is_good_the_lowest_curve_is_the_worst() -> None:
    picture = Curves(HEAD, "", "", "group", {"a": [(0.5, 90.0)], "b": [(0.5, 10.0)]}, high_is_good=True)
    assert picture.worst_first() == ["b", "a"]


def test_nothing_to_draw_is_an_empty_picture() -> None:
    assert "How it is read" in Drawing(curves(0).render(".svg")).texts
    assert "the ours" in Drawing(dots().render(".svg")).texts


def test_names_are_written_as_they_are() -> None:
    names = ["$x^2$/conv_1", "<a> & 'b'", "模型/卷积", "x" * 200, "bell\a"]
    drawing = Drawing(dots(*(Row(name, [{"ours": 1.0}]) for name in names)).render(".svg"))
    assert {*names[:3], "bell?"} <= set(drawing.texts)
    assert max(map(len, drawing.texts)) < 60


@pytest.mark.parametrize("suffix", [".svg", ".png"])
def test_the_same_picture_has_the_same_bytes(suffix: str) -> None:
    assert curves(3).render(suffix) == curves(3).render(suffix)
    assert dots(Row("a", [{"ours": 1.0}])).render(suffix) == dots(Row("a", [{"ours": 1.0}])).render(suffix)


def test_svg_has_no_date_and_png_has_its_size() -> None:
    assert b"dc:date" not in curves(3).render(".svg")
    content = curves(3).render(".png")
    assert content.startswith(b"\x89PNG")
    assert int.from_bytes(content[16:20], "big") == 1200


def test_the_settings_of_the_program_around_neither_count_nor_change() -> None:
    import matplotlib

    plain = curves(3).render(".svg")
    with matplotlib.rc_context({"font.size": 30.0, "svg.fonttype": "path"}):
        before = dict(matplotlib.rcParams)
        assert curves(3).render(".svg") == plain
        assert dict(matplotlib.rcParams) == before


def test_drawing_opens_no_window() -> None:
    code = (
        "import sys; from lvc.compiler.measure.pictures.canvas import Head, render\n"
        "assert 'matplotlib' not in sys.modules\n"
        "render('.png', lambda figure: None)\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


def test_other_kinds_of_files_are_refused(tmp_path: Path) -> None:
    check_drawable(tmp_path / "a.svg")
    with pytest.raises(UsageError, match=r"cannot draw 'a\.pdf'") as caught:
        check_drawable(tmp_path / "a.pdf")
    assert caught.value.help == "end the name in .svg or .png"


def test_a_missing_library_is_told_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(UsageError, match="pictures need matplotlib") as caught:
        check_drawable(tmp_path / "a.svg")
    assert caught.value.help == "pip install matplotlib"
