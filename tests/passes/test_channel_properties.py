"""Whatever the model and whatever goes: removed channels equal zeroed ones, twice in a row, and the signature stays."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from random_channels import models

from lvc.compiler.ir.model import Model
from lvc.compiler.ir.verify import verify
from lvc.passes.analysis.channel_groups import channel_groups
from lvc.passes.analysis.channels.masking import check_removal
from lvc.passes.analysis.channels.surgery import remove


@settings(max_examples=40)
@given(models(), st.data())
def test_removing_equals_zeroing(model: Model, data: st.DataObject) -> None:
    for _ in range(2):
        channels = channel_groups(model)
        removal = {}
        for group in channels.free:
            gone = st.sets(st.integers(0, group.size - 1), max_size=group.size - 1)
            removal[group.name] = sorted(data.draw(gone, label=group.name))
        after = model.copy()
        remove(after, channels, removal)
        verify(after)
        check_removal(model, after, channels, removal)
        model = after


@settings(max_examples=40)
@given(models())
def test_every_unit_is_in_every_member_of_its_group(model: Model) -> None:
    channels = channel_groups(model)
    assert len({group.name for group in channels}) == len(channels.groups)
    for group in channels:
        assert group.producers
        for place in (*group.members, *group.carriers):
            assert set(place.units.tolist()) - {-1} <= set(range(group.size))
        for member in group.members:
            assert set(member.units.tolist()) - {-1} == set(range(group.size))
