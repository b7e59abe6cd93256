"""Tuning of a model: trials go where there is most to win, and only what surely wins is kept.

A batch of choices runs against the best one so far; the winner runs once more, alone, in a process and with code of its
own, and becomes the record of its kernel if it wins again. At the end the model with all records runs in turns with the
model by the rules, and a record whose kernel is surely slower there is withdrawn.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np

from lvc.compiler.errors import LvcError
from lvc.compiler.tuning.account import Account, Row
from lvc.compiler.tuning.budget import Budget
from lvc.compiler.tuning.database import Database, Place, Record, Trial
from lvc.compiler.tuning.judgement import Judge, Share, best, is_faster, noise
from lvc.compiler.tuning.kernels import CannotRace, Choice, Race, Tunable
from lvc.compiler.tuning.search import Search, most_hopeful

BATCH = 6
LEAST_HOPE = 1e-3
"""Of the model's time: where no kernel promises more, tuning ends."""
_LOOK = 0.2
"""Seconds after which somebody who waits looks again."""

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
        self._turn = threading.Condition(threading.RLock())
        self._is_ended = False
        self._doing = ""
        self._fault: Exception | None = None

    @property
    def run_name(self) -> str:
        """What the budget is known by: the kernels of the model, and how often it runs each."""
        kernels = sorted(f"{kernel.count} {kernel.key}" for kernel in self.tunable.kernels)
        parts = "\0".join([self.tunable.processor, self.tunable.version, *kernels])
        return hashlib.sha256(parts.encode()).hexdigest()[:20]

    def run(self) -> Account:
        """Tune until the budget is spent or nothing more is to be had, and prove the result. Where several races can be
        run at once, each is a thread's."""
        try:
            self._draw()
            self._show()
            self._tune()
            self._prove()
        except KeyboardInterrupt:
            self.reason, self.is_interrupted = "interrupted, and the same command goes on", True
            self._give_back()
            return self.account()
        except LvcError:
            with suppress(LvcError):  # it may be the database that is gone
                self._give_back()
            raise
        with self._turn:
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
            self._doing,
            f"{self.tunable.processor}, lvc {self.tunable.version}",
        )

    def _show(self) -> None:
        if self.watch:
            self.watch(self.account())

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

    def _give_back(self) -> None:
        """Let others have what is being tried, and note the time that was spent."""
        with self._turn:
            self._is_ended = True
            for search in self.searches:
                self.database.release(search.place, list(search.running))
                search.running.clear()
            self.database.spend(self.run_name, self._elapsed())

    def _tune(self) -> None:
        if self.tunable.workers == 1:
            return self._work()
        threads = [threading.Thread(target=self._work_apart, daemon=True) for _ in range(self.tunable.workers)]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                while thread.is_alive():
                    thread.join(_LOOK)
        finally:
            self._is_ended = True
        if self._fault:
            raise self._fault

    def _work_apart(self) -> None:
        """What a thread does; what it raises is raised by the tuner, once it is the first."""
        try:
            self._work()
        except Exception as error:
            with self._turn:
                self._fault, self._is_ended = self._fault or error, True
                self._turn.notify_all()

    def _work(self) -> None:
        """Run one batch after the other."""
        while claimed := self._next():
            self._try(*claimed)
            with self._turn:
                self._turn.notify_all()
                self._draw()
                self._show()

    def _next(self) -> tuple[Search, list[Choice]] | None:
        """Claim a batch; None if there is none to run, nor will be by what others find that run now."""
        with self._turn:
            while not self._is_ended:
                if self._left().is_spent:
                    self.reason = f"the budget of {self.budget} is spent"
                    return None
                total = self.tunable.rest + sum(search.kernel.count * search.seconds for search in self.searches)
                search = most_hopeful(self.searches, LEAST_HOPE * total)
                if search and (claimed := self._claim(search)):
                    self._show()
                    return search, claimed
                if any(search.running for search in self.searches):
                    self._turn.wait(_LOOK)
                elif search:
                    self._refresh(search)
                else:
                    self.reason = "nothing more is to be had"
                    return None
            return None

    def _claim(self, search: Search) -> list[Choice]:
        claimed = self.database.claim(self.run_name, search.place, search.next(BATCH), self.budget.trials)
        search.running.update(claimed)
        return claimed

    def _refresh(self, search: Search) -> None:
        """Take over what others have found meanwhile; what they are still trying is theirs."""
        search.tried |= {trial.choice for _, trial in self.database.trials(search.place)}
        search.record = self.database.record(search.place)
        search.fruitless += 1

    def _try(self, search: Search, claimed: list[Choice]) -> None:
        """Race some choices, and write down what came of it."""
        try:
            trials, record = self._trials(search, claimed)
        except BaseException:
            with self._turn:
                search.running.difference_update(claimed)
                self.database.release(search.place, claimed)
            raise
        with self._turn:
            search.running.difference_update(claimed)
            search.tried.update(claimed)
            search.fruitless = 0 if record else search.fruitless + 1
            self.database.finish(self.run_name, search.place, trials, record, self._elapsed())
            search.record = self.database.record(search.place)

    def _trials(self, search: Search, claimed: list[Choice]) -> tuple[list[Trial], Record | None]:
        """Race some choices, and confirm the winner."""
        incumbent = search.incumbent
        try:
            race = search.kernel.race(incumbent, claimed, self.judge)
            return [_trial(search, choice, race) for choice in claimed], self._winner(search, incumbent, race)
        except CannotRace as error:
            if incumbent == search.kernel.rule:
                search.given_up = str(error)
                return [Trial(choice, None, str(error)) for choice in claimed], None
            with self._turn:  # perhaps it is the record that cannot be made
                self.database.withdraw(search.place, incumbent)
                search.record = self.database.record(search.place)
            return self._trials(search, claimed)

    def _winner(self, search: Search, incumbent: Choice, race: Race) -> Record | None:
        """The record of the choice that won, and won again when it ran alone; None if none did."""
        if not race.rounds:
            return None
        best_so_far = race.rounds[incumbent]
        known = (incumbent, search.kernel.rule)
        challengers = {choice: times for choice, times in race.rounds.items() if choice not in known}
        if not challengers:
            return None
        winner = best(challengers, best_so_far)
        if not is_faster(challengers[winner], best_so_far, noise(best_so_far, race.control)):
            return None
        again = search.kernel.race(incumbent, [winner], self.judge)
        if winner not in again.rounds:
            return None
        ours, theirs = again.rounds[winner], again.rounds[incumbent]
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
        self._doing = "now the model runs with its records beside that by the rules"
        self._show()
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
