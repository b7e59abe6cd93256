"""How ONNX spells movement, opset by opset."""

from __future__ import annotations

from typing import Any

from fuzzing.onnx_graph import Unspeakable, Writer
from fuzzing.onnx_spellings import Spell
from fuzzing.program import Step

END = 2**63 - 1


def reshape(w: Writer, step: Step, a: dict[str, Any]) -> str:
    x, before, after, way = w.name(a["self"]), w.shape(a["self"]), w.shape(step), step.hint["way"]
    if way % 3 == 0:
        for at in range(len(before)):
            if before[at] == 1 and before[:at] + before[at + 1 :] == after:
                return w.axes("Squeeze", x, [at], 13)
        for at in range(len(after)):
            if after[at] == 1 and after[:at] + after[at + 1 :] == before:
                return w.axes("Unsqueeze", x, [at], 13)
    if len(after) == 2 and way % 3 < 2:
        for axis in range(len(before) + 1):
            if _count(before[:axis]) == after[0] and w.opset >= 9:
                return w.emit("Flatten", x, axis=axis)
    sizes = list(after)
    if way % 4 == 1 and sizes:
        kept = [0 if at < len(before) and before[at] == size else size for at, size in enumerate(sizes)]
        sizes = kept
    if way % 5 == 2 and sizes:
        sizes[way % len(sizes)] = -1
    if way % 7 == 3 and after and before and before[0] == after[0]:
        first = w.axes("Unsqueeze", w.emit("Gather", w.emit("Shape", x), w.constant(0, int), axis=0), [0], 13)
        return w.emit("Reshape", x, w.emit("Concat", first, w.ints(*after[1:]), axis=0) if after[1:] else first)
    return w.emit("Reshape", x, w.ints(*sizes))


def _count(sizes: tuple[int, ...]) -> int:
    count = 1
    for size in sizes:
        count *= size
    return count


def permute(w: Writer, step: Step, a: dict[str, Any]) -> str:
    dims = [dim % len(a["dims"]) for dim in a["dims"]]
    reverse = dims == list(reversed(range(len(dims)))) and step.hint["way"] % 2
    return w.emit("Transpose", w.name(a["self"]), perm=None if reverse else dims)


def expand(w: Writer, step: Step, a: dict[str, Any]) -> str:
    w.need(8)
    return w.emit("Expand", w.name(a["self"]), w.ints(*w.shape(step)))


def repeat(w: Writer, step: Step, a: dict[str, Any]) -> str:
    if len(a["repeats"]) != len(w.shape(a["self"])):
        raise Unspeakable("more repeats than axes")
    return w.emit("Tile", w.name(a["self"]), w.ints(*a["repeats"]))


def cat(w: Writer, step: Step, a: dict[str, Any]) -> str:
    rank = len(w.shape(step))
    axis = a["dim"] % rank if w.opset < 11 else a["dim"]
    return w.emit("Concat", *(w.name(value) for value in a["tensors"]), axis=axis)


def slice_(w: Writer, step: Step, a: dict[str, Any]) -> str:
    """A part; as a result of a Split, whose other results are read by others of its parts or by nobody."""
    if "sizes" in step.hint:
        return _split(w, step, a)
    return cut(w, w.name(a["self"]), ([a["dim"]], [a["start"]], [a["end"]], [a["step"]]), step.hint["way"])


Cut = tuple[list[int], list[int], list[int], list[int]]
"""Axes, starts, ends and steps."""


def cut(w: Writer, x: str, where: Cut, way: int = 0) -> str:
    axes, starts, ends, steps = where
    if w.opset < 10:
        if set(steps) != {1}:
            raise Unspeakable("a step")
        return w.emit("Slice", x, axes=axes, starts=starts, ends=ends)
    stride = "" if set(steps) == {1} and way % 2 else w.ints(*steps)
    implied = "" if axes == list(range(len(axes))) and way % 3 == 0 else w.ints(*axes)
    return w.emit("Slice", x, w.ints(*starts), w.ints(*ends), implied, stride)


