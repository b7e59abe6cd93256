"""The records that come with lvc: what tuning found on the processors that were at hand, for those who do not tune.

``tools/ship_records.py`` makes them. They are known by the version of lvc alone, not by that of its code, and
hold where the rule still picks what they were measured against.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from lvc.compiler.tuning.database import Place, Record
from lvc.compiler.tuning.kernels import Choice

FILE = Path(__file__).with_name("records.json")


@dataclass(frozen=True)
class Shipped(Record):
    """A record, and the ``rule``'s choice that it is faster than."""

    rule: Choice = ""


def shipped_records() -> Mapping[Place, Shipped]:
    """All of them, by what a kernel is known by and the version that they ship with."""
    return _read(FILE)


@cache
def _read(file: Path) -> Mapping[Place, Shipped]:
    data = json.loads(file.read_bytes())
    return {
        Place(item["kernel"], item["processor"], data["version"]): Shipped(
            item["choice"], item["share"], item["title"], item["rule"]
        )
        for item in data["records"]
    }


def to_json(version: str, records: Mapping[Place, Shipped]) -> str:
    """The content of the file with the records of a version; those of others are left out."""
    items = [
        {"kernel": place.kernel, "processor": place.processor, **vars(record)}
        for place, record in sorted(records.items(), key=lambda item: (item[0].processor, item[0].kernel))
        if place.version == version
    ]
    return json.dumps({"version": version, "records": items}, indent=1) + "\n"
