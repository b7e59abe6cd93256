"""One model after the other, each in a process of its own; what is known stands in a file of JSON lines.

A script that sweeps models has an option ``--one MODEL``, by which it prints what is found of one as JSON.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

Row = dict[str, Any]


def add_options(parser: argparse.ArgumentParser, results: str) -> None:
    """Which models, what is known, and where the table goes."""
    parser.add_argument("--only", default="", metavar="REGEX", help="only models whose name matches")
    parser.add_argument("--results", type=Path, default=Path(results), help="file of JSON lines to go on from")
    parser.add_argument("--table", type=Path, help="write the Markdown table here")
    parser.add_argument("--timeout", type=float, default=1800, help="seconds for one model")
    parser.add_argument("--one", metavar="MODEL", help=argparse.SUPPRESS)


def sweep(wanted: Sequence[str], key: Row, options: argparse.Namespace, table: Callable[[Sequence[Row]], str]) -> int:
    """Find what is not known of models with the settings of ``key``, and write the table; 0 if all are right."""
    lines = options.results.read_text().splitlines() if options.results.exists() else []
    rows = {row["model"]: row for row in map(json.loads, lines) if {k: row.get(k) for k in key} == key and row["ok"]}
    for name in wanted:
        if name in rows:
            continue
        rows[name] = {"model": name, **key, **_run_apart(name, options.timeout)}
        with options.results.open("a") as file:
            file.write(json.dumps(rows[name]) + "\n")
        print(name, {k: v for k, v in rows[name].items() if k not in ("model", *key)}, file=sys.stderr, flush=True)
    text = table([rows[name] for name in wanted])
    if options.table:
        options.table.write_text(text)
    else:
        print(text)
    return 0 if all(rows[name]["ok"] for name in wanted) else 1


def _run_apart(name: str, timeout: float) -> Row:
    """Run this script for one model, so that its memory is free afterwards."""
    command = [sys.executable, *sys.argv, "--one", name]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired:
        return {"ok": False, "error": f"took more than {timeout:g} s"}
    if done.returncode:
        return {"ok": False, "error": "\n".join(done.stderr.strip().splitlines()[-6:])}
    result: Row = json.loads(done.stdout.splitlines()[-1])
    return result


def markdown(rows: Sequence[Row], columns: Sequence[str]) -> str:
    """A table of results."""
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines.extend("| " + " | ".join(_cell(row.get(column)) for column in columns) + " |" for row in rows)
    return "\n".join(lines) + "\n"


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "**no**"
    if isinstance(value, float):
        return f"{value:.1e}" if 0 < value < 0.05 else f"{value:.4g}"
    if isinstance(value, int) and value > 1_000_000:
        return f"{value / 1e6:.1f} M"
    return "" if value is None else str(value)
