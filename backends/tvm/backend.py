"""The TVM backend: legality, then lowering and building, for whichever kind of device a target is of.

TVM and PyTorch are imported by the methods that need them; `load` does not.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from lvc.backends.tvm.device import Device, device_of, devices
from lvc.backends.tvm.plan import read_plan
from lvc.compiler.artefact import Artefact
from lvc.compiler.backend import Backend, Executable, Place, Target
from lvc.compiler.errors import CompileError, UsageError
from lvc.compiler.imports import large_imports
from lvc.compiler.ir.marks import TF32
from lvc.compiler.ir.signature import Signature

if TYPE_CHECKING:
    from pathlib import Path

    from lvc.backends.tvm.device import CodeGenerator
    from lvc.backends.tvm.tuning.choosing import Recorded
    from lvc.compiler.emission import Emission
    from lvc.compiler.files import Content
    from lvc.compiler.ir.model import Model
    from lvc.compiler.pipeline.workspace import Workspace
    from lvc.compiler.remote.pool import Pool
    from lvc.compiler.tuning.kernels import Tunable

ASKED_FOR = ("bfloat16", "float16", TF32)
"""The element types that not every target multiplies."""

NOT_HERE = {
    Place.EMULATED: "this machine emulates that processor, and how long an emulator takes says nothing",
    Place.ELSEWHERE: "this machine cannot run code for that processor",
}


class TvmBackend(Backend):
    """Native code for every kind of device that has a folder here."""

    name: ClassVar[str] = "tvm"

    def targets(self) -> dict[str, str]:
        return {text: line for device in devices() for text, line in device.targets().items()}

    def parse_target(self, text: str) -> Target | None:
        found = (device.parse_target(text) for device in devices())
        return next((target for target in found if target), None)

    def refusal(self, elements: Collection[str], target: Target) -> UsageError | None:
        device = _device(target)
        for element in ASKED_FOR:
            if element in elements and (why := device.lacks(element, target)):
                known = device.that_multiply(element) or [
                    text for other in devices() for text in other.that_multiply(element)
                ]
                help = f"take --precision fp32, or a target that has it: {', '.join(known)}"
                return UsageError(f"the target '{target.text}' cannot multiply {element}", why=why, help=help)
        return None

    def missing(self, target: Target) -> CompileError | None:
        return _device(target).missing(target)

    def place(self, target: Target) -> Place:
        return _device(target).place(target)

    def spelling(self, target: Target) -> str:
        return _device(target).spelling(target)

    def channel_multiple(self, target: Target) -> int:
        return _device(target).block(target)

    def completion(self, model: Model) -> str:
        """What quantisation only simulates is computed in integers."""
        from lvc.backends.tvm.integers import simulates_integers

        return "lower-to-integer,fuse-operators" if simulates_integers(model) else ""

    def remarks(self, model: Model, target: Target) -> list[str]:
        return _device(target).remarks(model, target)

    def folders(self) -> dict[str, Path]:
        return {kind: folder for device in devices() for kind, folder in device.folders().items()}

    def forms(self, target: Target) -> Collection[str]:
        return _device(target).forms(target)

    def why_only(self, target: Target) -> str:
        return _device(target).why_only(target)

    def emit(self, artefact: Artefact, emission: Emission) -> Mapping[str, Content]:
        """Emit what this process built; of a file that was read nothing is left but its library."""
        if artefact.parts is None:
            why = "an artefact that was read from a file has no parts to be put together in another way"
            raise UsageError(f"'{artefact.name}' cannot be emitted", why=why, help="compile the model again")
        return _loadable(artefact).emit(artefact, emission)

    def one_shape(self, target: Target) -> str:
        return _device(target).one_shape(target)

    def build(self, model: Model, target: Target, workspace: Workspace) -> Artefact:
        """Make code for a model; `CompileError` names every node that cannot be lowered."""
        return self.build_variants([model], target, workspace)

    def build_variants(self, models: Sequence[Model], target: Target, workspace: Workspace) -> Artefact:
        """Make code for a model in all its shapes; those that are alike share weights, also as kernels read them."""
        if importlib.util.find_spec("tvm") is None:
            raise CompileError("the tvm backend needs apache-tvm", help="pip install 'apache-tvm>=0.27.0.post1,<0.28'")
        with large_imports():
            from lvc.backends.tvm.build import build_files, weights_of
            from lvc.backends.tvm.legality import check
            from lvc.backends.tvm.lower import lower
        from lvc.compiler.ir.graph import calls, origin
        from lvc.compiler.measure.counts import macs
        from lvc.compiler.text import title

        model, *others = models
        generator = self._generator(model, target)
        for other in others:
            check(other)
        recorded = _recorded(model, target, generator)
        program = lower(model, generator, recorded, others)
        built = build_files(program, generator, target, workspace)
        metadata: dict[str, object] = {"memory": built.memory.to_json(), "remarks": built.remarks}
        nodes = list(calls(model.module.graph))
        if account := generator.account(built.parts, {node.name: macs(node) for node in nodes}):
            metadata["kernels"] = account.titled({node.name: title(origin(node)) for node in nodes}).to_json()
        if others:
            metadata["variants"] = weights_of(program)
        if recorded:
            metadata |= {"tuned": recorded.taken, "remarks": [*built.remarks, *recorded.remarks()]}
        return Artefact(
            model.name,
            self.name,
            target.text,
            model.inputs,
            model.outputs,
            built.files,
            metadata,
            parts=built.parts,
            variants=tuple(Signature(other.inputs, other.outputs) for other in others),
        )

    def untunable(self, target: Target, *, away: bool = False) -> UsageError | None:
        if why := _device(target).why_untunable(target):
            return UsageError(f"'{target.text}' has no kernels to tune", why=why, help="tune for a target of a CPU")
        place = _device(target).place(target)
        if away or place is Place.HERE:
            return None
        return UsageError(
            f"kernels for '{target.text}' cannot be timed here",
            why=NOT_HERE[place],
            help="name such machines with --device, or tune on one and bring its records with --export and --import",
        )

    def tunable(self, model: Model, target: Target, workspace: Workspace, pool: Pool | None = None) -> Tunable:
        """The kernels of a model that can be made in several ways; it builds the model, and times it."""
        from lvc.backends.tvm.tuning.tunable import Subject

        return Subject(model, self._generator(model, target), _device(target), target, workspace, pool).tunable()

    def _generator(self, model: Model, target: Target) -> CodeGenerator:
        """What makes code for a model; `CompileError` names every node that cannot be lowered."""
        from lvc.backends.tvm.legality import check, multiplied_dtypes, multiplied_elements

        check(model)
        if error := self.refusal(multiplied_elements(model), target):
            raise CompileError(error.what, why=error.why, help=error.help)
        return _device(target).code_generator(target, multiplied_dtypes(model))

    def load(self, artefact: Artefact, threads: int | None = None) -> Executable:
        """Load a built model; it may be called from several threads at once."""
        return _loadable(artefact).load(artefact.files, threads)

    def emulate(self, artefact: Artefact, threads: int | None = None) -> Executable:
        """Load a built model, on an emulated device if there is no other."""
        return _loadable(artefact).emulate(artefact.files, threads)


def _loadable(artefact: Artefact) -> Device:
    """The device of an artefact whose plan is of the same model."""
    plan = read_plan(artefact.files)
    device = device_of(plan.target.kind)
    if device is None:
        known = sorted(kind for device in devices() for kind in device.kinds)
        raise CompileError(
            f"the artefact is for a kind of device that is not known: '{plan.target.kind}'",
            why=f"this version of lvc knows {', '.join(known)}",
        )
    if len(artefact.signatures) != len(plan.variants):
        raise CompileError("the artefact is damaged", why="its plan is of another number of shapes than it says")
    for signature, variant in zip(artefact.signatures, plan.variants, strict=True):
        for values, planned in ((signature.inputs, variant.inputs), (signature.outputs, variant.outputs)):
            if [(v.spec.shape, v.spec.type_name) for v in values] != [(t.shape, t.dtype.name) for t in planned]:
                raise CompileError("the artefact is damaged", why="its plan has other inputs or outputs than it says")
    return device


def _recorded(model: Model, target: Target, generator: CodeGenerator) -> Recorded | None:
    """The records that the kernels of a model may be made by; None if none may."""
    if model.records is None:
        return None
    from lvc.backends.tvm.kernel_keys import code_version
    from lvc.backends.tvm.tuning.choosing import Recorded
    from lvc.backends.tvm.tuning.shipped import shipped_records
    from lvc.compiler.tuning.database import Database

    processor, version = _device(target).processor(target), code_version()
    if not model.records:
        return Recorded(generator, {}, processor, version, shipped_records())
    database = Database(model.records)
    tuned = {place for place, _ in database.trials()}
    return Recorded(generator, database.records(), processor, version, shipped_records(), tuned)


def _device(target: Target) -> Device:
    device = device_of(target.kind)
    assert device is not None, target
    return device
