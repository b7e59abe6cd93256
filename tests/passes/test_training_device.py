"""Training on a device: all that it needs is brought there and back; without a GPU there is one error."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from training_models import Pictures, network, weights, workspace

from lvc.compiler.cli import main
from lvc.compiler.errors import UsageError
from lvc.compiler.pipeline.passes import Outcome
from lvc.compiler.pipeline.pipeline import Pipeline
from lvc.compiler.pipeline.ranks import Ranks
from lvc.passes.distil import Distil
from lvc.passes.training import language
from lvc.passes.training.objective import Seen
from lvc.passes.training.speed import PLAIN

ALL = "soft-labels+labels+features+attention+similarity+outputs"  # others index by values, which meta tensors lack
META = torch.device("meta")


def no_gpu(monkeypatch: pytest.MonkeyPatch, gpus: int = 0) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)


def test_without_a_gpu_there_is_one_error(monkeypatch: pytest.MonkeyPatch) -> None:
    no_gpu(monkeypatch)
    with pytest.raises(UsageError, match="there is no GPU for training") as error:
        Pipeline.parse("finetune{device=cuda batch=8}").run(network(), workspace())
    assert "finds 0 GPUs" in error.value.why


def test_each_process_of_a_machine_has_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    no_gpu(monkeypatch, 2)
    assert language._device("cuda", Ranks(3, 4, local=1, neighbours=2)) == torch.device("cuda:1")
    with pytest.raises(UsageError, match="there is no GPU for process 2 of this machine"):
        language._device("cuda", Ranks(2, 3, local=2, neighbours=3))


def test_the_option_for_boards_names_the_option_for_gpus(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["opt", "net.onnx", "--device", "cuda"]) == 2
    assert "finetune{device=cuda}" in capfd.readouterr().err


@pytest.fixture
def moves_in_place() -> Iterator[None]:
    """Parameters stay the same objects when they move to the meta device, as they do when they move to a GPU."""
    torch.__future__.set_swap_module_params_on_conversion(True)
    yield
    torch.__future__.set_swap_module_params_on_conversion(False)


@pytest.mark.usefixtures("moves_in_place")
def test_all_that_a_step_needs_is_brought_to_the_device() -> None:
    """Operators refuse operands of which some are on the device and some are not."""
    given = network()
    with torch.no_grad():
        given.module.w1[:2] = 0  # a sparse layer, whose zeros stay
    space = replace(workspace(train=Pictures(40)), original=network(12))
    item = Distil(batch=8, losses=ALL, augment=("none",), clip=1.0, slimming=0.1, group_lasso=0.1, l1=0.1)
    training = item.prepare(given, space, Outcome())
    form, objective = training.form._moved(META), training.objective
    objective.move(META)
    with form.here():
        batch, targets = torch.zeros(8, 3, 8, 8), torch.zeros(8, dtype=torch.int64)
        assert batch.device == META
        outputs, watched = form.parts(form.run(form.training, batch))
        losses = objective.losses(Seen(batch, outputs, watched, targets, 8, PLAIN))
        assert len(losses) == len(ALL.split("+"))
        torch.stack(list(losses.values())).sum().backward()
        training.optimisation.step(0)
        form.keep_valid()
    held = [*form.state.values(), *objective.parameters.values(), *form.masks.values()]
    assert {value.device for value in held} == {META}
    assert form.masks


def test_training_through_a_device_is_training() -> None:
    """The CPU by its other name goes the way of a device."""
    text = "distil{steps=5 batch=8 lr=0.05 average=0.9 keep=best every=2}"

    def trained(device: torch.device) -> dict[str, torch.Tensor]:
        (item,) = Pipeline.parse(text).passes
        assert isinstance(item, Distil)
        model = network()
        training = item.prepare(model, replace(workspace(), original=network(12)), Outcome())
        training.device = device
        training.run()
        return weights(model)

    there, here = trained(torch.device("cpu:0")), trained(torch.device("cpu"))
    assert not torch.equal(here["w1"], weights(network())["w1"])
    assert all(torch.equal(there[name], value) for name, value in here.items())
