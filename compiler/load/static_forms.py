"""Traces code whose results depend in length on the data: while it runs, such calls are answered by static forms."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch._ops import OpOverload, OpOverloadPacket
from torch.overrides import TorchFunctionMode

from lvc.compiler.load import selection
from lvc.compiler.load.detectors.table import static_detections

_PATCHING = threading.RLock()


@contextlib.contextmanager
def static_forms() -> Iterator[None]:
    """Within it, masks, ``nonzero`` and torchvision's suppression of boxes give marked values of fixed length."""
    with _PATCHING, contextlib.ExitStack() as stack:
        try:
            from torchvision.ops import boxes
        except ImportError:
            pass
        else:
            for name in ("_batched_nms_vanilla", "_batched_nms_coordinate_trick"):
                stack.enter_context(mock.patch.object(boxes, name, selection.batched_nms))
        stack.enter_context(static_detections())
        stack.enter_context(_StaticForms())
        yield


class _StaticForms(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        is_operator = isinstance(func, (OpOverload, OpOverloadPacket))
        form = _FORMS.get(str(func) if is_operator else getattr(func, "__name__", ""))
        answer = form(*args, **kwargs) if form and args and isinstance(args[0], Tensor) else NotImplemented
        return func(*args, **kwargs) if answer is NotImplemented else answer


def _item(x: Tensor, index: Any) -> Any:
    """``x[index]`` with every mask in the index as the coordinates of what it selects."""
    parts = index if isinstance(index, tuple) else (index,)
    if not any(map(_is_mask, parts)):
        return NotImplemented
    if len(parts) == 1:
        return selection.masked(x, parts[0])
    spread: list[Any] = []
    for part in parts:
        spread += selection.coordinates(selection.truth(part)) if _is_mask(part) else [part]
    return x[tuple(spread)]


def _is_mask(part: Any) -> bool:
    return isinstance(part, Tensor) and part.dtype in (torch.bool, torch.uint8) and part.ndim > 0


def _non_zero(x: Tensor, *, as_tuple: bool = False) -> Any:
    return selection.coordinates(selection.truth(x)) if as_tuple else selection.non_zero(x)


def _where(*args: Any, **kwargs: Any) -> Any:
    return selection.coordinates(selection.truth(args[0])) if len(args) == 1 and not kwargs else NotImplemented


def _masked_select(x: Tensor, mask: Tensor) -> Tensor:
    shape = torch.broadcast_shapes(x.shape, mask.shape)  # type: ignore[no-untyped-call]
    return selection.masked(x.expand(shape), mask.expand(shape))


_FORMS: dict[str, Callable[..., Any]] = {
    "__getitem__": _item,
    "nonzero": _non_zero,
    "argwhere": _non_zero,
    "where": _where,
    "masked_select": _masked_select,
    "torchvision.nms": selection.nms,
    "torchvision.nms.default": selection.nms,
}