def _split(w: Writer, step: Step, a: dict[str, Any]) -> str:
    sizes, part, x = list(step.hint["sizes"]), int(step.hint["part"]), w.name(a["self"])
    axis, size, count = a["dim"], a["end"] - a["start"], w.shape(a["self"])[a["dim"]]
    even = count % size == 0 and a["start"] % size == 0 and step.hint["way"] % 2
    if even:
        sizes, part = [size] * (count // size), a["start"] // size
    for node in w.nodes:
        known = node.op == "Split" and node.inputs[0] == x and node.attributes.get("axis", 0) == axis
        if (
            known
            and len(node.outputs) == len(sizes)
            and even
            and "split" not in node.attributes
            and len(node.inputs) == 1
        ):
            return node.outputs[part]
    attributes: dict[str, Any] = {"axis": axis or None, "results": len(sizes)}
    if even:
        if w.opset >= 18:
            attributes["num_outputs"] = len(sizes)
        return w.parts("Split", x, **attributes)[part]
    if w.opset >= 13:
        return w.parts("Split", x, w.ints(*sizes), **attributes)[part]
    return w.parts("Split", x, split=sizes, **attributes)[part]


def roll(w: Writer, step: Step, a: dict[str, Any]) -> str:
    x = w.name(a["self"])
    for shift, dim in zip(a["shifts"], a["dims"], strict=True):
        size = w.shape(a["self"])[dim]
        at = -shift % size
        if at:
            x = w.emit("Concat", cut(w, x, ([dim], [at], [END], [1])), cut(w, x, ([dim], [0], [at], [1])), axis=dim)
    return x if x != w.name(a["self"]) else w.emit("Identity", x)


def flip(w: Writer, step: Step, a: dict[str, Any]) -> str:
    w.need(10)
    dims = list(a["dims"])
    backwards = [-1] * len(dims)
    return cut(w, w.name(a["self"]), (dims, backwards, [-END] * len(dims), backwards), 1)


def pad(w: Writer, step: Step, a: dict[str, Any]) -> str:
    rank, widths = len(w.shape(a["self"])), list(a["pad"])
    before, after = [0] * rank, [0] * rank
    for at in range(len(widths) // 2):
        before[rank - 1 - at], after[rank - 1 - at] = widths[2 * at], widths[2 * at + 1]
    mode = {"reflect": "reflect", "replicate": "edge"}.get(a.get("mode", ""), "constant")
    value = float(a["value"] or 0)
    if min(widths) < 0 and mode != "constant":
        raise Unspeakable("a negative pad by reflection")
    if w.opset < 11:
        return w.emit("Pad", w.name(a["self"]), pads=before + after, mode=mode, value=value or None)
    filled = w.constant(value) if value or (mode == "constant" and step.hint["way"] % 2) else ""
    if w.opset >= 18 and step.hint["way"] % 3 == 0:
        axes = [at - rank if step.hint["way"] % 2 else at for at in range(rank) if before[at] or after[at]]
        if axes:
            sizes = [before[at] for at in axes] + [after[at] for at in axes]
            return w.emit("Pad", w.name(a["self"]), w.ints(*sizes), filled, w.ints(*axes), mode=mode)
    return w.emit("Pad", w.name(a["self"]), w.ints(*before, *after), filled, mode=mode)


def index_select(w: Writer, step: Step, a: dict[str, Any]) -> str:
    return w.emit("Gather", w.name(a["self"]), w.name(a["index"]), axis=a["dim"] or None)


def embedding(w: Writer, step: Step, a: dict[str, Any]) -> str:
    return w.emit("Gather", w.name(a["weight"]), w.name(a["indices"]))


def gather(w: Writer, step: Step, a: dict[str, Any]) -> str:
    w.need(11)
    if w.shape(a["self"])[: a["dim"]] != w.shape(a["index"])[: a["dim"]]:
        raise Unspeakable("an index of another size")
    return w.emit("GatherElements", w.name(a["self"]), w.name(a["index"]), axis=a["dim"])


def pixel_shuffle(w: Writer, step: Step, a: dict[str, Any]) -> str:
    w.need(11)
    return w.emit("DepthToSpace", w.name(a["self"]), blocksize=a["upscale_factor"], mode="CRD")


def pixel_unshuffle(w: Writer, step: Step, a: dict[str, Any]) -> str:
    n, c, h, width = w.shape(a["self"])
    r = a["downscale_factor"]
    y = w.emit("Reshape", w.name(a["self"]), w.ints(n, c, h // r, r, width // r, r))
    y = w.emit("Transpose", y, perm=[0, 1, 3, 5, 2, 4])
    return w.emit("Reshape", y, w.ints(n, c * r * r, h // r, width // r))


SPELLINGS: dict[str, Spell] = {
    "reshape": reshape, "permute": permute, "expand": expand, "repeat": repeat, "cat": cat, "slice": slice_,
    "roll": roll, "flip": flip, "constant_pad_nd": pad, "pad": pad, "index_select": index_select, "gather": gather,
    "embedding": embedding,
    "pixel_shuffle": pixel_shuffle, "pixel_unshuffle": pixel_unshuffle,
}  # fmt: skip
