"""What stands in a picture: its texts and its marks, read from the SVG."""

from __future__ import annotations

from xml.etree import ElementTree

_SVG = "{http://www.w3.org/2000/svg}"


class Drawing:
    """An SVG as it was written; ``texts`` in the order in which they stand there."""

    def __init__(self, content: bytes) -> None:
        self._root = ElementTree.fromstring(content)
        self.texts = [element.text or "" for element in self._root.iter(f"{_SVG}text")]

    def places(self, name: str) -> list[tuple[float, float]]:
        """Where the marks of a series lie, in points from the left and from the top."""
        found = self._root.findall(f".//{_SVG}g[@id='{name}']//{_SVG}use")
        return [(float(mark.attrib["x"]), float(mark.attrib["y"])) for mark in found]

    def marks(self, name: str) -> int:
        return len(self.places(name))

    def series(self, kind: str) -> list[str]:
        """The names of all series whose names begin so."""
        return [name for group in self._root.iter(f"{_SVG}g") if (name := group.get("id", "")).startswith(kind)]
