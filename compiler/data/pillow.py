"""Pillow decodes and scales pictures. Arrays need none of it, so that a device can do without."""

from __future__ import annotations

from importlib.util import find_spec

from lvc.compiler.errors import UsageError


def require_pillow() -> None:
    """Raise `UsageError` where there is no Pillow; called before it is imported."""
    if find_spec("PIL") is None:
        raise UsageError(
            "pictures are read and prepared with Pillow, and it is not installed",
            help="pip install pillow, or give the model's inputs as arrays: .npy or .npz",
        )
