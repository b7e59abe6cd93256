"""The search goes where there is most to win, keeps what surely wins, and goes on wherever it was ended."""

from __future__ import annotations

import dataclasses
import json
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import tuned_sketch
from tuned_sketch import SketchKernel, choice, three, tunable, tune

from lvc.compiler.errors import CompileError, UsageError
from lvc.compiler.tuning.account import Account
from lvc.compiler.tuning.budget import Budget
from lvc.compiler.tuning.database import Database, Place, Record
from lvc.compiler.tuning.judgement import Judge, Share, is_faster, noise
from lvc.compiler.tuning.kernels import Tunable
from lvc.compiler.tuning.search import neighbours
from lvc.compiler.tuning.store import is_url
from lvc.compiler.tuning.tuner import Tuner


def place(key: str) -> Place:
    return Place(key, "a processor", "a version")


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("10m", 600), ("1.5h", 5400)])
def test_times(text: str, seconds: float) -> None:
    assert Budget.parse(text) == Budget(seconds=seconds)


@pytest.mark.parametrize("text", ["", "10", "m", "0s", "-1m", "10 m", "1e3s", "nan", "9999h", "1d"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(UsageError, match="is no time to tune for"):
        Budget.parse(text)


def test_the_best_choice_is_found_and_told(tmp_path: Path) -> None:
    kernel = SketchKernel("a", 12)
    account = tune([kernel], tmp_path / "t.db", Budget(trials=60))
    record = Database(tmp_path / "t.db").record(place("a"))
    assert record
    assert record.choice == choice(12)
    assert record.share == pytest.approx(1 / 1.5, rel=0.02)
    assert account.measured
    assert account.measured.value == pytest.approx(1 / 1.5, rel=0.02)
    assert account.far_off == [
        f"a sketch: {1 / record.share:.2f}x with {choice(12)} in place of {choice(0)}, for a problem"
    ]
    assert f"{account.gain:.2f}x so far (give or take 0 %), about 0 % more to expect" in account.summary
    assert account.reason == "nothing more is to be had"
    assert account.trials == len(set(kernel.raced)) == 29


def test_a_good_rule_is_kept_and_ends_the_search_early(tmp_path: Path) -> None:
    account = tune([SketchKernel("a", 0, knobs=2000)], tmp_path / "t.db", Budget(trials=1900))
    assert Database(tmp_path / "t.db").records() == {}
    assert account.gain == 1
    assert account.measured is None
    assert account.trials < 100


def test_trials_go_where_there_is_most_to_win(tmp_path: Path) -> None:
    near, far = SketchKernel("near", 5, seconds=1e-3, roof=9e-4), SketchKernel("far", 5, seconds=1e-3, count=4)
    tune([near, far], tmp_path / "t.db", Budget(trials=12))
    assert (len(near.raced), set(far.raced) >= {choice(knob) for knob in range(1, 13)}) == (0, True)


def test_the_budget_is_that_of_all_runs(tmp_path: Path) -> None:
    trials = [tune(three(), tmp_path / "t.db", Budget(trials=count)).trials for count in (7, 20, 20, 5, 31)]
    assert trials == [7, 20, 20, 20, 31]
    spent = Database(tmp_path / "t.db").spent(Tuner(tunable(three()), Database(tmp_path / "t.db"), Budget()).run_name)
    assert spent[0] == 31
    assert spent[1] > 0


def test_a_time_that_is_spent_leaves_nothing_to_do(tmp_path: Path) -> None:
    kernels = three()
    kernels[0].wait = 0.05
    tune(kernels, tmp_path / "t.db", Budget(seconds=0.02))
    again = three()
    account = tune(again, tmp_path / "t.db", Budget(seconds=0.02))
    assert account.reason == "the budget of 20.0 ms is spent"
    assert all(not kernel.raced for kernel in again)


def test_the_curve_falls_from_the_rules_to_the_tuned_model(tmp_path: Path) -> None:
    account = tune(three(), tmp_path / "t.db", Budget(trials=60))
    spent, seconds = zip(*account.curve, strict=True)
    assert (seconds[0], seconds[-1]) == (account.by_rule, account.tuned)
    assert list(spent) == sorted(spent)
    assert list(seconds) == sorted(seconds, reverse=True)
    assert len(set(seconds)) > 2
    later = tune(three(), tmp_path / "t.db", Budget(trials=90))
    assert later.curve[0] == (pytest.approx(account.spent), account.tuned)


def test_models_share_kernels(tmp_path: Path) -> None:
    tune([SketchKernel("a", 12)], tmp_path / "t.db", Budget(trials=60))
    other = [SketchKernel("a", 12), SketchKernel("b", 0, knobs=4)]
    account = tune(other, tmp_path / "t.db", Budget(trials=60))
    assert not other[0].raced
    assert account.rows[0].gain == pytest.approx(1.5, rel=0.02)
    assert account.trials == 3


def test_what_fails_is_told_and_not_tried_again(tmp_path: Path) -> None:
    kernel = SketchKernel("a", 12, broken={12: "it ended the process with SIGSEGV"})
    tune([kernel], tmp_path / "t.db", Budget(trials=60))
    database = Database(tmp_path / "t.db")
    failed = [trial for _, trial in database.trials() if trial.error]
    assert [(trial.choice, trial.share) for trial in failed] == [(choice(12), None)]
    assert database.records()[place("a")].choice in (choice(11), choice(13))
    assert kernel.raced.count(choice(12)) == 1


def test_a_gain_that_does_not_show_in_the_model_is_withdrawn(tmp_path: Path) -> None:
    account = tune(three(), tmp_path / "t.db", Budget(trials=60), slower=["b"])
    assert set(Database(tmp_path / "t.db").records()) == {place("a")}
    assert account.withdrawn == ["a sketch"]
    assert account.measured
    assert 0.5 < account.measured.value < 1


def test_a_model_that_gets_slower_loses_all_its_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel may be faster, and slow down those that run beside it."""
    plain = tuned_sketch.tunable

    def slower(kernels: list[SketchKernel], *given: object) -> Tunable:
        made = plain(kernels)

        def measure(choices: Mapping[str, str]) -> Mapping[str, np.ndarray]:
            return {**made.measure(choices), "": np.array([[1.0, 1.02, 1.1]] * 40)}

        return dataclasses.replace(made, measure=measure)

    monkeypatch.setattr(tuned_sketch, "tunable", slower)
    account = tune(three(), tmp_path / "t.db", Budget(trials=60))
    assert Database(tmp_path / "t.db").records() == {}
    assert (account.gain, account.measured, len(account.withdrawn)) == (1, None, 2)


def test_a_record_that_cannot_be_made_is_withdrawn(tmp_path: Path) -> None:
    database = Database(tmp_path / "t.db", create=True)
    database.take({place("a"): Record(choice(77), 0.1, "from elsewhere")}, [], "elsewhere")
    account = tune([SketchKernel("a", 12)], tmp_path / "t.db", Budget(trials=60))
    assert Database(tmp_path / "t.db").records()[place("a")].choice == choice(12)
    assert account.rows[0].note == ""


def test_an_interrupt_keeps_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kernels, races = three(), [0]
    plain = SketchKernel.race

    def interrupted(self: SketchKernel, *arguments: object) -> object:
        races[0] += 1
        if races[0] == 3:
            raise KeyboardInterrupt
        return plain(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(SketchKernel, "race", interrupted)
    account = tune(kernels, tmp_path / "t.db", Budget(trials=30))
    assert account.is_interrupted
    assert 0 < account.trials == len(Database(tmp_path / "t.db").trials())


class Crowd:
    """How many races are run at once; each waits for a while until so many were."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, wanted: int, fault: Exception | None = None) -> None:
        self.now = self.most = self.count = 0
        plain, lock = SketchKernel.race, threading.Lock()

        def race(kernel: SketchKernel, *arguments: object) -> object:
            with lock:
                self.now, self.count = self.now + 1, self.count + 1
                self.most = max(self.most, self.now)
                if fault and self.count == 4:
                    raise fault
            deadline = time.monotonic() + 10
            while self.most < wanted and time.monotonic() < deadline:
                time.sleep(0.01)
            try:
                return plain(kernel, *arguments)  # type: ignore[arg-type]
            finally:
                with lock:
                    self.now -= 1

        monkeypatch.setattr(SketchKernel, "race", race)


@pytest.mark.parametrize("kernels", [1, 3])
def test_races_are_run_at_once(kernels: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each trial once, as many as the budget has, and the best choice is found."""
    crowd = Crowd(monkeypatch, 3)
    model = tunable(three()[:kernels], workers=3)
    account = Tuner(model, Database(tmp_path / "t.db", create=True), Budget(trials=25)).run()
    trials = Database(tmp_path / "t.db").trials()
    assert account.trials == len(trials) == len({(at.kernel, trial.choice) for at, trial in trials}) == 25
    assert crowd.most == 3
    assert Database(tmp_path / "t.db").records()[place("a")].choice == choice(7)


def test_a_fault_of_one_race_ends_all_and_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Crowd(monkeypatch, 2, CompileError("all boards are retired"))
    database = Database(tmp_path / "t.db", create=True)
    with pytest.raises(CompileError, match="all boards are retired"):
        Tuner(tunable(three(), workers=2), database, Budget(trials=40)).run()
    found = len(database.trials())
    assert found < 40
    tuner = Tuner(tunable(three(), workers=2), database, Budget(trials=40))
    assert tuner.database.spent(tuner.run_name)[1] > 0
    assert tuner.run().trials == 40


def is_there(location: str) -> bool:
    if not is_url(location):
        return Path(location).exists()
    try:
        Database(location)
    except UsageError:
        return False
    return True


def kill_until_done(location: str, trials: int, kills: int, seed: int) -> int:
    """Tune again and again, killed after random times; return how often it was killed."""
    generator, killed = random.Random(seed), 0
    command = [sys.executable, tuned_sketch.__file__, location, str(trials), "0.03"]
    best: dict[Place, Record] = {}
    for _ in range(kills):
        run = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
        began = time.monotonic()
        while not is_there(location) and time.monotonic() - began < 20:
            time.sleep(0.005)
        time.sleep(generator.uniform(0.0, 0.5))
        run.kill()
        killed += run.wait() == -signal.SIGKILL
        now = Database(location, create=True).records()
        assert all(now[key].share <= best[key].share for key in best), "a record is lost"
        best = now
    assert subprocess.run(command, capture_output=True, check=True, text=True).stdout.split() == [str(trials)]
    return killed


def check_killed(location: str, trials: int, kills: int) -> None:
    assert kill_until_done(location, trials, kills, seed=kills) >= 1
    database = Database(location)
    assert len(database.trials()) == len({(at.kernel, trial.choice) for at, trial in database.trials()}) == trials
    assert database.claim("another run", place("none"), [choice(1)], 1) == [choice(1)]


def test_a_tuner_that_is_killed_goes_on(location: str) -> None:
    check_killed(location, 60, 3)


@pytest.mark.slow
def test_a_tuner_that_is_killed_twenty_times_goes_on(location: str) -> None:
    check_killed(location, 60, 20)


def test_two_tuners_share_a_database(location: str) -> None:
    """Together they run each trial once, and as many as the budget has."""
    command = [sys.executable, tuned_sketch.__file__, location, "40", "0.02"]
    for run in [subprocess.Popen(command, stdout=subprocess.DEVNULL) for _ in range(2)]:
        assert run.wait() == 0
    database = Database(location)
    assert len(database.trials()) == 40
    assert database.records()[place("a")].choice == choice(7)


def test_neighbours_differ_by_one_number() -> None:
    def of(**knobs: int | str) -> str:
        return json.dumps(knobs)

    others = [of(kernel="x", a=4, b=9), of(kernel="x", a=3, b=2), of(kernel="x", a=4, b=3), of(kernel="y", a=4, b=2)]
    others += [of(kernel="x", c=4, b=2), of(kernel="x", a=5, b=3)]
    assert list(neighbours(of(kernel="x", a=4, b=2), others)) == [others[1], others[2], others[0]]


@pytest.mark.parametrize("gain", [0.0, 0.05])
def test_noise_is_no_gain(gain: float) -> None:
    """One in three rounds is disturbed, each run by itself, on top of a slow drift."""
    random_ = np.random.default_rng(1)

    def times(scale: float) -> np.ndarray:
        disturbed = np.where(random_.random(120) < 0.33, 1 + random_.random(120), 1.0)
        return scale * np.linspace(1, 1.2, 120) * disturbed * (1 + 0.01 * random_.random(120))

    rule, control, other = times(1.0), times(1.0), times(1 - gain)
    assert noise(rule, control) < 0.02
    assert is_faster(other, rule, noise(rule, control)) is (gain > 0)
    assert Share.of(other, rule).value == pytest.approx(1 - gain, abs=0.01)


def test_a_race_ends_when_it_is_sure() -> None:
    steady = np.full(40, 1e-3)
    assert Judge().is_done([steady, 0.8 * steady, 1.2 * steady])
    assert not Judge().is_done([steady[:39], 0.8 * steady[:39]])
    undecided = np.where(np.arange(120) // 8 % 2, 0.9, 1.05) * 1e-3
    assert not Judge().is_done([steady, undecided[:40]])
    assert Judge().is_done([np.full(120, 1e-3), undecided])
    assert Judge(limit=0.01).is_done([steady, undecided[:40]])


def test_an_account_of_nothing() -> None:
    assert Account([], 0.0, reason="nothing more is to be had").to_json()["expected"] == 0.0
