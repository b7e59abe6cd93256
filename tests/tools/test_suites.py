"""The suites that `tools/bench.py` measures."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
import torchvision

from lvc.compiler.errors import UsageError

TOOLS = Path(__file__).parents[2] / "tools"
pytestmark = pytest.mark.skipif(not TOOLS.is_dir(), reason="the tools are not part of the wheel")


@pytest.fixture
def suites(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(TOOLS))
    return importlib.import_module("suites")


def test_torchvision_has_its_models(suites: Any) -> None:
    sources = [suites.FIELD.get(name, suites.Torchvision(name)) for suite in suites.SUITES.values() for name in suite]
    names = {source.name for source in sources if isinstance(source, suites.Torchvision)}
    assert len(names) == 17
    assert names <= set(torchvision.models.list_models())


def test_batch_is_the_first_dimension(suites: Any) -> None:
    assert suites.request_of("swin_t", 8).shapes == {"": (8, 3, 224, 224)}
    assert suites.request_of("inception_v3").shapes == {"": (1, 3, 299, 299)}
    assert suites.request_of("deeplabv3_mobilenet_v3_large", 2).shapes == {"": (2, 3, 520, 520)}
    assert suites.request_of("yolov8n", 2).shapes == {"": (2, 3, 640, 640)}


def test_files_stand_in_the_folder_of_assets(suites: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LVC_TEST_ASSETS", raising=False)
    with pytest.raises(UsageError, match=r"yolox_nano\.onnx is not here"):
        suites.request_of("yolox_nano")
