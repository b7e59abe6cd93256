"""Pillow decodes pictures, and scales them faster than NumPy. Arrays need none of it: a device can do without."""

from __future__ import annotations

from importlib.util import find_spec

from lvc.compiler.errors import UsageError


def has_pillow() -> bool:
    return find_spec("PIL") is not None


def require_pillow() -> None:
    """Raise `UsageError` where there is no Pillow; called before it is imported."""
    if not has_pillow():
        raise UsageError(
            "pictures are read with Pillow, and it is not installed",
            help="pip install pillow, or give the model's inputs as arrays: .npy or .npz",
        )
