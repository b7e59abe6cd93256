"""Find the fastest kernels for a model on this machine, and keep them for everything that is compiled with -O3.

Trials go where there is most to win. What wins is kept in a database at once, so that a killed or interrupted command
goes on where it was; the budget is that of the model, however many runs it takes.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lvc.compiler.cli.model_options import add_model_options, load_request
from lvc.compiler.cli.pipeline_options import (
    add_pipeline_options,
    describe_data,
    make_observers,
    make_workspace,
    read_data_names,
    read_max_loss,
    read_pipeline,
    read_requirement,
)
from lvc.compiler.cli.subject import positive
from lvc.compiler.errors import UsageError
from lvc.compiler.text import counted

if TYPE_CHECKING:
    from lvc.compiler.backend import Target
    from lvc.compiler.cli.console import Console
    from lvc.compiler.ir.model import Model
    from lvc.compiler.pipeline.workspace import Workspace
    from lvc.compiler.remote.pool import Pool
    from lvc.compiler.tuning.account import Account
    from lvc.compiler.tuning.budget import Budget
    from lvc.compiler.tuning.database import Database

SUMMARY = "find the fastest kernels for a model on this machine"
INTERRUPTED = 130


def configure(parser: argparse.ArgumentParser) -> None:
    add_model_options(parser, is_optional=True)
    parser.add_argument(
        "-t", "--target", metavar="TEXT", help="see 'lvc targets' (default: native, or what the first board is)"
    )
    group = parser.add_argument_group("tuning")
    group.add_argument("--budget", metavar="TIME", help="how long the model may be tuned in all: 90s, 10m, 1.5h")
    group.add_argument("--trials", metavar="N", type=positive, help="how many trials it may take in all, instead")
    group.add_argument(
        "--db", metavar="FILE|URL", help="the tuning database, or its PostgreSQL URL (default: the user's own)"
    )
    group.add_argument("--plot", metavar="FILE", type=Path, help="draw the model's time over that of tuning")
    group.add_argument("--export", metavar="FILE", type=Path, help="write the database's trials and records as JSON")
    group.add_argument("--import", dest="taken", metavar="FILE", type=Path, help="add those of such a file to it")
    add_pipeline_options(parser)


def execute(options: argparse.Namespace, console: Console) -> int:
    from lvc.compiler.files import check_writable
    from lvc.compiler.measure.pictures.canvas import check_drawable

    if options.export or options.taken:
        return _exchange(options, console)
    budget = _budget(options)
    if options.report:
        check_writable(options.report)
    if options.plot:
        check_drawable(options.plot)
    if not options.device:
        return _execute(options, console, budget)
    from lvc.compiler.remote.address import Address
    from lvc.compiler.remote.handshake import read_key
    from lvc.compiler.remote.pool import Pool

    addresses, key = [Address.parse(text) for text in options.device], read_key(options.key_file)
    with Pool.connect(addresses, key, console.say) as pool:
        console.say(f"{pool}")
        code = _execute(options, console, budget, pool)
        for line in pool.remarks():
            console.say(f"note: {line}")
        return code


def _execute(options: argparse.Namespace, console: Console, budget: Budget, pool: Pool | None = None) -> int:
    target = _target(options, pool)
    database = _database(options)
    tuning = Tuning(target, database, budget, pool)
    model, workspace = _model(options, console, tuning)
    account = _tune(model, workspace, tuning, console)
    _show(account, console)
    found = {"target": target.text, "database": database.name, **account.to_json()}
    if options.report:
        _write(options.report, found)
    if options.plot:
        _draw(options.plot, model.name, account)
    console.json(found)
    return INTERRUPTED if account.is_interrupted else 0


def _budget(options: argparse.Namespace) -> Budget:
    from lvc.compiler.tuning.budget import Budget

    if not options.model:
        raise UsageError("no model is given", help="'lvc tune MODEL --budget 10m'")
    if bool(options.budget) == bool(options.trials):
        raise UsageError("give one of --budget and --trials", help="for example --budget 10m, or --trials 200")
    return Budget(trials=options.trials) if options.trials else Budget.parse(options.budget)


def _target(options: argparse.Namespace, pool: Pool | None) -> Target:
    from lvc.compiler.backend import Target
    from lvc.compiler.driver import check_request
    from lvc.compiler.pipeline import catalogue

    target = Target.parse(options.target or (pool.target if pool else "native"))
    if error := catalogue.BACKENDS.get(target.backend).untunable(target, away=pool is not None):
        raise error
    pipeline = read_pipeline(options)
    pipeline.check_data(read_data_names(options), options.stop_after)
    check_request(pipeline, target)
    return target


def _database(options: argparse.Namespace) -> Database:
    from lvc.compiler.tuning.database import Database
    from lvc.compiler.tuning.store import users_database

    return Database(options.db or users_database(), create=not options.export)


def _exchange(options: argparse.Namespace, console: Console) -> int:
    from lvc.compiler.files import check_writable
    from lvc.compiler.tuning.exchange import export_to, import_from

    if options.model or (options.export and options.taken):
        raise UsageError("--export and --import each stand alone", help="leave out the model, and one of the two")
    if options.export:
        check_writable(options.export)
    database = _database(options)
    exchange, path = (export_to, options.export) if options.export else (import_from, options.taken)
    records, trials = exchange(database, path)
    what = "wrote" if options.export else "added"
    console.result(f"{what} {counted(records, 'record')} and {counted(trials, 'trial')}: {path}")
    console.json({"file": str(path), "database": database.name, "records": records, "trials": trials})
    return 0


def _model(options: argparse.Namespace, console: Console, tuning: Tuning) -> tuple[Model, Workspace]:
    """The model as it would be built, and what its pipeline used."""
    from lvc.compiler.driver import check_requirement, optimise
    from lvc.compiler.ir.operators.uncalibrated import refuse_uncalibrated
    from lvc.compiler.measure.device import ThisMachine
    from lvc.compiler.pipeline import catalogue
    from lvc.compiler.verification.verification import Verification

    model = load_request(options).load()
    describe_data(options, model)
    device = tuning.pool.timers.boards[0] if tuning.pool else ThisMachine()
    workspace = make_workspace(options, model, console, device)
    Verification.of(model, workspace, check=options.check, verify=options.verify).source()
    backend = catalogue.BACKENDS.get(tuning.target.backend)
    rewritten, steps = optimise(
        model,
        read_pipeline(options),
        workspace,
        check=options.check,
        observers=make_observers(options),
        completion=backend.completion,
        max_loss=read_max_loss(options),
    )
    refuse_uncalibrated(rewritten.module.graph)
    if requirement := read_requirement(options):
        check_requirement(requirement, rewritten, steps, simulated=backend.keeps_simulation)
    rewritten.records = None
    return rewritten, workspace


@dataclass(frozen=True)
class Tuning:
    """What kernels are for, where records are kept, what finding them may cost, and the boards that time if any do."""

    target: Target
    database: Database
    budget: Budget
    pool: Pool | None


def _tune(model: Model, workspace: Workspace, how: Tuning, console: Console) -> Account:
    from lvc.compiler.cli.tuning_display import Display
    from lvc.compiler.pipeline import catalogue
    from lvc.compiler.tuning.tuner import Tuner

    tunable = catalogue.BACKENDS.get(how.target.backend).tunable(model, how.target, workspace, how.pool)
    with Display(console) as display:
        return Tuner(tunable, how.database, how.budget, display.show).run()


def _show(account: Account, console: Console) -> None:
    headers, rows = account.table()
    console.table(headers, rows, "lr")
    for row in account.rows:
        if row.note:
            console.say(f"note: {row.title} was left as it is: {row.note}")
    for title in account.withdrawn:
        console.say(f"note: {title} is made by its rule again: within the model its gain did not show")
    if account.far_off:
        console.result(f"\nwhere the rule was more than 10 % off, which is worth a report ({account.known_by}):")
        console.result("\n".join(f"  {line}" for line in account.far_off))
    console.result(f"\n{account.summary}")


def _write(path: Path, found: dict[str, object]) -> None:
    import json

    from lvc.compiler.files import write_atomically

    write_atomically(path, json.dumps(found, indent=2).encode())


def _draw(path: Path, name: str, account: Account) -> None:
    from lvc.compiler.files import write_atomically
    from lvc.compiler.measure.pictures.canvas import Head
    from lvc.compiler.measure.pictures.steps import Steps

    head = Head(f"{name}: {account.gain:.2f}x by tuning", "The time of the model, added up from its kernels as raced.")
    points = [(spent / 60, 1e3 * seconds) for spent, seconds in account.curve]
    write_atomically(path, Steps(head, "minutes of tuning", "ms a run", points).render(path.suffix))
