"""Native code through TVM. TVM itself is imported when a model is built, not before."""

from lvc.backends.tvm.backend import TvmBackend

BACKEND = TvmBackend()
