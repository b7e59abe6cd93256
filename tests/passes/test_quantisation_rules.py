"""What runs in integers: every operator has a role, or a reason why it stays in floating point."""

from __future__ import annotations

from lvc.compiler.ir.dialect import OPS, Family
from lvc.compiler.ir.graph import calls
from lvc.compiler.ir.graph_text import parse_model
from lvc.passes.quantisation.floating_point import FLOATING_POINT
from lvc.passes.quantisation.rules import ROLES, refusal


def test_every_operator_has_a_role_or_a_reason_for_none() -> None:
    asked = {
        op.name
        for overload, op in OPS.items()
        if op.family in (Family.ORDERING, Family.RESAMPLING)
        or (overload.namespace == "aten" and op.family is not Family.QUANTISATION)
    }
    given = [OPS[overload].name for overload in (*ROLES, *FLOATING_POINT)]
    assert sorted(asked) == sorted(given)


def test_a_sampled_image_stays_in_floating_point() -> None:
    model = parse_model(
        "model m(x: f32[1,2,4,4], g: f32[1,3,3,2])\n%y = grid_sampler_2d(%x, %g, 0, 0, False)\nreturn y=%y"
    )
    (node,) = calls(model.module.graph)
    assert refusal(node) == (
        "there is no integer kernel for grid_sampler_2d: "
        "it reads an image at computed places, and 8 bits are too coarse for those"
    )
