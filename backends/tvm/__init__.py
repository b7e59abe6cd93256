"""Native code through TVM. The backend is imported when it is asked for: running a built model needs only `runtime`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lvc.backends.tvm.backend import TvmBackend

    BACKEND: TvmBackend


def __getattr__(name: str) -> object:
    if name != "BACKEND":
        raise AttributeError(name)
    from lvc.backends.tvm.backend import TvmBackend

    globals()["BACKEND"] = TvmBackend()
    return globals()["BACKEND"]
