"""The written form of a pipeline: what is written is read back, and every mistake is shown where it is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lvc.compiler.errors import UsageError
from lvc.compiler.ir.model import Model
from lvc.compiler.pipeline import catalogue
from lvc.compiler.pipeline.passes import Effect, Outcome, Pass, option
from lvc.compiler.pipeline.pipeline import Pipeline
from lvc.compiler.pipeline.text import parse_passes
from lvc.compiler.pipeline.workspace import Workspace


@dataclass(frozen=True, kw_only=True)
class Everything(Pass):
    """Have an option of every kind."""

    name: ClassVar[str] = "do-everything"
    effect: ClassVar[Effect] = Effect.EXACT

    flag: bool = option(False, "a flag")
    count: int = option(1, "a number")
    share: float = option(0.5, "a fraction")
    text: str = option("", "any text")
    way: Literal["taylor", "l1"] = option("taylor", "a choice")
    maybe: float | None = option(None, "a number, or none")
    names: tuple[str, ...] = option((), "several names")

    def __post_init__(self) -> None:
        if self.count < 0:
            raise UsageError("count must not be negative")

    def apply(self, model: Model, workspace: Workspace) -> Outcome:
        return Outcome()


WORD = st.text("abc.-_0123456789", min_size=1)
PASSES = st.builds(
    Everything,
    flag=st.booleans(),
    count=st.integers(min_value=0),
    share=st.floats(allow_nan=False),
    text=st.text(),
    way=st.sampled_from(["taylor", "l1"]),
    maybe=st.none() | st.floats(allow_nan=False),
    names=st.lists(WORD).map(tuple),
)


@given(st.lists(PASSES))
def test_what_is_written_is_read_back(passes: list[Everything]) -> None:
    text = ",".join(map(str, passes))
    assert parse_passes(text, [Everything]) == tuple(passes)


def test_defaults_are_not_written() -> None:
    assert str(Everything(share=0.5, maybe=None)) == "do-everything"
    assert str(Everything(share=0.25, names=("a", "b"))) == "do-everything{share=0.25 names=a,b}"


def test_spaces_dashes_and_quotes() -> None:
    (item,) = parse_passes(' do-everything{ text="a \\"b\\" {c}" maybe=inf } ', [Everything])
    assert isinstance(item, Everything)
    assert (item.text, item.maybe) == ('a "b" {c}', math.inf)


@pytest.mark.parametrize("name", sorted(catalogue.PRESETS))
def test_presets_are_read(name: str) -> None:
    pipeline = Pipeline.parse(name)
    assert Pipeline.parse(str(pipeline)) == pipeline


@pytest.mark.parametrize("name", catalogue.PASSES.names())
def test_every_pass_is_read_and_documented(name: str) -> None:
    (item,) = Pipeline.parse(name)
    assert Pipeline.parse(str(item)) == Pipeline((item,))
    assert len(type(item).summary()) > 10
    assert all(field.metadata["help"] for field in type(item).options())


@pytest.mark.parametrize(
    ("text", "what", "caret", "help"),
    [
        ("fold-batchnorm", "there is no pass 'fold-batchnorm'", "^" * 14, "did you mean 'fold-batch-norm'?"),
        ("O2,do-it", "there is no pass 'do-it'", "   ^^^^^", "known: "),
        ("do-everything{shar=1}", "do-everything has no option 'shar'", " " * 14 + "^^^^", "did you mean 'share'?"),
        ("do-everything{count=two}", "option 'count' must be an integer, not 'two'", " " * 20 + "^^^", ""),
        ("do-everything{flag=yes}", "option 'flag' must be true or false, not 'yes'", " " * 19 + "^^^", ""),
        ("do-everything{way=l2}", "option 'way' must be one of taylor, l1, not 'l2'", " " * 18 + "^^", ""),
        ("do-everything{count=1 count=2}", "option 'count' is given twice", " " * 22 + "^^^^^", ""),
        ("do-everything{count=-1}", "do-everything: count must not be negative", "^" * 23, ""),
        ("do-everything{count=1", "are not closed", " " * 21 + "^", ""),
        ('do-everything{text="a}', "the quote is not closed", " " * 19 + "^", ""),
        ("O2{count=1}", "the preset 'O2' takes no options", "  ^", ""),
        ("O2 O1", "expected ','", "   ^", ""),
        ("O2,", "a pass is missing after the comma", "   ^", ""),
        (",O2", "expected the name of a pass", "^", ""),
    ],
)
def test_mistakes(text: str, what: str, caret: str, help: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_passes(text, [Everything])
    assert what in caught.value.what
    assert caught.value.why == f"{text}\n{caret}"
    assert caught.value.help.startswith(help)
