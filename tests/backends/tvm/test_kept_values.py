"""Values that are used again: how much TVM sees of a chain of functions, and what comes out of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import tvm
import tvm_ffi
from hypothesis import given, settings
from hypothesis import strategies as st
from sketch import Sketch, check, numbers
from torch.fx import Node
from tvm import ir, te, tirx
from tvm.s_tir import Schedule

from lvc.backends.tvm.cpu import lowering_passes
from lvc.backends.tvm.kept_values import keep_values
from lvc.backends.tvm.scope import let
from lvc.compiler.ir.dialect import aten

CHAIN = ("silu", "gelu by tanh", "sigmoid", "mish", "gelu", "tanh", "softplus", "elu", "hardswish", "exp", "log")
HEADS = ("conv", "depthwise", "linear", "layer_norm", "nothing")


def function(sketch: Sketch, name: str, x: Node) -> Node:
    if name == "gelu by tanh":
        return sketch.call(aten.gelu.default, x, approximate="tanh", group="all")
    if name in ("exp", "log"):
        x = sketch.call(aten.clamp.default, x, 0.25, 4, group="all")
    return sketch.call(getattr(aten, name).default, x, group="all")


def chain(head: str, *names: str) -> Sketch:
    """Functions in a row behind a layer, all in one kernel; the last node of the graph is their result."""
    sketch = Sketch()
    if head in ("linear", "layer_norm", "nothing"):
        x = sketch.input(1, 6, 24)
        if head == "linear":
            weight = sketch.stored(torch.randn(20, 24) / 5)
            x = sketch.call(aten.linear.default, x, weight, sketch.stored(torch.randn(20)), group="all")
        if head == "layer_norm":
            x = sketch.call(aten.layer_norm.default, x, [24], None, None, 1e-5, group="all")
    else:
        x = sketch.input(1, 16, 5, 7)
        x = sketch.conv(x, 16, 3, groups=16 if head == "depthwise" else 1, group="all")
    for name in names:
        x = function(sketch, name, x)
    return sketch


def built(sketch: Sketch) -> None:
    """Build and run, and compare with PyTorch."""
    x, *_, y = sketch.graph.nodes
    check(sketch.model(y), numbers(*x.meta["spec"].shape))


def found_in(node: Any, *kinds: Any) -> list[Any]:
    found: list[Any] = []
    tvm_ffi.structural_walk(node, [(kinds, found.append)])
    return found


def count(node: Any, *kinds: Any) -> int:
    return len(found_in(node, *kinds))


class Seen:
    """The functions that TVM's passes get."""

    def __init__(self) -> None:
        self.before: list[Any] = []
        self.after: list[Any] = []

    def __call__(self, function: Any, module: Any, context: Any) -> Any:
        self.before.append(function)
        self.after.append(keep_values(function, module, context))
        return self.after[-1]

    def largest(self) -> int:
        """Additions, multiplications and selections in the largest statement."""
        stores = [one for made in self.after for one in found_in(made.body, tirx.BufferStore, tirx.Bind)]
        return max(count(one.value, tirx.Add, tirx.Mul, tirx.Select) for one in stores)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Iterator[Seen]:
    found = Seen()
    monkeypatch.setattr(lowering_passes, "keep_values", found)
    monkeypatch.setenv("LVC_CACHE", "")
    yield found
    assert any(count(function.body, tirx.Let) for function in found.before)
    assert not any(count(function.body, tirx.Let) for function in found.after)


@pytest.mark.parametrize("head", HEADS)
def test_what_tvm_sees_of_a_chain_does_not_grow_with_it(head: str, seen: Seen) -> None:
    """With a Let for each value, eight of these functions would take TVM longer than anybody waits."""
    built(chain(head, "silu", "gelu by tanh"))
    largest = seen.largest()
    seen.after.clear()
    built(chain(head, *("silu", "gelu by tanh") * 4))
    assert seen.largest() == largest


@settings(max_examples=8)
@given(st.sampled_from(HEADS), st.lists(st.sampled_from(CHAIN), min_size=1, max_size=5))
def test_chains_of_functions(head: str, names: list[str]) -> None:
    built(chain(head, *names))


