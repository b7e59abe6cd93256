"""What a pass says about the outputs that it moved."""

from __future__ import annotations

import math

from calibration_data import normal

from lvc.compiler.ir.graph_text import parse_model
from lvc.compiler.measure.comparison.loss import OutputLoss
from lvc.compiler.measure.comparison.verdict import note_errors
from lvc.compiler.pipeline.passes import Outcome
from lvc.compiler.pipeline.pipeline import Pipeline


def error(name: str, sqnr: float, lost: float = 0.0, damaged: float = 0.0) -> OutputLoss:
    return OutputLoss(name, sqnr, None, lost, damaged)


def said(*errors: OutputLoss, before: tuple[OutputLoss, ...] = ()) -> list[str]:
    outcome = Outcome()
    note_errors(errors, 16, outcome, before)
    assert [row[0] for table in outcome.tables for row in table.rows] == [error.name for error in errors]
    return outcome.notes


def test_the_worst_output_stands_first() -> None:
    notes = said(error("a", 40.0), error("b", 30.0), error("c", 50.0, damaged=0.6), error("d", 45.0, lost=0.75))
    assert [note.split("'")[1] for note in notes] == ["d", "c", "b", "a"]
    assert notes[0].startswith("COLLAPSED: 'd': 45.0 dB; in 75 % of its places")
    assert notes[1].startswith("DAMAGED: 'c': 50.0 dB; in 60 % of its places")
    assert notes[2] == "output 'b': 30.0 dB over 16 images"


def test_few_decibels_are_said_to_be_damage() -> None:
    (note,) = said(error("a", 9.3, damaged=0.1))
    assert note.startswith("DAMAGED: 'a': 9.3 dB; below 10 dB its error has more than a tenth of its power. Evaluate")
    assert said(error("a", 10.0, damaged=0.1)) == ["output 'a': 10.0 dB over 16 images"]


def test_a_later_pass_says_that_it_mended_an_output() -> None:
    before = (error("a", 39.3, lost=1.0), error("b", 41.0, damaged=1.0), error("c", 20.0, lost=1.0))
    notes = said(error("a", 65.6), error("b", 64.0), error("c", 21.0, lost=1.0), before=before)
    assert notes[0].startswith("COLLAPSED: 'c': 21.0 dB, 20.0 dB before; in 100 % of its places")
    assert notes[1:] == [
        "output 'b': 64.0 dB over 16 images, 41.0 dB before; no longer damaged",
        "output 'a': 65.6 dB over 16 images, 39.3 dB before; no longer collapsed",
    ]


def test_many_outputs_that_are_well_share_a_line() -> None:
    notes = said(*(error(f"o{place}", 30.0 + place) for place in range(12)))
    assert notes[2:] == ["output 'o2': 32.0 dB over 16 images", "9 more outputs: 33.0 dB and above"]
    assert len(said(*(error(f"o{place}", 30.0) for place in range(4)))) == 4


def test_no_collapse_hides_among_many_outputs() -> None:
    bad = [error(f"bad{place}", -math.inf) for place in range(7)]
    notes = said(*bad, error("fine", 40.0), error("good", 50.0))
    assert sum(note.startswith("COLLAPSED") for note in notes) == 7
    assert notes[7:] == ["2 more outputs: 40.0 dB and above"]


def test_correct_bias_tells_of_every_output() -> None:
    model = parse_model("""
        model two(x: f32[1,2,4,4])
          @w : f32[3,2,1,1]
          @v : f32[4,2,1,1]
          %y = conv2d(%x, @w)
          %z = conv2d(%x, @v)
          return first=%y, second=%z
    """)
    _, steps = Pipeline.parse("insert-fake-quant,calibrate,correct-bias").run(model, normal(model, 8))
    kept, *notes = steps[-1].outcome.notes
    assert kept.startswith("kept ")
    assert {note.split("'")[1] for note in notes} == {"first", "second"}
    assert all(note.endswith(" dB before") for note in notes)
