"""Whatever the model: with another batch each image gets what it gets alone, or the call that mixes them is named."""

from __future__ import annotations

from batch_check import check
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from random_channels import models as channel_models
from random_models import Shape, Writer

from lvc.compiler.ir.batching.batching import BatchError
from lvc.compiler.ir.graph_text import parse_model
from lvc.compiler.ir.model import Model

FEW = settings(max_examples=25, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))


class Images(Writer):
    """Random models for one image, or two."""

    def __init__(self, draw: st.DrawFn) -> None:
        super().__init__(draw)
        self.shapes: dict[str, Shape] = {"x": (draw(st.integers(1, 2)), 4, 6, 6)}


@st.composite
def drawn(draw: st.DrawFn) -> Model:
    writer = Images(draw)
    for _ in range(draw(st.integers(1, 12))):
        writer.layer()
    return parse_model(writer.text())


def reason(model: Model, images: int) -> str:
    """Why a model does not take so many images; empty if it does."""
    try:
        model.with_batch(images)
    except BatchError as refusal:
        return f"{refusal}: {refusal.why}"
    return ""


@FEW
@given(drawn(), st.integers(1, 5))
def test_images_stay_apart_or_a_reason_is_given(model: Model, images: int) -> None:
    if why := reason(model, images):
        assert "permute(" in model.to_text(), why  # nothing else mixes them here
    else:
        check(model, images)


@FEW
@given(channel_models(), st.integers(1, 5))
def test_whatever_is_done_to_channels_images_stay_apart(model: Model, images: int) -> None:
    assert reason(model, images) == ""
    check(model, images)
