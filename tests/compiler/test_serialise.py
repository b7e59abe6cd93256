"""A stored model is read back as it was, and a damaged or hostile one gives one error and runs nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch

from lvc.compiler.errors import CompileError
from lvc.compiler.ir.graph_text import parse_model
from lvc.compiler.ir.serialise import from_files, tensor_bytes, to_files

TEXT = """model small(x: f32[2,3])
  @block.w : f32[3]
  @index : i64[2] = [0, 1]
  @flags : bool[2,2] = [True, False, False, True]
  @empty : f32[0]
  @f : f16[3] = 0.5
  %y = mul(%x, @block.w) : f32[2,3]  group=y
  %z = clamp(%y, -inf, 1.5) : f32[2,3]  group=y
  %h = to(%z, dtype=f16) : f16[2,3]
  %s = add(%h, @f) : f16[2,3]
  %p = pad(%s, [1, 1], "reflect") : f16[2,5]
  %i = index_select(%p, 1, @index) : f16[2,2]
  %m = where(@flags, %i, %i) : f16[2,2]
  return out=%m, none=@empty
"""


def test_everything_is_kept() -> None:
    model = parse_model(TEXT)
    model.preprocessing, model.labels, model.notes = "imagenet", ("cat", "dög"), ["a note"]
    node = next(n for n in model.module.graph.nodes if n.name == "z")
    node.meta["origin"] = "model.py:7"
    model.module.get_submodule("block").w.requires_grad_(False)
    files = to_files(model)
    read = from_files(files)
    assert read.to_text() == model.to_text() == TEXT
    assert (read.preprocessing, read.labels, read.notes, read.source) == (
        "imagenet",
        ("cat", "dög"),
        ["a note"],
        "text",
    )
    assert next(n for n in read.module.graph.nodes if n.name == "z").meta["origin"] == "model.py:7"
    for name, value in model.module.state_dict().items():
        assert torch.equal(read.module.state_dict()[name], value)
    assert isinstance(read.module.get_submodule("block").w, torch.nn.Parameter)
    assert to_files(read) == files


def test_offsets_are_aligned() -> None:
    nodes = json.loads(to_files(parse_model(TEXT))["graph.json"])["nodes"]
    assert all(node["offset"] % 64 == 0 for node in nodes if "offset" in node)


Edit = Callable[[dict[str, Any]], Any]


def put(*path: Any, value: Any) -> Edit:
    """An edit that replaces what lies at a path in the graph's JSON."""

    def edit(data: dict[str, Any]) -> None:
        target: Any = data
        for key in path[:-1]:
            target = target[key]
        target[path[-1]] = value

    return edit


CODE = "__import__('os').system('true')"
DEEP: Any = 1
for _ in range(30):
    DEEP = [DEEP]


@pytest.mark.parametrize(
    ("edit", "why"),
    [
        (put("format", value=2), "its format is 2"),
        (put("nodes", value=3), "TypeError"),
        (put("nodes", 0, value="text"), "TypeError"),
        (put("name", value=[1]), "is not text"),
        (put("labels", value=[1]), "is not text"),
        (put("nodes", 0, "name", value=CODE), "cannot be the name of a node"),
        (put("nodes", 0, "name", value="def"), "no input can have the name 'def'"),
        (put("nodes", 0, "name", value="self"), "no input can have the name 'self'"),
        (put("nodes", 0, "input", value="f32[-1,3]"), "negative"),
        (put("nodes", 0, "input", value="f32[99999999,99999999]"), "is larger than"),
        (put("nodes", 0, "input", value="object[2]"), "is not a tensor type"),
        (put("nodes", 1, "tensor", value=f'w"); {CODE}; ("'), "cannot name a tensor"),
        (put("nodes", 1, "tensor", value="__class__"), "is taken"),
        (put("nodes", 1, "tensor", value="forward"), "is taken"),
        (put("nodes", 1, "tensor", value="index.w"), ""),
        (put("nodes", 1, "spec", value="f32[4]"), "mul cannot take these operands"),
        (put("nodes", 1, "spec", value="f32[30000]"), "lie outside"),
        (put("nodes", 1, "offset", value=-64), "lie outside"),
        (put("nodes", 1, "offset", value=1 << 70), "lie outside"),
        (put("nodes", 1, "offset", value="0"), "lie outside"),
        (put("nodes", 2, "tensor", value="block.w"), "is taken"),
        (put("nodes", 6, "name", value="x"), "two nodes have the name"),
        (put("nodes", 6, "call", value="system"), "operator 'system' is not in the dialect"),
        (put("nodes", 6, "call", value=["mul"]), "TypeError"),
        (put("nodes", 6, "args", value=[{"node": "nobody"}]), "KeyError"),
        (put("nodes", 6, "args", value=[{"node": "z"}, 2]), "KeyError"),
        (put("nodes", 6, "args", value=[{"code": CODE}]), "KeyError"),
        (put("nodes", 6, "args", value=DEEP), "nested too deep"),
        (put("nodes", 6, "args", value=[1, 2, 3, 4]), "mul cannot take these operands"),
        (put("nodes", 6, "kwargs", value={"out": 1}), "an argument that mul does not take"),
        (put("nodes", 6, "group", value=7), "is not text"),
        (put("nodes", 8, "args", value=[{"node": "z"}, {"dtype": "object"}]), "KeyError"),
        (put("outputs", value=[["out", "nobody"]]), "KeyError"),
        (put("outputs", value=[["out"]]), "ValueError"),
    ],
)
def test_damage_is_refused(edit: Edit, why: str) -> None:
    files = to_files(parse_model(TEXT))
    data = json.loads(files["graph.json"])
    edit(data)
    with pytest.raises(CompileError, match="the stored model is damaged") as caught:
        from_files(files | {"graph.json": json.dumps(data).encode()})
    assert why in caught.value.why


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"null", b'{"format":1}', b"1e999999"])
def test_what_is_not_a_graph_is_refused(content: bytes) -> None:
    files = to_files(parse_model(TEXT))
    with pytest.raises(CompileError, match="the stored model is damaged"):
        from_files(files | {"graph.json": content})
    with pytest.raises(CompileError, match="the stored model is damaged"):
        from_files({"graph.json": files["graph.json"]})
    with pytest.raises(CompileError, match="the stored model is damaged"):
        from_files(files | {"weights.bin": files["weights.bin"][:70]})


def test_a_single_element_of_a_wide_stride_is_written_as_it_is() -> None:
    wide = torch.arange(7, 15)[2::4][:1]
    assert wide.stride() == (4,)
    assert tensor_bytes(wide) == (9).to_bytes(8, "little")
    assert tensor_bytes(wide.expand(2, 1)) == 2 * (9).to_bytes(8, "little")