@pytest.mark.parametrize("shape", [(1, 16, 5, 8), (1, 5, 3, 7)])
def test_values_that_are_asked_for_at_some_places_only(shape: tuple[int, ...]) -> None:
    """Padding, concatenation and choice of what was computed in the same kernel."""
    sketch = Sketch()
    x = sketch.input(*shape)
    made = function(sketch, "gelu by tanh", function(sketch, "silu", x))
    other = function(sketch, "mish", function(sketch, "sigmoid", x))
    padded = sketch.call(aten.constant_pad_nd.default, made, [1, 2, 0, 1], -1.0, group="all")
    outputs = [function(sketch, "silu", padded)]
    for dim in (1, 3):
        joined = sketch.call(aten.cat.default, [made, x, other], dim, group="all")
        outputs.append(function(sketch, "gelu", joined))
    chosen = sketch.call(aten.where.self, sketch.call(aten.gt.Tensor, x, other, group="all"), made, other, group="all")
    check(sketch.model(*outputs, chosen), numbers(*shape))


def kept(element: Callable[[Any, Any], Any], *, vector: bool = False) -> Any:
    """The body of a function of 16 elements, ``element(x, i)`` each, after the pass."""
    x = te.placeholder((16,), "float32", "x")
    made = te.compute((16,), lambda i: element(x, i), "made")
    schedule = Schedule(te.create_prim_func([x, made]))
    if vector:
        schedule.vectorize(schedule.get_loops(schedule.get_sblock("made"))[0])
    passes = [
        tvm.s_tir.transform.ConvertBlocksToOpaque(),
        tvm.s_tir.transform.LowerOpaqueBlock(),
        tirx.transform.prim_func_pass(keep_values, opt_level=0, name="keep"),
    ]
    body = tvm.ir.transform.Sequential(passes)(schedule.mod)["main"].body
    assert not count(body, tirx.Let)
    return body


def cube(x: Any) -> Any:
    return let(x.asobject() if isinstance(x, te.TensorSlice) else x, lambda v: v * v * v)


def buffers(body: Any) -> list[int]:
    """How many elements each of the pass's buffers has."""
    return [int(one.buffer.shape[0]) for one in found_in(body, tirx.AllocBuffer)]


def test_what_may_be_read_is_read_before_it_is_chosen() -> None:
    body = kept(lambda x, i: tirx.Select(i > 3, cube(x[15 - i]), tirx.const(0, "float32")))
    assert not count(body, tirx.IfThenElse)
    assert buffers(body) == [1]


def test_what_may_lie_outside_is_read_only_where_it_is_asked_for() -> None:
    body = kept(lambda x, i: tirx.Select(i > 3, cube(cube(x[i - 3])), tirx.const(0, "float32")))
    (one,) = found_in(body, tirx.IfThenElse)
    assert count(one, ir.TensorLoad) == count(one.then_case, ir.TensorLoad)
    assert count(body, ir.TensorLoad) == count(one, ir.TensorLoad) + 1  # which reads what was chosen


def test_lanes_have_a_place_each_where_their_values_differ() -> None:
    body = kept(lambda x, i: cube(x[i]) + cube(x[3]), vector=True)
    assert sorted(buffers(body)) == [1, 16]


def test_what_is_chosen_for_all_lanes_at_once_differs_as_its_branches_do() -> None:
    def element(x: Any, i: Any) -> Any:
        return let(x[i].asobject(), lambda v: tirx.if_then_else(x[3] > 0, cube(v + 1), v))

    body = kept(element, vector=True)
    assert buffers(body) == [16, 16, 16]
    (one,) = found_in(body, tirx.IfThenElse)
    assert not count(one.condition, tirx.Var) - 1  # the buffer alone, and no lane


def test_lanes_that_choose_have_both_values_computed() -> None:
    """As TVM does with any choice between vectors; to take the lanes apart would make scalar code of them."""
    body = kept(lambda x, i: tirx.Select(i > 3, cube(x[i - 3]), tirx.const(0, "float32")), vector=True)
    assert not count(body, tirx.IfThenElse)
