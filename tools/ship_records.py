"""Measure the records that come with lvc, on the processor at hand: those of others stay.

    python tools/ship_records.py --db ship.db                                   # the classic suite, 10 minutes each
    python tools/ship_records.py resnet18 mobilenet_v2 --budget 5m --db ship.db
    LVC_NATIVE=x86-64-v3 python tools/ship_records.py --db ship.db              # as a processor with AVX2

Each model is tuned on one thread within its budget, and what its proof leaves is written. Ended at any moment and
called again, it goes on where it was. Only what is surely faster by 2 % and more is shipped. A record of this processor
that is not measured again stays as it is, unless --renew removes all of them first, as a new version wants it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from suites import request_of

from lvc.compiler.bench.suite import MODELS
from lvc.compiler.errors import LvcError

if TYPE_CHECKING:
    from lvc.backends.tvm.tuning.shipped import Shipped
    from lvc.compiler.tuning.account import Account
    from lvc.compiler.tuning.database import Place
    from lvc.compiler.tuning.kernels import Tunable

MOST_SHARE = 0.98
"""Of the rule's time: what gains less is not shipped."""


def tunable(name: str, size: int) -> Tunable:
    """A model of the suites with O2 for this machine; ``size`` is that of its images, 0 for its own."""
    from suites import Torchvision

    from lvc.backends.tvm import BACKEND
    from lvc.compiler.backend import Target
    from lvc.compiler.pipeline.pipeline import Pipeline
    from lvc.compiler.pipeline.workspace import Workspace

    request = Torchvision(name, size).request(1) if size else request_of(name)
    model, _ = Pipeline.parse("O2").run(request.load())
    return BACKEND.tunable(model, Target.parse("native"), Workspace(threads=1))


def worth_shipping(account: Account, processor: str, version: str) -> Iterator[tuple[Place, Shipped]]:
    """What an account says to be surely faster than the rule."""
    from lvc.backends.tvm.tuning.shipped import Shipped
    from lvc.compiler.tuning.database import Place

    for row in account.rows:
        share = round(row.best / row.rule, 3)
        if row.choice != row.rule_choice and share <= MOST_SHARE:
            yield Place(row.key, processor, version), Shipped(row.choice, share, row.title, row.rule_choice)


def ship(options: argparse.Namespace) -> None:
    """Tune the models one after the other, and write the file after each."""
    import lvc
    from lvc.backends.tvm.tuning import shipped
    from lvc.compiler.tuning.budget import Budget
    from lvc.compiler.tuning.database import Database, Place
    from lvc.compiler.tuning.tuner import Tuner

    database, records = Database(options.db, create=True), dict(shipped.shipped_records())
    for number, text in enumerate(options.models or MODELS):
        name, _, size = text.partition("@")
        found = tunable(name, int(size or 0))
        if options.renew and not number:
            records = {place: record for place, record in records.items() if place.processor != found.processor}
        account = Tuner(found, database, Budget.parse(options.budget)).run()
        if account.is_interrupted:
            raise KeyboardInterrupt
        for row in account.rows:
            records.pop(Place(row.key, found.processor, lvc.__version__), None)
        records |= worth_shipping(account, found.processor, lvc.__version__)
        options.output.write_text(shipped.to_json(lvc.__version__, records))
        print(f"{text} on {found.processor}: {account.summary}; {len(records)} records", flush=True)


def parse() -> argparse.Namespace:
    from lvc.backends.tvm.tuning.shipped import FILE

    parser = argparse.ArgumentParser(allow_abbrev=False, description=(__doc__ or "").splitlines()[0])
    parser.add_argument("models", metavar="MODEL[@SIZE]", nargs="*", help="of the suites (default: the classic one)")
    parser.add_argument("--budget", default="10m", metavar="TIME", help="of each model (default %(default)s)")
    parser.add_argument("--db", type=Path, required=True, metavar="FILE", help="the tuning database to work with")
    parser.add_argument("--output", type=Path, default=FILE, metavar="FILE", help="(default: the file in the package)")
    parser.add_argument("--renew", action="store_true", help="remove this processor's records first")
    return parser.parse_args()


def main() -> int:
    try:
        ship(parse())
    except LvcError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
