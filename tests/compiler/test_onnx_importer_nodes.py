"""Every node test of ONNX for a vision operator: right, or refused for a reason that is written down."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from onnx_node_tests import UNLISTED, VISION_OPERATORS, all_cases, difference, refusal, run_case

from lvc.compiler.load.onnx_importer.build import load_converters


def test_every_operator_with_a_converter_and_cases_is_listed() -> None:
    assert {case.operator for case in all_cases()} & load_converters() - {*VISION_OPERATORS} == {*UNLISTED}


@pytest.mark.parametrize("operator", VISION_OPERATORS)
def test_cases_of_operator(operator: str, tmp_path: Path) -> None:
    cases = [case for case in all_cases() if case.operator == operator]
    assert cases
    for case in cases:
        found = run_case(case, tmp_path)
        if why := refusal(case):
            assert found, f"{case.name} passes, and was expected to be refused: {why}"
            assert not found.startswith("wrong"), f"{case.name}: {found}"
        elif why := difference(case):
            assert found.startswith("wrong"), f"{case.name} was expected to differ: {why}"
        else:
            assert not found, f"{case.name}: {found}"
