"""Finished stages in a folder, each by the content of what it depended on, and what was measured of models.

A stage is a model file with the record of its passes beside the graph: `lvc eval` and `lvc inspect` take it. Files
appear whole or not at all, and every part has a digest, so that a damaged one is noticed and made anew.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lvc.compiler import container
from lvc.compiler.errors import LvcError, UsageError
from lvc.compiler.files import write_atomically
from lvc.compiler.ir.model import Model
from lvc.compiler.pipeline.workspace import Silence
from lvc.compiler.recipe import digests
from lvc.compiler.writing import write_model


def running_version() -> str:
    """What makes stages here: a stage that another version made is not taken for one that this one would make."""
    import torch

    import lvc

    return f"lvc {lvc.__version__} with PyTorch {torch.__version__}"


_RECORD = "stage.json"
_SHORT = 12  # characters of a digest in a file's name


@dataclass(frozen=True)
class Needs:
    """What the result of a stage depends on: the model as it was loaded, that from which the stage starts, its passes,
    and what they use.

    ``data`` are the digests of data sets by name, ``target`` that on which passes measured latency; of a stage that has
    not run they are what it could use, of one that ran what it used.
    """

    original: str
    model: str
    passes: tuple[str, ...]
    files: str
    version: str
    seed: int
    data: Mapping[str, str]
    target: str

    @property
    def key(self) -> str:
        """The digest of what is known before a stage runs."""
        return digests.of_texts(
            self.original, self.model, ",".join(self.passes), self.files, self.version, str(self.seed)
        )

    def serve(self, other: Needs) -> bool:
        """Whether what ran with these gives what a stage with the others would."""
        same_target = not self.target or self.target == other.target
        return self.key == other.key and same_target and all(other.data.get(k) == v for k, v in self.data.items())

    def changes(self, now: Needs) -> list[str]:
        """Say what is another now than when a stage ran with these."""
        found = []
        if self.original != now.original:
            found.append("the model as it was loaded changed")
        elif self.model != now.model:
            found.append("the model that it starts from changed")
        if self.passes != now.passes:
            gone = [f"{item} is gone" for item in self.passes if item not in now.passes]
            new = [f"{item} is new" for item in now.passes if item not in self.passes]
            found.append(", ".join([*gone, *new]) or "the order of its passes changed")
        if self.files != now.files:
            found.append("a file that its passes name changed")
        found += [f"the data set '{name}' changed" for name, old in self.data.items() if now.data.get(name) != old]
        if self.version != now.version:
            found.append(f"{self.version} ran it, and this is {now.version}")
        if self.seed != now.seed:
            found.append(f"the seed changed from {self.seed} to {now.seed}")
        if self.target and self.target != now.target:
            found.append(f"the target that it measures on changed from {self.target} to {now.target}")
        return found


@dataclass(frozen=True)
class Kept:
    """A finished stage: what it needed, the model after it with its digest, its seconds, the records of its passes."""

    stage: str
    needs: Needs
    model: Model
    result: str
    seconds: float
    steps: list[dict[str, Any]]


@dataclass(frozen=True)
class Store:
    """A folder of finished stages and measurements. ``say`` tells of files that are damaged."""

    folder: Path
    say: Callable[[str], None]

    @classmethod
    def at(cls, folder: Path, say: Callable[[str], None]) -> Store:
        """The store in a folder, which is made if it is missing; `UsageError` if it cannot be written to."""
        from lvc.compiler.files import check_writable

        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            help = "name a folder, new or old"
            raise UsageError(
                f"'{folder}' cannot be a folder of checkpoints", why=error.strerror or "", help=help
            ) from error
        check_writable(folder / "stage.lvc")
        return cls(folder, say)

    def find(self, stage: str, needs: Needs) -> tuple[Kept | None, str]:
        """Return a stage that ran with such needs, or else why it has to run."""
        damaged = ""
        for path in sorted(self.folder.glob(f"*-{needs.key[:_SHORT]}-*.lvc")):
            kept = self._read(path)
            if isinstance(kept, str):
                damaged = kept
            elif kept.needs.serve(needs):
                return kept, ""
        return None, damaged or self._reason(stage, needs)

    def keep(self, stage: str, needs: Needs, model: Model, seconds: float, steps: list[dict[str, Any]]) -> Kept:
        """Write a finished stage; return it as it is read again."""
        from lvc.compiler.ir.serialise import from_files, to_files

        result = digests.of_model(model)
        used = digests.of_texts(*(f"{name} {value}" for name, value in sorted(needs.data.items())), needs.target)
        path = self.folder / f"{stage}-{needs.key[:_SHORT]}-{used[:_SHORT]}.lvc"
        record = {"stage": stage, "needs": asdict(needs), "result": result, "seconds": seconds, "steps": steps}
        write_model(model, path, {_RECORD: json.dumps(record).encode()})
        return Kept(stage, needs, from_files(to_files(model)), result, seconds, steps)

    def remember(self, what: Mapping[str, str], measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Return what was measured before under the same digests, or measure it now and keep it."""
        what = {**what, "version": running_version()}
        path = self.folder / f"measured-{digests.of_texts(*map(str, what.items()))[:_SHORT]}.json"
        try:
            stored = json.loads(path.read_bytes())
            if stored["of"] == what and stored["digest"] == _digest(stored["found"]):
                return dict(stored["found"])
            self.say(f"note: '{path}' is damaged; what it held is measured again")
        except FileNotFoundError:
            pass
        except (OSError, ValueError, KeyError, TypeError) as error:
            self.say(f"note: '{path}' cannot be read ({error}); what it held is measured again")
        found = measure()
        write_atomically(path, json.dumps({"of": what, "found": found, "digest": _digest(found)}).encode())
        return found

    def _read(self, path: Path) -> Kept | str:
        """Read a stage, or say that it cannot be read and why."""
        from lvc.compiler.ir.serialise import from_files

        try:
            files = container.read(path).files
            data = json.loads(bytes(files[_RECORD]))
            needs = Needs(**{**data["needs"], "passes": tuple(map(str, data["needs"]["passes"]))})
            model = from_files(files)
            return Kept(data["stage"], needs, model, data["result"], float(data["seconds"]), list(data["steps"]))
        except LvcError as error:
            why = error.why or error.what
        except (ValueError, KeyError, TypeError, OSError) as error:
            why = f"{type(error).__name__}: {error}"
        found = f"its file '{path}' is damaged ({why})"
        self.say(f"note: {found.removeprefix('its file ')}; the stage runs again")
        return found

    def _reason(self, stage: str, needs: Needs) -> str:
        """Say why a stage of that name has to run, from the one that ran last."""
        paths = sorted(self.folder.glob(f"{stage}-*.lvc"), key=lambda path: path.stat().st_mtime, reverse=True)
        known = [kept for path in paths if isinstance(kept := self._quiet()._read(path), Kept) and kept.stage == stage]
        if not known:
            return "it was not finished before"
        changes = min((kept.needs.changes(needs) for kept in known), key=len)
        return "; ".join(changes) or "it was not finished before"

    def _quiet(self) -> Store:
        return Store(self.folder, Silence().say)


def _digest(found: Any) -> str:
    return digests.of_texts(json.dumps(found, sort_keys=True))
