"""What `run` and `eval` call: a model through PyTorch, or an artefact through its backend, behind one face."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from lvc.compiler.ir.task import TASKS

if TYPE_CHECKING:
    import numpy as np

    from lvc.compiler.data.preprocess import Preprocess
    from lvc.compiler.ir.counts import Counts
    from lvc.compiler.ir.model import Model
    from lvc.compiler.ir.signature import Value
    from lvc.compiler.loaded import Loaded
    from lvc.compiler.measure.device import Device


@dataclass(frozen=True)
class Subject:
    """Something with a signature that can be run; ``model`` if that is a model through PyTorch.

    ``task`` is what it is for, as is said or told by its outputs; empty where that is not known.
    Outputs that have one of the ``counts`` are as long as the data make them. Where it takes any number of images,
    ``most`` is how many it runs at once; ``any_shape`` says that it takes its inputs in several shapes.
    """

    text: str
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    run: Callable[..., tuple[np.ndarray, ...]]
    preprocessing: str | None
    labels: tuple[str, ...]
    task: str = ""
    model: Model | None = None
    counts: Counts = field(default_factory=dict)
    most: int = 0
    any_shape: bool = False


def open_subject(options: argparse.Namespace, text: str, device: Device) -> Subject:
    """Load what ``text`` names: an artefact on a device; a model here, to which the model options apply."""
    from lvc.compiler import container

    if container.is_artefact(Path(text)):
        return subject_of(text, device.open(container.read(Path(text)), options.threads), vars(options).get("task"))
    import torch

    from lvc.compiler.cli.model_options import load_model
    from lvc.compiler.ir.counts import cut, visible

    if options.threads:
        torch.set_num_threads(options.threads)
    model = load_model(argparse.Namespace(**{**vars(options), "model": text}))

    def run(*inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        return cut(model.outputs, model.counts, model(*inputs))

    outputs = visible(model.outputs, model.counts)
    task = _task(vars(options).get("task"), model.task, model.inputs, outputs)
    labels = model.labels or ()
    return Subject(text, model.inputs, outputs, run, model.preprocessing, labels, task, model, model.counts)


def subject_of(text: str, loaded: Loaded, task: str | None = None) -> Subject:
    """Wrap a loaded artefact, of a ``task`` if not the one that it tells."""
    metadata = loaded.artefact.metadata
    labels = metadata.get("labels") or ()
    preprocessing = metadata.get("preprocessing")

    def run(*inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        outputs = loaded(*inputs)
        return outputs if isinstance(outputs, tuple) else (outputs,)

    return Subject(
        text,
        loaded.inputs,
        loaded.outputs,
        run,
        str(preprocessing) if preprocessing else None,
        tuple(map(str, labels)) if isinstance(labels, (list, tuple)) else (),
        task=_task(task, metadata.get("task"), loaded.inputs, loaded.outputs),
        counts=loaded.artefact.counts,
        most=max(loaded.batch_sizes, default=0),
        any_shape=bool(loaded.artefact.variants),
    )


def _task(wanted: str | None, told: object, inputs: tuple[Value, ...], outputs: tuple[Value, ...]) -> str:
    """What a user wants, else what a model tells, else what its outputs look like; `UsageError` if they cannot be."""
    from lvc.compiler.ir.task import check_task, task_of

    if wanted:
        return check_task(wanted, inputs, outputs)
    return str(told) if told in TASKS else task_of(inputs, outputs)


def add_task_option(group: argparse._ActionsContainer) -> None:
    """Add what the model is for."""
    help = "what the model is for (default: what its file says, or its outputs where that is sure)"
    group.add_argument("--task", choices=TASKS, help=help)


def add_metric_options(parser: argparse.ArgumentParser) -> None:
    """Add what it takes to measure a model by its task, where it is known what the images show."""
    parser.add_argument("--labels", metavar="FILE", help="class names: a text or JSON file, or imagenet, cifar10, coco")
    help = "what makes boxes of a detector's raw outputs to measure them, such as yolox,nms; 'lvc passes' lists them"
    parser.add_argument("--postprocess", metavar="TEXT", help=help)


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """Add the options on how a subject is fed and run."""
    parser.add_argument(
        "--preprocess",
        metavar="TEXT",
        help="how images become inputs: imagenet, cifar10, or resize=..,crop=..,mean=..,std=..,layout=..,range=.. "
        "(default: what the model was compiled with)",
    )
    add_task_option(parser)
    parser.add_argument("--threads", metavar="N", type=positive, help="threads of one run (default: all cores)")
    add_emulate(parser)


def add_emulate(parser: argparse.ArgumentParser) -> None:
    """Add the option to run code for another processor."""
    help = "run an artefact that this machine cannot run by emulation of its processor: slow, and right to the last bit"
    parser.add_argument("--emulate", action="store_true", help=help)


def chosen_preprocess(options: argparse.Namespace, subject: Subject) -> Preprocess | None:
    """Return the preprocessing that the options or else the model ask for."""
    from lvc.compiler.data.preprocess import Preprocess

    text = options.preprocess or subject.preprocessing
    return Preprocess.parse(text) if text else None


def positive(text: str) -> int:
    """Read an integer from 1 as the value of an option."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not an integer from 1")
    return int(text)
