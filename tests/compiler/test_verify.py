"""The verifier catches each way in which a graph can break the rules, and names the node."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import torch
from torch.fx import Node

from lvc.compiler.errors import CompileError
from lvc.compiler.ir.graph import arguments, set_argument, store
from lvc.compiler.ir.graph_text import parse_model
from lvc.compiler.ir.model import Model
from lvc.compiler.ir.spec import TensorSpec
from lvc.compiler.ir.verify import picture, verify

TEXT = """model small(x: f32[2,3])
  @w : f32[3]
  %y = mul(%x, @w) : f32[2,3]  group=y
  %z = relu(%y) : f32[2,3]  group=y
  %t = permute(%z, [1, 0]) : f32[3,2]
  return out=%t
"""


def node(model: Model, name: str) -> Node:
    return next(n for n in model.module.graph.nodes if n.name == name)


def wrong_shape(model: Model) -> None:
    node(model, "t").meta["spec"] = TensorSpec((2, 3))


def wrong_type(model: Model) -> None:
    store(model.module, "w", torch.zeros(3, dtype=torch.float64))


def no_spec(model: Model) -> None:
    del node(model, "y").meta["spec"]


def input_without_spec(model: Model) -> None:
    del node(model, "x").meta["spec"]


def foreign_operator(model: Model) -> None:
    node(model, "z").target = torch.ops.aten.relu_.default


def impossible_operands(model: Model) -> None:
    node(model, "t").args = (node(model, "z"), [0, 0])


def two_nodes_for_a_weight(model: Model) -> None:
    with model.module.graph.inserting_before(node(model, "z")):
        twin = model.module.graph.create_node("get_attr", "w")
    twin.meta["spec"] = TensorSpec((3,))


def output_without_name(model: Model) -> None:
    model.output_names = ("a", "b")


def used_before_it_is_made(model: Model) -> None:
    node(model, "z").args = (node(model, "t"),)


def python_function(model: Model) -> None:
    node(model, "z").target = torch.relu


def group_read_from_outside(model: Model) -> None:
    node(model, "t").args = (node(model, "y"), [1, 0])
    model.module.graph.output_node().args = ((node(model, "t"), node(model, "z")),)
    model.output_names = ("out", "z")


def argument_with_one_value(model: Model) -> None:
    node(model, "z").target = torch.ops.aten.dropout.default
    node(model, "z").args = (node(model, "y"), 0.5, True)


@pytest.mark.parametrize(
    ("damage", "what", "why"),
    [
        (wrong_shape, "breaks a rule at 't'", r"says f32\[2,3\], and its operands give f32\[3,2\]"),
        (wrong_type, "breaks a rule at 'w'", r"says f32\[3\], and its operands give f64\[3\]"),
        (no_spec, "breaks a rule at 'y'", "has no spec"),
        (input_without_spec, "breaks a rule at 'x'", "has no spec"),
        (foreign_operator, "breaks a rule at 'z'", "relu_.default is not in the dialect"),
        (python_function, "breaks a rule at 'z'", "is not in the dialect"),
        (impossible_operands, "permute cannot take these operands", ""),
        (argument_with_one_value, "breaks a rule at 'z'", "train=True has no meaning in the dialect"),
        (two_nodes_for_a_weight, "breaks a rule at 'w_1'", "'w' is read by a second node"),
        (output_without_name, "breaks a rule at 'output'", "one name for each part"),
        (used_before_it_is_made, "the graph is malformed", ""),
        (group_read_from_outside, "the group 'y' is broken at 'y'", "its result is read by 't' outside the group"),
    ],
)
def test_damage_is_found(damage: Callable[[Model], None], what: str, why: str) -> None:
    model = parse_model(TEXT)
    verify(model)
    before = picture(model)
    damage(model)
    assert picture(model) != before  # or it would pass for verified
    with pytest.raises(CompileError, match=what) as caught:
        verify(model)
    assert re.search(why, caught.value.why)


@pytest.mark.parametrize("value", [2, [2], [2, 2, 2]])
@pytest.mark.parametrize(
    ("call", "names"),
    [
        ("conv2d(%x, @w)", ("stride", "padding", "dilation")),
        ("conv_transpose2d(%x, @w)", ("stride", "padding", "output_padding", "dilation")),
        ("max_pool2d(%x, [2, 2])", ("kernel_size", "stride", "padding", "dilation")),
        ("avg_pool2d(%x, [2, 2])", ("kernel_size", "stride", "padding")),
        ("adaptive_avg_pool2d(%x, [2, 2])", ("output_size",)),
    ],
)
def test_sizes_that_are_no_pair_are_found(call: str, names: tuple[str, ...], value: object) -> None:
    text = f"model one(x: f32[1,4,8,8])\n  @w : f32[4,4,3,3]\n  %y = {call}\n  return y=%y\n"
    for name in names:
        model = parse_model(text)
        verify(model)
        set_argument(node(model, "y"), name, value)
        with pytest.raises(CompileError, match="breaks a rule at 'y'") as caught:
            verify(model)
        assert caught.value.why == f"{name}={value} is not a pair, one number for height and one for width"


def test_a_layer_by_a_vector_is_found() -> None:
    model = parse_model("model one(x: f32[2,3])\n  @w : f32[3]\n  %y = linear(%x, @w)\n  return y=%y\n")
    with pytest.raises(CompileError, match="breaks a rule at 'y'") as caught:
        verify(model)
    assert caught.value.why == "its weight f32[3] has no output channels; a product with a vector is matmul"


def test_a_pool_without_a_stride_has_that_of_its_window() -> None:
    model = parse_model("model one(x: f32[1,4,8,6])\n  %y = max_pool2d(%x, [4, 3])\n  return y=%y\n")
    verify(model)
    assert arguments(node(model, "y"))["stride"] == [4, 3]


def test_literals_of_another_type_are_another_picture() -> None:
    model = parse_model(TEXT)
    before = picture(model)
    assert before == picture(model.copy())
    node(model, "t").args = (node(model, "z"), [True, 0])
    assert before != picture(model)
