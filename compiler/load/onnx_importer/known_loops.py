"""Loops that torchvision exports, whose turns resize each to a size of its own: known by what their bodies compute.

A body that differs in anything is not known, and is read as any loop is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from lvc.compiler.ir.operators.heatmaps import A, peaks
from lvc.compiler.load.detectors.keypoints import located
from lvc.compiler.load.detectors.masks import pasted
from lvc.compiler.load.onnx_importer.call import Call
from lvc.compiler.load.onnx_importer.rules import by_meaning
from lvc.compiler.load.onnx_importer.terms import Term, Terms, match
from lvc.compiler.load.onnx_importer.values import Constant, Unsupported, Value, dtype_of, shape_of

_FLOAT, _INT64 = 1, 7
_TO_THE_END = (1 << 63) - 1
_HALF_PIXEL = {"coordinate_transformation_mode": "half_pixel", "nearest_mode": "floor"}


def known_loop(call: Call) -> list[Value] | None:
    """What a known loop gives; None for any other one."""
    turns, begins, condition = call.get(0), [call.get(place) for place in range(2, len(call))], call.get(1)
    if condition is not None and not (isinstance(condition, Constant) and bool(condition.tensor.all())):
        return None
    if not isinstance(turns, Constant) or not all(isinstance(x, Constant) and not x.tensor.numel() for x in begins):
        return None
    shapes = [tuple(x.tensor.shape) for x in begins if x is not None and isinstance(x, Constant)]
    forms = [form for form in _FORMS if [len(shape) for shape in shapes] == list(form.ranks)]
    body = call.attributes["body"]
    shapes += [tuple(tensor.shape or ()) for tensor in body.outputs[1 + len(shapes) :]]
    for form in forms:
        terms = Terms(call.opset)
        names = ["turn", "going", *(f"state {place}" for place in range(len(form.ranks)))]
        if len(body.inputs) != len(names):
            return None
        given = {tensor.name: terms.leaf(name) for tensor, name in zip(body.inputs, names, strict=True)}
        try:
            results = terms.of(body, given, call.emitter.known)
        except Unsupported:
            return None
        goes_on = terms.constant(True, torch.bool), terms.leaf("going")
        wanted = [results[0] if results[0] in goes_on else goes_on[0], *form.body(terms, shapes)]
        found: dict[str, Value] = {}
        if len(results) == len(wanted) and all(match(*pair, found) for pair in zip(wanted, results, strict=True)):
            return form.instead(call, found, shapes, int(turns.tensor.item()))
    return None


Shapes = list[tuple[int, ...]]


@dataclass(frozen=True)
class _Form:
    """A loop that begins with empty lists of so many dimensions, the body that it must have, and what it computes.

    Shapes are those of the lists, and of what each turn gives besides.
    """

    ranks: tuple[int, ...]
    body: Callable[[Terms, Shapes], list[Term]]
    instead: Callable[[Call, dict[str, Value], Shapes, int], list[Value] | None]


def _appended(t: Terms, place: int, row: Term) -> Term:
    return t("Concat", t.leaf(f"state {place}"), row, axis=0)


def _element(t: Terms, x: Term, place: int | Term, axis: int = 0) -> Term:
    return t("Gather", x, t.constant(place) if isinstance(place, int) else place, axis=axis)


def _row(t: Terms, x: Term) -> Term:
    """A number as a list, or a value with a dimension in front."""
    return t("Unsqueeze", x, t.constant([0]))


def _list(t: Terms, *numbers: Term) -> Term:
    return t("Concat", *(_row(t, number) for number in numbers), axis=0)


def _slice(t: Terms, x: Term, start: Term, end: Term, axis: int) -> Term:
    return t("Slice", x, start, end, t.constant([axis]), t.constant([1]))


def _resized(t: Terms, x: Term, size: Term, **attributes: object) -> Term:
    kept = t("Slice", t("Shape", x), t.constant([0]), t.constant([2]), t.constant([0]))
    whole = t("Concat", kept, t("Cast", size, to=_INT64), axis=0)
    return t("Resize", x, None, None, whole, **_HALF_PIXEL, **attributes)


def _pasting(t: Terms, shapes: Shapes) -> list[Term]:
    """`torchvision.models.detection.roi_heads._onnx_paste_masks_in_image_loop`, with an image of known size."""
    _, height, width = shapes[0]
    turn, one = t.leaf("turn"), t.constant([1])
    mask = _element(t, _element(t, t.hole("masks"), turn), 0)
    box = _element(t, t.hole("boxes"), turn)
    left, top, right, bottom = (_element(t, box, place) for place in range(4))

    def length(start: Term, end: Term) -> Term:
        pixels = t("Add", t("Sub", end, start), one)
        return t("ReduceMax", t("Concat", pixels, one, axis=0), keepdims=0)

    across, down = length(left, right), length(top, bottom)
    sides = (_element(t, t("Shape", mask), place) for place in range(2))
    shape = t("Reshape", _list(t, t.constant(1), t.constant(1), *sides), t.constant([-1]))
    ones = t("ConstantOfShape", t("Shape", shape), value=["int64", [1]])
    asked = t("Where", t("Equal", shape, t("Mul", ones, t.constant(-1))), ones, shape)
    resized = _resized(t, t("Expand", mask, asked), _list(t, down, across), mode="linear")
    resized = _element(t, _element(t, resized, 0), 0)

    def ends(start: Term, end: Term, size: int) -> tuple[Term, Term]:
        first = t("ReduceMax", t("Concat", _row(t, start), t.constant([0]), axis=0), keepdims=0)
        behind = t("Concat", t("Add", _row(t, end), one), t.constant([size]), axis=0)
        return first, t("ReduceMin", behind, keepdims=0)

    (x0, x1), (y0, y1) = ends(left, right, width), ends(top, bottom, height)
    inside = _slice(t, resized, _row(t, t("Sub", y0, top)), _row(t, t("Sub", y1, top)), 0)
    inside = _slice(t, inside, _row(t, t("Sub", x0, left)), _row(t, t("Sub", x1, left)), 1)

    def zeros(rows: Term, columns: Term) -> Term:
        return t("ConstantOfShape", _list(t, rows, columns), value=["float32", [0.0]])

    columns = _element(t, t("Shape", inside), 1)
    below = t("Sub", t.constant(height), y1)
    rows = t("Concat", zeros(y0, columns), t("Cast", inside, to=_FLOAT), zeros(below, columns), axis=0)
    rows = _slice(t, rows, t.constant([0]), t.constant([height]), 0)
    rows = _slice(t, rows, t.constant([0]), t.constant([_TO_THE_END]), 1)
    count = _element(t, t("Shape", rows), 0)
    image = t("Concat", zeros(count, x0), rows, zeros(count, t("Sub", t.constant(width), x1)), axis=1)
    image = _slice(t, image, t.constant([0]), t.constant([_TO_THE_END]), 0)
    image = _slice(t, image, t.constant([0]), t.constant([width]), 1)
    return [_appended(t, 0, _row(t, image))]


def _pasted(call: Call, found: dict[str, Value], shapes: Shapes, turns: int) -> list[Value] | None:
    masks, boxes = found["masks"], found["boxes"]
    count, kinds, *size = shape_of(masks)
    if (turns, kinds, len(size)) != (count, 1, 2) or shape_of(boxes) != (count, 4):
        return None
    if dtype_of(masks) is not torch.float32 or dtype_of(boxes) is not torch.int64:
        return None
    shape = shapes[0][1], shapes[0][2]
    made: Value = by_meaning(call, lambda masks, boxes: pasted(masks[:, 0], boxes, shape), masks, boxes)
    return [made]


def _searching(t: Terms, shapes: Shapes) -> list[Term]:
    """`torchvision.models.detection.roi_heads._onnx_heatmaps_to_keypoints_loop`, of a known number of maps."""
    kinds = shapes[0][2]
    turn = t.leaf("turn")
    maps, columns, rows, width, height, left, top = (
        _element(t, t.hole(name), turn) for name in ("maps", "columns", "rows", "width", "height", "left", "top")
    )
    across, down = t("Div", width, columns), t("Div", height, rows)
    whole = t.constant([0]), t.constant([_TO_THE_END]), 0
    image = t("Unsqueeze", _slice(t, maps, *whole), t.constant([1]))
    resized = _element(t, _slice(t, _resized(t, image, _list(t, rows, columns), mode="cubic"), *whole), 0, 1)
    line = t("Cast", _element(t, t("Shape", resized), 2), to=_INT64)
    place = t("ArgMax", t("Reshape", resized, t.constant([kinds, -1])), axis=1, keepdims=0)
    x = t("Mod", place, line)
    y = t("Cast", t("Cast", t("Div", t("Sub", place, x), line), to=_INT64), to=_FLOAT)

    def point(at: Term, factor: Term, start: Term) -> Term:
        middle = t("Add", t.constant(0.5, torch.float32), t("Cast", at, to=_FLOAT))
        moved = t("Mul", middle, t("Cast", factor, to=_FLOAT))
        return t("Add", moved, t("Cast", start, to=_FLOAT))

    points = [point(x, across, left), point(y, down, top)]
    points.append(t("ConstantOfShape", t("Shape", points[1]), value=["float32", [1.0]]))
    found = _list(t, *(t("Cast", point, to=_FLOAT) for point in points))
    picked = _element(t, resized, t("Cast", y, to=_INT64), 1)
    picked = _element(t, picked, t("Cast", x, to=_INT64), 2)
    diagonal = t.constant(torch.arange(kinds) * (kinds**2 + kinds + 1))
    scores = _element(t, t("Reshape", picked, t.constant([-1])), diagonal)
    results = t("Cast", _row(t, found), to=_FLOAT), _row(t, t("Cast", scores, to=_FLOAT))
    states = (t("Cast", t.leaf(f"state {place}"), to=_FLOAT) for place in range(2))
    return [t("Concat", state, result, axis=0) for state, result in zip(states, results, strict=True)]


def _searched(call: Call, found: dict[str, Value], shapes: Shapes, turns: int) -> list[Value] | None:
    maps = found.pop("maps")
    count, kinds, *size = shape_of(maps)
    of_boxes = [found[name] for name in ("left", "top", "width", "height", "columns", "rows")]
    if (turns, len(size)) != (count, 2) or shapes != [(0, 3, kinds), (0, kinds)]:
        return None
    if any(shape_of(x) != (count,) for x in of_boxes) or any(
        dtype_of(x) is not torch.float32 for x in (maps, *of_boxes)
    ):
        return None

    def points(maps: torch.Tensor, *of_boxes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        start, sides, pixels = (torch.stack(of_boxes[place : place + 2], 1) for place in (0, 2, 4))
        found, scores = located(maps, start, sides, pixels)
        return found.transpose(1, 2), scores

    made: list[Value] = by_meaning(call, points, maps, *of_boxes)
    return made


def _peaking(t: Terms, shapes: Shapes) -> list[Term]:
    """`lvc.backends.onnx.operators.heatmaps`, of a known number of maps."""
    kinds = shapes[0][0]
    turn, last = t.leaf("turn"), t.constant([1])
    image, size = _row(t, _element(t, t.hole("maps"), turn)), _element(t, t.hole("sizes"), turn)
    whole = t("Concat", t.constant([1, kinds]), size, axis=0)
    how = {"mode": "cubic", "coordinate_transformation_mode": "half_pixel", "cubic_coeff_a": A}
    flat = t("Reshape", t("Resize", image, None, None, whole, **how), t.constant([kinds, -1]))
    place, width = t("ArgMax", flat, axis=1, keepdims=1), _element(t, size, last)
    row = t("Div", place, width)
    column = t("Sub", place, t("Mul", row, width))
    value = t("GatherElements", flat, place, axis=1)
    return [t("Concat", t("Cast", row, to=_FLOAT), t("Cast", column, to=_FLOAT), value, axis=1)]


def _peaked(call: Call, found: dict[str, Value], shapes: Shapes, turns: int) -> list[Value] | None:
    maps, sizes = found["maps"], found["sizes"]
    if dtype_of(maps) is not torch.float32 or shape_of(maps)[:2] != (turns, shapes[0][0]) or len(shape_of(maps)) != 4:
        return None
    if shape_of(sizes) != (turns, 2) or dtype_of(sizes) is not torch.int64:
        return None
    return [call.emit(peaks, maps, sizes)]


_FORMS = (_Form((3,), _pasting, _pasted), _Form((3, 2), _searching, _searched), _Form((), _peaking, _peaked))
