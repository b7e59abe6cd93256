"""Tuning of a model: trials go where there is most to win, and only what surely wins is kept.

A batch of choices runs against the best one so far; the winner runs once more, alone, in a process and with code of its
own, and becomes the record of its kernel if it wins again. At the end the model with all records runs in turns with the
model by the rules, and a record whose kernel is surely slower there is withdrawn.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from lvc.compiler.tuning.account import Account, Row
from lvc.compiler.tuning.budget import Budget
from lvc.compiler.tuning.database import Database, Place, Record, Trial
from lvc.compiler.tuning.judgement import Judge, Share, best, is_faster, noise
from lvc.compiler.tuning.kernels import CannotRace, Choice, Race, Tunable
from lvc.compiler.tuning.search import Search, most_hopeful

BATCH = 6
LEAST_HOPE = 1e-3
"""Of the model's time: where no kernel promises more, tuning ends."""

Watch = Callable[[Account], None]


@dataclass
class Tuner:
    """Tunes the kernels of a model, within a budget for all runs of it together, into a database."""

    tunable: Tunable
    database: Database
    budget: Budget
    watch: Watch | None = None
    judge: Judge = field(default_factory=Judge)
    reason: str = ""
    is_interrupted: bool = False
    measured: Share | None = None
    withdrawn: list[str] = field(default_factory=list)
    curve: list[tuple[float, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.searches = [self._search(number) for number in range(len(self.tunable.kernels))]
        self._noted = time.monotonic()

    @property
    def run_name(self) -> str:
        """What the budget is known by: the kernels of the model, and how often it runs each."""
        kernels = sorted(f"{kernel.count} {kernel.key}" for kernel in self.tunable.kernels)
        parts = "\0".join([self.tunable.processor, self.tunable.version, *kernels])
        return hashlib.sha256(parts.encode()).hexdigest()[:20]

    def run(self) -> Account:
        """Tune until the budget is spent or nothing more is to be had, and prove the result."""
        try:
            self._draw()
            while self._step():
                self._draw()
                if self.watch:
                    self.watch(self.account())
            self._prove()
        except KeyboardInterrupt:
            self.reason, self.is_interrupted = "interrupted, and the same command goes on", True
        self.database.spend(self.run_name, self._elapsed())
        return self.account()

    def account(self) -> Account:
        """How things stand."""
        trials, seconds = self.database.spent(self.run_name)
        return Account(
            [Row.of(search) for search in self.searches],
            self.tunable.rest,
            sum(search.hope for search in self.searches),
            trials,
            seconds,
            str(self._left()),
            self.measured,
            self.withdrawn,
            self.reason,
            self.is_interrupted,
            self.curve,
        )

    def _draw(self) -> None:
        """Add to the curve where the model is now."""
        account = self.account()
        self.curve.append((account.spent, account.tuned))

    def _search(self, number: int) -> Search:
        """Where the search for a kernel was when the last run ended, or where that of another model is."""
        kernel = self.tunable.kernels[number]
        place = Place(kernel.key, self.tunable.processor, self.tunable.version)
        tried = {trial.choice for _, trial in self.database.trials(place)}
        record = self.database.record(place)
        if record and record.choice not in kernel.choices():  # it came from elsewhere
            self.database.withdraw(place, record.choice)
            record = None
        return Search(kernel, place, record, tried, 0 if record else len(tried) // BATCH)

    def _left(self) -> Budget:
        trials, seconds = self.database.spent(self.run_name)
        return self.budget.left(trials, seconds + time.monotonic() - self._noted)

    def _elapsed(self) -> float:
        """Seconds since this was asked last."""
        now = time.monotonic()
        elapsed, self._noted = now - self._noted, now
        return elapsed

    def _step(self) -> bool:
        """Run one batch; False if there is none to run."""
        left = self._left()
        if left.is_spent:
            self.reason = f"the budget of {self.budget} is spent"
            return False
        total = self.tunable.rest + sum(search.kernel.count * search.seconds for search in self.searches)
        search = most_hopeful(self.searches, LEAST_HOPE * total)
        if search is None:
            self.reason = "nothing more is to be had"
            return False
        wanted = search.next(BATCH)
        claimed = self.database.claim(self.run_name, search.place, wanted, self.budget.trials)
        if not claimed:
            self._refresh(search)
            return True
        self._try(search, claimed)
        return True

    def _refresh(self, search: Search) -> None:
        """Take over what others have found meanwhile; what they are still trying is theirs."""
        search.tried |= {trial.choice for _, trial in self.database.trials(search.place)}
        search.record = self.database.record(search.place)
        search.fruitless += 1

    def _try(self, search: Search, claimed: list[Choice]) -> None:
        """Race some choices, confirm the winner, and write down what came of it."""
        try:
            race = search.kernel.race(search.incumbent, claimed, self.judge)
            record = self._winner(search, race)
        except CannotRace as error:
            if search.record:  # perhaps it is the record that cannot be made
                self.database.withdraw(search.place, search.record.choice)
                search.record = None
                return self._try(search, claimed)
            search.given_up = str(error)
            failed = [Trial(choice, None, str(error)) for choice in claimed]
            return self.database.finish(self.run_name, search.place, failed, None, self._elapsed())
        trials = [_trial(search, choice, race) for choice in claimed]
        search.tried.update(claimed)
        search.fruitless = 0 if record else search.fruitless + 1
        self.database.finish(self.run_name, search.place, trials, record, self._elapsed())
        search.record = self.database.record(search.place)

    def _winner(self, search: Search, race: Race) -> Record | None:
        """The record of the choice that won, and won again when it ran alone; None if none did."""
        if not race.rounds:
            return None
        incumbent = race.rounds[search.incumbent]
        known = (search.incumbent, search.kernel.rule)
        challengers = {choice: times for choice, times in race.rounds.items() if choice not in known}
        if not challengers:
            return None
        winner = best(challengers, incumbent)
        if not is_faster(challengers[winner], incumbent, noise(incumbent, race.control)):
            return None
        again = search.kernel.race(search.incumbent, [winner], self.judge)
        if winner not in again.rounds:
            return None
        ours, theirs = again.rounds[winner], again.rounds[search.incumbent]
        if not is_faster(ours, theirs, noise(theirs, again.control)):
            return None
        return Record(winner, Share.of(ours, again.rounds[search.kernel.rule]).value, search.kernel.title)

    def _prove(self) -> None:
        """Run the model with its records in turns with the model by its rules; withdraw what is slower there.

        What is won is added up from the kernels with records: the code of all others is the same.
        """
        chosen = {search.kernel.key: search.record.choice for search in self.searches if search.record}
        if not chosen:
            return
        seconds = self.tunable.measure(chosen)
        whole, control, tuned = seconds[""].T
        saved = np.zeros_like(whole)
        for search in (search for search in self.searches if search.record):
            rule, again, ours = seconds[search.kernel.key].T
            if _is_slower(ours, rule, again):
                self._withdraw(search)
                tuned = tuned + rule - ours
            else:
                saved += rule - ours
        if _is_slower(tuned, whole, control):  # what one kernel wins, others may lose
            for search in self.searches:
                self._withdraw(search)
        elif saved.any():
            self.measured = Share.of(whole - saved, whole)

    def _withdraw(self, search: Search) -> None:
        if search.record:
            self.database.withdraw(search.place, search.record.choice)
            self.withdrawn.append(search.kernel.title)
            search.record = None


def _is_slower(ours: np.ndarray, theirs: np.ndarray, control: np.ndarray) -> bool:
    """Whether the first surely takes more time, by more than noise."""
    return Share.of(ours, theirs).least > 1 + noise(theirs, control)


def _trial(search: Search, choice: Choice, race: Race) -> Trial:
    if choice in race.failures:
        return Trial(choice, None, race.failures[choice])
    return Trial(choice, Share.of(race.rounds[choice], race.rounds[search.kernel.rule]).value)
