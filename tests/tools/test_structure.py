"""The structure keeps to limits that only fall: tools/structure.py prints what it counts."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOLS = ROOT / "tools"
pytestmark = pytest.mark.skipif(not (ROOT / "compiler").is_dir(), reason="the suite runs against an installed wheel")


def test_structure_keeps_to_its_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(TOOLS))
    import structure

    found = structure.measure()
    assert found.circles == (), "modules that import each other when they are loaded"
    assert found.median <= 120
    assert found.longest[0] <= 400
    assert found.function_median <= 6
    now = [edge for edge in found.against if not edge.is_late]
    assert now == [], "rooms import those that know less"
    assert len(found.against) <= 8


def test_circles_and_late_imports_are_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(str(TOOLS))
    import structure

    folder = tmp_path / "compiler"
    folder.mkdir()
    (folder / "errors.py").write_text("from lvc.compiler import text\n")
    (folder / "text.py").write_text("import lvc.compiler.errors\n\ndef f():\n    from lvc.compiler.driver import x\n")
    (folder / "driver.py").write_text("import lvc.compiler.text\n\nx = 1\n")
    monkeypatch.setattr(structure, "ROOT", tmp_path)
    found = structure.measure()
    assert found.circles == (("lvc.compiler.errors", "lvc.compiler.text"),)
    assert [(edge.reader, edge.read, edge.is_late) for edge in found.against] == [
        ("lvc.compiler.errors", "lvc.compiler.text", False),
        ("lvc.compiler.text", "lvc.compiler.driver", True),
    ]
