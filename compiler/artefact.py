"""What a backend makes: named files in bytes, the entry's signature, and what it was built from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lvc.compiler.files import Content
from lvc.compiler.ir.counts import Count, from_plain
from lvc.compiler.ir.signature import Signature, Value


@dataclass(frozen=True)
class Artefact:
    """A built model. ``files`` are the backend's own; ``metadata`` is plain JSON data.

    ``metadata`` holds under fixed keys, each optional: ``preprocessing`` (text), ``labels`` (list of text), ``counts``
    (object, see `lvc.compiler.ir.counts`), ``task`` (one of `lvc.compiler.ir.task`, or nothing), ``pipeline`` (text),
    ``source`` (object), ``report`` (object), ``layers`` (list, see `lvc.compiler.measure.layers`), ``memory`` (object,
    see `lvc.compiler.measure.memory`), ``remarks`` (list of text: what a user should know of the build), ``variants``
    (list of object: of each variant the bytes of ``weights`` that it reads, and of those that it reads ``alone``),
    ``kernels`` (object, see `lvc.compiler.measure.kernels`).
    ``suffix`` is the file name's ending if the only file stands for itself (``.onnx``). ``parts`` is what the backend
    emits other forms of, there while the process lives that built it. ``variants`` are what it takes and gives for
    other shapes of its inputs than those of ``inputs``, with as many inputs and outputs under the same names.
    """

    name: str
    backend: str
    target: str
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    files: Mapping[str, Content]
    metadata: Mapping[str, Any] = field(default_factory=dict)
    suffix: str = ".lvc"
    parts: object = field(default=None, repr=False, compare=False)
    variants: tuple[Signature, ...] = ()

    @property
    def signatures(self) -> tuple[Signature, ...]:
        """All that it takes and gives, the first first."""
        return (Signature(self.inputs, self.outputs), *self.variants)

    @property
    def counts(self) -> dict[str, Count]:
        """Which outputs say how much of which others is valid; `UsageError` if a file says so of others."""
        return from_plain(self.metadata.get("counts"), self.outputs)
