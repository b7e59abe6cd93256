"""Where a traced call stands in the user's model, in words."""

from __future__ import annotations

import re
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_FRAME = re.compile(r'File "([^"]+)", line (\d+), in ')
_PYTHON = sysconfig.get_path("stdlib")
_TORCH = re.compile(r"/(?:site|dist)-packages/torch/")


def origin_of(modules: Sequence[tuple[str, str]], stack_trace: str, fallback: str) -> tuple[str, str]:
    """Return a call's origin and the path of the module that it ran in.

    ``modules`` are the paths and class names of the enclosing modules, outermost first. A call in a layer of PyTorch's
    own is named by the layer's path; any other also by the line of the user's that made it.
    """
    path, kind = modules[-1] if modules else ("", "")
    line = user_line(stack_trace)
    if kind.startswith("torch.nn.modules.") and ".container." not in kind:
        line = ""
    named = f"{path} ({line})" if path and line else path or line
    return named or fallback, path


def user_line(stack_trace: str) -> str:
    """The innermost line of a stack trace that is not PyTorch's own, as ``file.py:12``."""
    frames = [frame for frame in _FRAME.findall(stack_trace) if not is_library(frame[0])]
    return f"{Path(frames[-1][0]).name}:{frames[-1][1]}" if frames else ""


def is_library(file: str) -> bool:
    """Whether a source file is Python's, PyTorch's or lvc's own, so that no user can act on one of its lines."""
    own = Path(file).parent == Path(__file__).parent or file.startswith(("<", f"{_PYTHON}/"))
    return own or bool(_TORCH.search(file))


def modules_of(meta: dict[str, Any]) -> list[tuple[str, str]]:
    """Paths and class names of the modules around a node that `torch.export` made."""
    stack = meta.get("nn_module_stack") or {}
    return [(path, kind if isinstance(kind, str) else kind.__qualname__) for path, kind in stack.values()]
