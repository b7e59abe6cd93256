"""What bytes look like that are not what a file's name promises."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Appearance:
    """What a file seems to be, as the end of "it is ...", and what to do then."""

    what: str
    help: str


_EXPORT = "export the network from PyTorch with torch.onnx.export, or give lvc its factory and --weights"
_UNPACK = "unpack it, and give the file inside"
_CONVERT = "convert the model to ONNX with the tools of its framework"
_KNOWN: tuple[tuple[str, Appearance], ...] = (
    (
        r"version https://git-lfs",
        Appearance("a pointer of Git LFS, which stands for the file", "fetch the file itself with git lfs pull"),
    ),
    (
        r"\s*<(!doctype html|html|head|body)",
        Appearance("a page of HTML, as a link to a page or to a login gives", "download the file behind the page"),
    ),
    (r"PK\x03\x04", Appearance("a zip archive, as the .pt and .pth files of PyTorch are", _EXPORT)),
    (r"\x80[\x02-\x05][\x00-\xff]*", Appearance("a pickle, as old .pt and .pth files of PyTorch are", _EXPORT)),
    (r".{8}\{\"", Appearance("a file of safetensors, which holds weights and no network", _EXPORT)),
    (r"\x89HDF", Appearance("a file of HDF5, as Keras writes", _CONVERT)),
    (r".{4}TFL3", Appearance("a model of TensorFlow Lite", _CONVERT)),
    (r"\s*<\?xml", Appearance("a file of XML, as OpenVINO's models are", "give the ONNX file that it was made from")),
    (r"\x1f\x8b|BZh|\xfd7zXZ|7z\xbc\xaf|\x28\xb5\x2f\xfd|Rar!", Appearance("a compressed file", _UNPACK)),
    (r"\x89PNG|\xff\xd8\xff|GIF8|RIFF", Appearance("a picture or a recording", "give the model's file")),
    (r"\x7fELF", Appearance("a program or a library of compiled code", "give the model's file")),
    (r"(?:[\t\n\r\x20-\x7e]|[\xc2-\xf4][\x80-\xbf]+){16,}\Z", Appearance("a text", "give the model's file")),
)


def appearance(content: bytes) -> Appearance | None:
    """Return what the first bytes of a file look like; None if nothing that is known."""
    head = content[:512].decode("latin-1")
    flags = re.IGNORECASE | re.DOTALL
    return next((known for pattern, known in _KNOWN if re.match(pattern, head, flags)), None)
