"""Training as a pass: it learns, its steps are PyTorch's, it goes on where it was, and its mistakes are told."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
import torch
from torch.nn import functional
from training_models import Pictures, network, trained, weights, workspace

from lvc.compiler.data.access import access
from lvc.compiler.data.samples import Fit
from lvc.compiler.errors import CompileError, LvcError, UsageError
from lvc.compiler.ir.dialect import aten
from lvc.compiler.ir.graph import arguments, calls
from lvc.compiler.ir.model import Model
from lvc.compiler.pipeline.pipeline import Pipeline
from lvc.compiler.pipeline.workspace import Workspace
from lvc.passes.training.augmentation import Augmentation
from lvc.passes.training.feed import Feed, Mixing
from lvc.passes.training.schedule import Schedule

T = TypeVar("T")
SIX = "finetune{epochs=6 batch=16 lr=0.1 augment=none}"


def right(model: Model, pictures: Pictures) -> float:
    return float(np.mean([model(image)[0].argmax() == label for image, label in pictures]))


def test_finetune_learns_what_it_is_shown() -> None:
    before, after = network(), trained("finetune{epochs=12 batch=16 lr=0.1}")[0]
    unseen = Pictures(200, seed=7)
    assert right(before, unseen) < 0.4
    assert right(after, unseen) > 0.85


def test_training_leaves_the_model_that_was_given_alone() -> None:
    given = network()
    before = weights(given)
    trained(SIX, given)
    assert all(torch.equal(before[name], value) for name, value in weights(given).items())


def test_operators_are_in_evaluation_mode_afterwards() -> None:
    after, _ = trained(SIX)
    graph = after.module.graph
    assert [arguments(node)["training"] for node in calls(graph, aten.batch_norm.default)] == [False]
    assert [arguments(node)["train"] for node in calls(graph, aten.dropout.default)] == [False]
    assert weights(after)["m"].abs().max() > 0.01  # the statistics are those of the images


def test_frozen_batch_norm_keeps_its_statistics() -> None:
    before, after = weights(network()), weights(trained(SIX.replace("}", " batch_norm=freeze}"))[0])
    assert torch.equal(before["m"], after["m"])
    assert torch.equal(before["v"], after["v"])
    assert not torch.equal(before["g"], after["g"])


def feed_of(pictures: Pictures, batch: int, micro: int = 0, seed: int = 0) -> Feed:
    model = network()
    samples = access(pictures)
    kept = torch.randperm(len(samples), generator=torch.Generator().manual_seed(seed)).tolist()
    kept = sorted(kept[round(0.1 * len(samples)) :])
    return Feed(
        samples=samples.only(kept),
        fit=Fit.of(model.inputs),
        augmentation=Augmentation.of((), (8, 8), has_pictures=False),
        mixing=Mixing(),
        batch=batch,
        micro=micro or batch,
        classes=4,
        seed=seed,
        threads=1,
    )


@pytest.mark.parametrize("optimiser", ["sgd", "adamw"])
def test_steps_are_those_of_pytorch(optimiser: str) -> None:
    """The same network, trained by a loop written out with torch.optim, ends in the same weights."""
    space = workspace(train=Pictures(96), judge=Pictures(4))
    text = f"finetune{{steps=12 batch=8 lr=0.05 optimiser={optimiser} augment=none clip=1 precision=fp32}}"
    ours = weights(trained(text, network(normalised=False), space)[0])

    plain = network(normalised=False)
    feed = feed_of(Pictures(96), 8)
    parameters = dict(plain.module.named_parameters())
    groups = [
        {"params": [p for p in parameters.values() if p.ndim > 1], "weight_decay": 5e-4},
        {"params": [p for p in parameters.values() if p.ndim == 1], "weight_decay": 0.0},
    ]
    chosen: torch.optim.Optimizer = (
        torch.optim.SGD(groups, lr=0.05, momentum=0.9, nesterov=True)
        if optimiser == "sgd"
        else torch.optim.AdamW(groups, lr=0.05)
    )
    schedule = Schedule("cosine", 12, 0.05)
    for step in range(12):
        with feed.randomness():
            ((inputs, targets),) = feed.parts(step)
        assert targets is not None
        loss = functional.cross_entropy(plain.with_batch(8).module(inputs)[0], targets)
        chosen.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(list(parameters.values()), 1.0)
        for group in chosen.param_groups:
            group["lr"] = 0.05 * schedule(step)
        chosen.step()
    for name, value in parameters.items():
        torch.testing.assert_close(ours[name], value.detach(), rtol=1e-5, atol=1e-7)


def test_gradients_of_parts_add_up_to_those_of_the_batch() -> None:
    text = "finetune{steps=5 batch=16 lr=0.05 augment=none precision=fp32}"
    whole = weights(trained(text, network(normalised=False))[0])
    parts = weights(trained(text.replace("batch=16", "batch=16 micro=4"), network(normalised=False))[0])
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, rtol=1e-4, atol=1e-6)


def test_the_same_seed_gives_the_same_weights_and_another_does_not() -> None:
    text = "finetune{epochs=2 batch=16 lr=0.1 mixup=0.2 cutmix=1 average=0.9}"
    first, again = (weights(trained(text)[0]) for _ in range(2))
    other = weights(trained(text, space=workspace(seed=1))[0])
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["w1"], other["w1"])


class Killed(Exception):
    """The process is gone."""


@dataclass(frozen=True)
class Mortal:
    """Progress that ends after some steps, as a process that is killed does."""

    steps: int

    def track(self, items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
        for count, item in enumerate(items):
            if count == self.steps:
                raise Killed
            yield item

    def say(self, text: str) -> None:
        return None


@dataclass(frozen=True)
class Listening:
    """Progress that keeps what is said."""

    told: list[str]

    def track(self, items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
        yield from items

    def say(self, text: str) -> None:
        self.told.append(text)


@pytest.mark.parametrize("options", ["average=0.9 mixup=0.3", "optimiser=adamw lr=0.01 keep=best", "micro=4 clip=1"])
def test_broken_off_training_ends_in_the_same_weights(tmp_path: Path, options: str) -> None:
    text = f"finetune{{steps=20 batch=16 every=3 minutes=0 {options}}}"
    whole = weights(trained(text)[0])
    folder = tmp_path / "kept"
    for steps in (4, 1, 7):
        with pytest.raises(Killed):
            trained(text, space=replace(workspace(folder), progress=Mortal(steps)))
    told: list[str] = []
    after, notes = trained(text, space=replace(workspace(folder), progress=Listening(told)))
    assert all(torch.equal(whole[name], value) for name, value in weights(after).items())
    assert any("goes on after step 12 of 20" in line for line in told)
    assert notes == trained(text)[1]
    log = [json.loads(line) for line in next(folder.glob("*.jsonl")).read_text().splitlines()]
    assert [entry["step"] for entry in log] == [3, 6, 9, 12, 15, 18, 20]


def test_distillation_with_projections_goes_on_too(tmp_path: Path) -> None:
    text = "prune-channels{ratio=0.4},distil{steps=9 batch=16 every=2 minutes=0 losses=soft-labels+features}"
    whole = weights(trained(text)[0])
    with pytest.raises(Killed):
        trained(text, space=replace(workspace(tmp_path), progress=Mortal(5)))
    after, _ = trained(text, space=workspace(tmp_path))
    assert all(torch.equal(whole[name], value) for name, value in weights(after).items())


def test_a_broken_checkpoint_is_told(tmp_path: Path) -> None:
    trained("finetune{steps=2 batch=16}", space=workspace(tmp_path))
    path = next(tmp_path.glob("*.safetensors"))
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(CompileError, match="is broken"):
        trained("finetune{steps=2 batch=16}", space=workspace(tmp_path))


def test_finished_training_is_not_done_again(tmp_path: Path) -> None:
    first = weights(trained("finetune{steps=5 batch=16}", space=workspace(tmp_path))[0])
    again = weights(trained("finetune{steps=5 batch=16}", space=replace(workspace(tmp_path), progress=Mortal(0)))[0])
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_the_best_state_stays_where_it_is_asked_for() -> None:
    """A learning rate that ruins the model: the state before training is the best, and is kept to the bit."""
    good = trained("finetune{epochs=12 batch=16 lr=0.1}")[0]
    ruin = "finetune{steps=4 batch=16 lr=3 warmup=0 schedule=constant every=1"
    kept, notes = trained(ruin + " keep=best}", good)
    assert all(torch.equal(weights(good)[name], value) for name, value in weights(kept).items())
    assert any("training gained nothing" in note for note in notes)
    lost, notes = trained(ruin + "}", good)
    assert right(lost, Pictures(100, seed=7)) < right(good, Pictures(100, seed=7)) - 0.2
    assert any("knew them by heart" in note for note in notes)


def test_zeros_of_sparse_weights_stay() -> None:
    after, notes = trained("sparsify{ratio=0.5}," + SIX)
    before, _ = trained("sparsify{ratio=0.5}")
    zero = weights(before)["w2"] == 0
    assert 0.4 < zero.float().mean() < 0.6
    assert bool((weights(after)["w2"][zero] == 0).all())
    assert not torch.equal(weights(after)["w2"], weights(before)["w2"])
    assert any("stay zero" in note for note in notes)
    freed, _ = trained("sparsify{ratio=0.5}," + SIX.replace("}", " zeros=train}"))
    assert not bool((weights(freed)["w2"][zero] == 0).all())


def test_averaged_weights_are_those_of_the_formula() -> None:
    states = [weights(network())]
    for steps in (1, 2, 3):
        text = f"finetune{{steps={steps} batch=16 schedule=constant warmup=0 lr=0.05}}"
        states.append(weights(trained(text)[0]))
    wanted = states[0]["w1"]
    for step, state in enumerate(states[1:]):
        wanted = wanted.lerp(state["w1"], 1 - min(0.5, (1 + step) / (10 + step)))
    text = "finetune{steps=3 batch=16 schedule=constant warmup=0 lr=0.05 average=0.5}"
    torch.testing.assert_close(weights(trained(text)[0])["w1"], wanted)


@pytest.mark.parametrize("penalty", ["slimming", "group_lasso", "l1"])
def test_penalties_make_what_they_weigh_smaller(penalty: str) -> None:
    def size(model: Model) -> float:
        stored = weights(model)
        return float(stored["g"].abs().sum() if penalty == "slimming" else stored["w1"].abs().sum())

    free, bound = (trained(SIX.replace("}", f" {penalty}={factor}}}"))[0] for factor in (0, 0.05))
    assert size(bound) < 0.8 * size(free)


def test_schedules() -> None:
    shares = {name: [Schedule(name, 100, 0.0)(step) for step in range(100)] for name in ("cosine", "step", "one-cycle")}
    assert shares["cosine"][0] == 1.0
    assert shares["cosine"][50] == pytest.approx(0.5)
    assert [shares["step"][at] for at in (49, 50, 75)] == pytest.approx([1.0, 0.1, 0.01])
    assert max(shares["one-cycle"]) == shares["one-cycle"][30] == pytest.approx(1.0)
    assert shares["one-cycle"][0] == pytest.approx(1 / 25)
    rising = Schedule("constant", 100, 0.1)
    assert [rising(step) for step in (0, 9, 10, 99)] == pytest.approx([1 / 11, 10 / 11, 1, 1])


def test_a_user_s_loss(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "from torch.nn import functional\n"
        "def loss(outputs, targets):\n"
        "    return functional.cross_entropy(outputs[0], targets)\n"
        "def broken(outputs, targets):\n"
        "    return outputs[0]\n"
    )
    ours = weights(trained(SIX.replace("}", f" loss={file}:loss}}"))[0])
    known = weights(trained(SIX)[0])
    assert all(torch.equal(known[name], value) for name, value in ours.items())
    with pytest.raises(UsageError, match="must return one number"):
        trained(SIX.replace("}", f" loss={file}:broken}}"))
    with pytest.raises(UsageError, match="has no function 'nothing'"):
        Pipeline.parse(f"finetune{{loss={file}:nothing}}")


@pytest.mark.parametrize(
    ("text", "data", "wanted"),
    [
        ("finetune{batch=500}", Pictures(128), "a batch has 500"),
        ("finetune{batch=8}", Pictures(0), "is empty"),
        ("finetune{batch=8}", Pictures(64, labelled=False), "images have no label"),
        ("finetune{batch=8 lr=1e9 schedule=constant warmup=0}", Pictures(64), "the loss became"),
        ("finetune{batch=8 augment=colour}", Pictures(64), "cannot be augmented by colour"),
        ("finetune{batch=8 loss=mean-squares}", Pictures(64), "a label has the shape"),
        ("finetune{batch=8 loss=segmentation}", Pictures(64), "holds no scores of classes for each pixel"),
        ("finetune{batch=8 data=other}", Pictures(64), "no data set named 'other'"),
    ],
)
def test_mistakes_are_told_in_one_sentence(text: str, data: Pictures, wanted: str) -> None:
    with pytest.raises(LvcError, match=wanted):
        trained(text, space=workspace(train=data))


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ("epochs=0", "epochs must be above 0"),
        ("lr=-1", "lr must not be negative"),
        ("momentum=1", "momentum must be from 0 to below 1"),
        ("schedule=cosin", "there is no schedule 'cosin'"),
        ("augment=flop", "there is no augmentation 'flop'"),
        ("batch=10 micro=4", "no multiple of micro=4"),
        ("loss=cross", "there is no loss 'cross'"),
    ],
)
def test_wrong_options(options: str, wanted: str) -> None:
    with pytest.raises(UsageError, match=wanted):
        Pipeline.parse(f"finetune{{{options}}}")


def test_classes_that_the_model_does_not_know() -> None:
    with pytest.raises(UsageError, match="knows 2 classes"):
        trained(SIX, network(classes=2))


def test_a_model_that_ends_in_probabilities_learns_the_same() -> None:
    """The loss is on the scores before a last softmax, so both end in the same weights."""
    plain, ended = network(), network()
    graph = ended.module.graph
    last = ended.output_nodes[0]
    with graph.inserting_after(last):
        softmax = graph.call_function(aten.softmax.int, (last, 1))
    softmax.meta.update(last.meta)
    graph.output_node().args = ((softmax,),)
    ended.module.recompile()
    first, second = (weights(trained(SIX, model)[0]) for model in (plain, ended))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_the_log_is_numbers_and_a_picture(tmp_path: Path) -> None:
    trained("finetune{epochs=2 batch=16}", space=workspace(tmp_path))
    first, second = (json.loads(line) for line in next(tmp_path.glob("*.jsonl")).read_text().splitlines())
    assert (first["epoch"], second["epoch"]) == (1.0, 2.0)
    assert second["judged"]["images"] == 10
    assert second["losses"]["cross-entropy"] > 0
    assert "right on images held out, %" in next(tmp_path.glob("*.svg")).read_text()


def test_an_onnx_model_trains_and_comes_back(tmp_path: Path) -> None:
    """Batch normalisation is folded and constants stay: weights and biases train, and names are kept."""
    from lvc.compiler.load import load
    from lvc.compiler.writing import write_model

    folded, _ = Pipeline.parse("O1").run(network(), Workspace())
    write_model(folded, tmp_path / "net.onnx")
    loaded = load(str(tmp_path / "net.onnx"))
    after, _ = trained("finetune{epochs=12 batch=16 lr=0.1}", loaded)
    assert right(after, Pictures(100, seed=7)) > 0.85
    write_model(after, tmp_path / "again.onnx")
    assert right(load(str(tmp_path / "again.onnx")), Pictures(100, seed=7)) == right(after, Pictures(100, seed=7))
    assert set(weights(after)) == set(weights(loaded))


@pytest.mark.slow
def test_training_that_is_killed_twenty_times_ends_in_the_same_weights(tmp_path: Path) -> None:
    """`kill -9` at random moments: in a step, while a checkpoint is written, between the passes."""
    import os
    import random
    import signal
    import subprocess
    import sys

    from lvc.compiler.ir.serialise import to_files
    from lvc.compiler.load import load
    from lvc.compiler.writing import write_model

    write_model(network(), tmp_path / "net.lvc")
    images, labels = zip(*((image[0], label) for image, label in Pictures(256)), strict=True)
    np.savez(tmp_path / "train.npz", x=np.stack(images), y=np.array(labels))
    text = "prune-channels{ratio=0.3},distil{epochs=80 batch=32 minutes=0 every=10},finetune{epochs=60 batch=32}"

    def command(name: str) -> list[str]:
        files = ["--checkpoints", str(tmp_path / name), "-o", str(tmp_path / f"{name}.lvc")]
        data = ["--data", f"train={tmp_path / 'train.npz'}", "--threads", "1", "--no-verify"]
        return [sys.executable, "-m", "lvc", "opt", str(tmp_path / "net.lvc"), "-p", text, *data, *files]

    subprocess.run(command("whole"), check=True, capture_output=True)
    draw, kills = random.Random(0), 0
    while True:
        process = subprocess.Popen(command("killed"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            assert process.wait(draw.uniform(2, 5) if kills < 20 else None) == 0
            break
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            kills += 1
    assert kills >= 3
    first, second = (to_files(load(str(tmp_path / f"{name}.lvc"))) for name in ("whole", "killed"))
    assert first == second
