"""The loop of training: steps, judgements, checkpoints, and the best state at the end.

The same seed, data and number of threads give the same weights, to the bit, however often training is broken off and
goes on from its checkpoint.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

import torch

from lvc.compiler.errors import CompileError
from lvc.compiler.pipeline.passes import Table
from lvc.compiler.pipeline.workspace import Progress
from lvc.compiler.text import duration
from lvc.passes.training.checkpoint import Saved, TrainingCheckpoint
from lvc.passes.training.division import sum_gradients
from lvc.passes.training.feed import Feed
from lvc.passes.training.form import TrainingForm, to_layout
from lvc.passes.training.judgement import Judge, Verdict, refuse_nan
from lvc.passes.training.log import Entry, draw_log, write_log
from lvc.passes.training.objective import Objective, Seen
from lvc.passes.training.optimisation import Average, Optimisation, copies
from lvc.passes.training.speed import PLAIN, Mode, seconds_of

_WORTH_TRYING = 100  # steps; in fewer, trying costs more than it gains


@dataclass
class Training:
    """One piece of training: what is trained on what, towards what, for how many ``steps``.

    ``every`` is after how many steps a judgement is made; ``average`` the decay of averaged weights, 0 for none.
    ``keep_best`` ends with the best state that was judged, which may be the one that training began with.
    """

    name: str
    form: TrainingForm
    feed: Feed
    objective: Objective
    optimisation: Optimisation
    judge: Judge | None
    checkpoint: TrainingCheckpoint
    progress: Progress
    steps: int
    every: int
    average: float
    keep_best: bool
    minutes: float
    mode: Mode
    device: torch.device

    log: list[Entry] = field(default_factory=list, init=False)
    first: Verdict | None = field(default=None, init=False)
    last: Verdict | None = field(default=None, init=False)
    best: Verdict | None = field(default=None, init=False)
    best_step: int = field(default=0, init=False)
    _best_values: dict[str, torch.Tensor] | None = field(default=None, init=False)
    _average: Average | None = field(default=None, init=False)
    _sums: dict[str, float] = field(default_factory=dict, init=False)
    _spent: float = field(default=0.0, init=False)

    def run(self) -> None:
        """Train; the tensors of the model then have the state that is kept."""
        with self.form.on(self.device) as form, self.objective.on(self.device):
            self.form = form
            self._train()
        self.form.settle()

    def _train(self) -> None:
        saved = self.checkpoint.load()
        self._average = Average(self.form.state, self.average) if self.average else None
        start = self._go_on(saved) if saved else self._begin()
        self.form.lay_out(self.mode.layout)
        began = saved_at = time.monotonic()
        spent_before = self._spent
        for step in self.progress.track(range(start, self.steps), self.name, self.steps - start):
            self.step(step)
            self._spent = spent_before + time.monotonic() - began
            done, is_due = step + 1, time.monotonic() - saved_at > 60 * self.minutes
            if done % self.every == 0 or done == self.steps:
                self._look(done, (done - start) * self.feed.batch / (time.monotonic() - began))
                is_due = True
            if is_due:
                self._save(done)
                saved_at = time.monotonic()
        self._end()

    def _begin(self) -> int:
        if self.judge:
            self.first = self.judge(self.form, self.mode.layout)
            self._take(self.first, 0)
            self.progress.say(f"{self.name}: before training: {self.first}")
        if self.mode.precision != PLAIN.precision and self.steps >= _WORTH_TRYING:
            self._tell_gain()
        self._save(0)
        return 0

    def _tell_gain(self) -> None:
        """Measure what the precision gains, and leave everything as it was."""
        before = self.form.snapshot()
        self.form.lay_out(self.mode.layout)
        plain = replace(self.mode, precision=PLAIN.precision)
        seconds = seconds_of([plain, self.mode], partial(self._gradients, 0))
        for parameter in self.optimisation.parameters.values():
            parameter.grad = None
        self._sums = {}
        self.form.restore(before)
        gain = f"{duration(seconds[self.mode])} a step in {self.mode.precision}, {duration(seconds[plain])} in fp32"
        slower = seconds[self.mode] > seconds[plain]
        self.progress.say(f"{self.name}: {gain}" + ("; precision=fp32 would be faster" if slower else ""))

    def step(self, step: int) -> None:
        """Train by one batch; steps are counted from 0."""
        self.form.places.begin(step / self.steps)
        self._gradients(step, self.mode)
        with self.form.here():
            self.optimisation.step(step)
            self.form.keep_valid()
        if self._average:
            self._average.update(step)

    def _gradients(self, step: int, mode: Mode) -> None:
        """Add the gradients of a step to those that parameters have, which are none, and its losses to the sums."""
        share = self.feed.micro / self.feed.batch
        with self.feed.randomness():
            for inputs, aims in self.feed.parts(step):
                with self.form.here():
                    losses = self._losses(inputs, aims, mode)
                    loss = torch.stack([part.float() for part in losses.values()]).sum()
                    refuse_nan(loss.item(), step, self._last_good())
                    (loss * share).backward()  # type: ignore[no-untyped-call]
                for name, part in losses.items():
                    self._sums[name] = self._sums.get(name, 0.0) + float(part.detach()) * share
        sum_gradients(list(self.form.trained.values()), self.form.ranks)

    def _losses(self, inputs: torch.Tensor, aims: torch.Tensor | None, mode: Mode) -> Mapping[str, torch.Tensor]:
        """The parts of the loss on a part of a batch, of which inputs and aims are this process's share."""
        form = self.form
        batch = to_layout(inputs.to(form.device), mode.layout)
        targets = aims if aims is None else form.ranks.gather(aims.to(form.device))
        with mode.autocast():
            given = form.run(form.training, batch)
        outputs, watched = form.parts(given)
        return self.objective.losses(Seen(batch, outputs, watched, targets, self.feed.micro, mode))

    def _look(self, done: int, images_a_second: float) -> None:
        """Judge the model as it is, and tell how training goes."""
        verdict = self.last = self._judge()
        steps = done - (self.log[-1].step if self.log else 0)
        losses = {name: total / steps for name, total in self._sums.items()}
        self._sums = {}
        epoch = done / self.feed.steps_an_epoch
        rate = self.optimisation.rate(done - 1)
        self.log.append(Entry(done, epoch, losses, rate, verdict, images_a_second, self._spent))
        if verdict:
            self._take(verdict, done)
        told = ", ".join(f"{name} {value:.4g}" for name, value in losses.items())
        left = (self.steps - done) * self.feed.batch / images_a_second
        self.progress.say(
            f"{self.name}: step {done} of {self.steps}, epoch {epoch:.3g}: {told}"
            + (f"; held out: {verdict}" if verdict else "")
            + f"; {images_a_second:.0f} images/s, {duration(left)} left"
        )
        write_log(self.checkpoint.beside(".jsonl"), self.log)

    def _judge(self) -> Verdict | None:
        if not self.judge:
            return None
        with self.form.holding(self._average.values if self._average else None):
            return self.judge(self.form, self.mode.layout)

    def _take(self, verdict: Verdict, step: int) -> None:
        """Remember the state if it is the best so far."""
        if self.keep_best and verdict.is_better_than(self.best):
            self.best, self.best_step = verdict, step
            values = self._average.values if self._average and step else self.form.state
            self._best_values = copies(values)

    def _end(self) -> None:
        if self._best_values:
            self.form.restore(self._best_values)
        elif self._average:
            self.form.restore(self._average.values)
        draw_log(self.checkpoint.beside(".svg"), self.name, self.log)

    def _save(self, done: int) -> None:
        kinds: dict[str, Mapping[str, torch.Tensor]] = {
            "model": self.form.state,
            "own": self.objective.parameters,
            "optimiser": self.optimisation.state(),
            "average": self._average.values if self._average else {},
            "best": self._best_values or {},
        }
        told: dict[str, Any] = {
            "log": [asdict(entry) for entry in self.log],
            "first": asdict(self.first) if self.first else None,
            "last": asdict(self.last) if self.last else None,
            "best": asdict(self.best) if self.best else None,
            "best_step": self.best_step,
            "mode": asdict(self.mode),
            "sums": self._sums,
            "spent": self._spent,
        }
        self.checkpoint.save(done, kinds, told)

    def _go_on(self, saved: Saved) -> int:
        """Take up the state that was kept; return after how many steps it was."""
        told = saved.told
        try:
            self.form.restore(saved.of("model"))
            for name, parameter in self.objective.parameters.items():
                parameter.data.copy_(saved.of("own")[name])
            self.mode = Mode(**told["mode"])
            self.form.lay_out(self.mode.layout)
            self.optimisation.load(saved.of("optimiser"))
            if self._average:
                for name, value in self._average.values.items():
                    value.copy_(saved.of("average")[name])
            self._best_values = saved.of("best") or None
            self.log = [Entry.of(entry) for entry in told["log"]]
            self.first = Verdict(**told["first"]) if told["first"] else None
            self.last = Verdict(**told["last"]) if told["last"] else None
            self.best = Verdict(**told["best"]) if told["best"] else None
            self.best_step, self._sums, self._spent = told["best_step"], told["sums"], told["spent"]
        except (KeyError, TypeError, RuntimeError) as error:
            raise CompileError(
                f"the checkpoint '{self.checkpoint.path}' is of other training",
                why=str(error).splitlines()[0],
                help="remove it to train from the start",
            ) from error
        self.progress.say(f"{self.name}: goes on after step {saved.step} of {self.steps}")
        return saved.step

    def _last_good(self) -> str:
        if self.log and self.checkpoint.path:
            return f"the state after step {self.log[-1].step} is in {self.checkpoint.path}"
        return "nothing was kept, since no --checkpoints were given or no step was reached"

    def table(self) -> Table:
        """The log as a table of a report, without times: the same training gives the same report."""
        names = list(dict.fromkeys(name for entry in self.log for name in entry.losses))
        rows: tuple[tuple[str | int | float, ...], ...] = tuple(
            (
                entry.step,
                round(entry.epoch, 2),
                *(float(f"{entry.losses.get(name, 0.0):.4g}") for name in names),
                float(f"{entry.rate:.3g}"),
                str(entry.judged or ""),
            )
            for entry in self.log
        )
        return Table(
            f"{self.name}: {self.steps} steps of {self.feed.batch} images",
            ("step", "epoch", *names, "learning rate", "held out"),
            rows,
        )
