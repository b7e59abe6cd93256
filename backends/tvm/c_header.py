"""What programs in C include of a model: the interface in ``lvc.h`` under the name of the model, so that programs can
hold several, and what it takes and gives."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from lvc.backends.tvm.entry import INTERFACE, texts
from lvc.compiler.artefact import Artefact
from lvc.compiler.data.preprocess import Preprocess
from lvc.compiler.emission import Emission

_HEAP = "#define LVC_HEAP 1"


@dataclass(frozen=True)
class CHeader:
    """The texts that all forms of a model in C have, under the name of an emission."""

    artefact: Artefact
    emission: Emission

    @property
    def name(self) -> str:
        return self.emission.prefix

    @property
    def weights_file(self) -> str:
        return f"{self.name}_weights.bin"

    @property
    def exported(self) -> str:
        """What a shared library shows of itself."""
        shown = ("model_*", "run*", "variant_*", "status_text", "weights")
        return "; ".join(f"{self.name}_{pattern}" for pattern in shown)

    def header_of(self, sizes: str, *, has_heap: bool) -> str:
        """What programs include: the interface in ``lvc.h`` under the name of the model, and its ``sizes``; an instance
        is created in the heap or in memory of the program's."""
        (text,) = texts([INTERFACE]).values()
        assert _HEAP in text
        body = text.replace(_HEAP, f"{_HEAP[:-1]}{int(has_heap)}").rstrip().removesuffix("#endif").rstrip()
        described = "\n".join(f"   {line}".rstrip() for line in self._described()).strip()
        numbers = [*self._numbers(), sizes, *self._pixels(), *self._weights()]
        return self.renamed("\n".join([f"/* {described} */", body, "", *numbers, "#endif", ""]))

    def labels(self) -> str:
        """The names of classes, for programs that print them."""
        rows = "".join(f"  {_literal(label)},\n" for label in self.artefact.metadata.get("labels") or ())
        return rows and self.renamed(f"static const char *const lvc_labels[] = {{\n{rows}}};\n")

    def renamed(self, text: str) -> str:
        """C or assembly under the name of the model."""
        text = re.sub(r"\bLVC_(?=\w)", f"{self.name.upper()}_", text)
        return re.sub(r"\blvc_(?=\w)", f"{self.name}_", text)

    def _described(self) -> list[str]:
        """What the model takes and gives; names come from its author, and end no comment."""
        lines = [f"{_quoted(self.artefact.name)} for {self.artefact.target}, made by lvc", ""]
        for kind, values in (("input", self.artefact.inputs), ("output", self.artefact.outputs)):
            lines += [f"{kind} {place}: {_quoted(v.name)} {v.spec}" for place, v in enumerate(values)]
        for number, one in enumerate(self.artefact.variants, 1):
            specs = (", ".join(str(value.spec) for value in values) for values in (one.inputs, one.outputs))
            lines.append(f"variant {number}: {' to '.join(specs)}")
        if how := self.artefact.metadata.get("preprocessing"):
            lines.append(f"preprocessing: {_quoted(str(how))}")
        return lines

    def _numbers(self) -> list[str]:
        ends = [("INPUT", self.artefact.inputs), ("OUTPUT", self.artefact.outputs)]
        for number, one in enumerate(self.artefact.variants, 1):
            ends += [(f"VARIANT_{number}_INPUT", one.inputs), (f"VARIANT_{number}_OUTPUT", one.outputs)]
        return [
            f"#define LVC_{kind}_{place}_{what} {number}"
            for kind, values in ends
            for place, value in enumerate(values)
            for what, number in (("BYTES", value.spec.bytes), ("SHAPE", _listed(map(str, value.spec.shape))))
        ]

    def _pixels(self) -> list[str]:
        """How a byte of a picture becomes a number; its size is for the program to see to."""
        if not (text := self.artefact.metadata.get("preprocessing")):
            return []
        how = Preprocess.parse(str(text))
        channels = {"rgb": "012", "bgr": "210", "gray": "0"}[how.layout]
        divisor, shift = {"1": (255.0, 0.0), "255": (1.0, 0.0), "symmetric": (127.5, 1.0)}[how.range]
        each = {"MEAN": how.mean or (0.0,), "STD": how.std or (1.0,)}
        numbers = {name: (values * how.channels)[: how.channels] for name, values in each.items()}
        return [
            "/* a byte of a picture becomes (byte / PIXEL_DIVISOR - PIXEL_SHIFT - MEAN) / STD, the latter two of the",
            "   channels in the order in which CHANNELS names those of the picture */",
            f"#define LVC_CHANNELS {_listed(channels)}",
            f"#define LVC_PIXEL_DIVISOR {_float(divisor)}",
            f"#define LVC_PIXEL_SHIFT {_float(shift)}",
            *(f"#define LVC_{name} {_listed(map(_float, values))}" for name, values in numbers.items()),
        ]

    def _weights(self) -> list[str]:
        if self.emission.weights != "linked":
            return [f"/* the weights are the bytes of {self.weights_file} */"]
        return ["extern const unsigned char lvc_weights[]; /* LVC_WEIGHT_BYTES of them */"]


def _listed(values: Iterable[str]) -> str:
    return f"{{{', '.join(values)}}}"


def _float(value: float) -> str:
    """The nearest number of 32 bits, as C reads it back."""
    return f"{float(np.float32(value))!r}f"


def _literal(text: str) -> str:
    """A text in C, byte by byte where it is more than letters, digits and spaces."""
    plain = (
        chr(byte) if byte < 0x80 and (chr(byte).isalnum() or byte == 0x20) else f"\\{byte:03o}"
        for byte in text.encode()
    )
    return f'"{"".join(plain)}"'


def _quoted(text: str) -> str:
    """A text within a comment, which it does not end."""
    return json.dumps(text).replace("*/", "* /").replace("/*", "/ *")
