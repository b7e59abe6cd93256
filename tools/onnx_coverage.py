"""Print which of ONNX's node tests the ONNX importer passes, one line for each vision operator, as Markdown."""

from __future__ import annotations

import sys
import tempfile
from collections import Counter, defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "compiler"))

import onnx
from onnx_node_tests import Case, difference, refusal, run_case, vision_cases


def main() -> int:
    """Run every case; the exit code is 1 if one fails for a reason that is not written down."""
    total: Counter[str] = Counter()
    passed: Counter[str] = Counter()
    reasons: defaultdict[str, Counter[str]] = defaultdict(Counter)
    unknown = 0
    with tempfile.TemporaryDirectory() as folder:
        for case in vision_cases():
            total[case.operator] += 1
            if not run_case(case, Path(folder)):
                passed[case.operator] += 1
                continue
            reasons[case.operator][_reason(case)] += 1
            unknown += _reason(case) == _UNKNOWN
    print(f"onnx {onnx.__version__}: {passed.total()} of {total.total()} cases of {len(total)} operators pass.\n")
    print("| operator | passed | of | the rest |\n|---|---:|---:|---|")
    for operator in sorted(total):
        rest = "; ".join(f"{count}: {reason}" for reason, count in reasons[operator].items())
        print(f"| {operator} | {passed[operator]} | {total[operator]} | {rest} |")
    return int(unknown > 0)


_UNKNOWN = "not explained"


def _reason(case: Case) -> str:
    reason = refusal(case) or difference(case) or _UNKNOWN
    return reason.partition(" (")[0]


if __name__ == "__main__":
    sys.exit(main())
