"""A recipe: model, data sets, stages of a pipeline, target and checks, read from TOML. Nothing runs here."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lvc.compiler.backend import Target
from lvc.compiler.data.preprocess import Preprocess
from lvc.compiler.data.synthesised import is_synthesised
from lvc.compiler.errors import UsageError, did_you_mean
from lvc.compiler.ir.task import TASKS
from lvc.compiler.pipeline.catalogue import FUSE_PREPROCESS, PRECISIONS
from lvc.compiler.recipe.limits import Limits
from lvc.compiler.recipe.table import MOST_BYTES, Source, Table

if TYPE_CHECKING:
    from lvc.compiler.pipeline.passes import Pass
    from lvc.compiler.pipeline.pipeline import Pipeline
    from lvc.compiler.recipe.stages import Stage

TABLES = ("model", "data", "checks", "report")
ONLY_STAGE = "pipeline"
"""The name of the one stage of a recipe whose pipeline is a text."""

_STAGE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_IN_MODULE = re.compile(r"[\w.]+:\w+")
_SUFFIX = ".toml"


@dataclass(frozen=True)
class ModelPart:
    """What to load, in the words of the command line; ``shapes`` and ``arguments`` are by name."""

    source: str | None = None
    weights: str | None = None
    shapes: Mapping[str, str] = field(default_factory=dict)
    arguments: Mapping[str, Any] = field(default_factory=dict)
    preprocess: str | None = None
    labels: str | None = None
    task: str | None = None
    seed: int | None = None


@dataclass(frozen=True)
class DataPart:
    """A data set: where it is, how its images are prepared if not as the model says, and how many are used at most."""

    path: str
    preprocess: str | None = None
    limit: int | None = None


@dataclass(frozen=True)
class StagePart:
    """A stage as it is written, and where."""

    name: str
    pipeline: str
    place: str


@dataclass(frozen=True)
class Recipe:
    """What a file says. ``overrides`` are options of passes that ``--set`` gave: stage, pass or "", option, value."""

    source: Source
    summary: str
    model: ModelPart
    data: Mapping[str, DataPart]
    stages: tuple[StagePart, ...]
    limits: Limits
    target: str | None = None
    precision: str | None = None
    postprocess: str | None = None
    fuses_preprocess: bool = False
    plugins: tuple[str, ...] = ()
    checkpoints: str | None = None
    output: str | None = None
    times_stages: bool = True
    overrides: tuple[tuple[str, str, str, str], ...] = ()

    @classmethod
    def find(cls, text: str, given: Sequence[str] = ()) -> Recipe:
        """Read a file, or a recipe that is built in, by its name; ``given`` are texts of ``--set``."""
        path = Path(text)
        if path.suffix == _SUFFIX or path.exists():
            return cls.parse(str(path), _read(path), path.parent, given)
        return cls.parse(f"the recipe '{text}'", builtin_text(text), None, given)

    @classmethod
    def parse(cls, name: str, text: str, base: Path | None, given: Sequence[str] = ()) -> Recipe:
        """Read a text, of which paths are relative to ``base``; `UsageError` that says where for any mistake."""
        settings = [_setting(option) for option in given]
        is_key = [len(path) == 1 or path[0] in TABLES for path, _, _ in settings]
        keys = {path: (value, option) for (path, value, option), held in zip(settings, is_key, strict=True) if held}
        source = Source(name, text, {path: option for path, (_, option) in keys.items()})
        values = source.parse()
        for path, (value, option) in keys.items():
            _set(values, path, _toml(value), option)
        recipe = _Reader(Table(source, values), base).recipe()
        options = [setting for setting, held in zip(settings, is_key, strict=True) if not held]
        return _overridden(recipe, options)

    def stage_pipelines(self, extra: Iterable[type[Pass]] = ()) -> tuple[Stage, ...]:
        """Return the stages with their passes; ``extra`` are passes of plug-ins. `UsageError` says where."""
        from lvc.compiler.recipe.stages import Stage, with_overrides

        kinds = list(extra)
        stages = tuple(Stage.parse(part.name, part.pipeline, part.place, kinds) for part in self.stages)
        return with_overrides(stages, self.overrides)

    def check_model(self) -> None:
        """Raise `UsageError` if the files of the model are not there; whether it loads is not tried."""
        for key, text in (("source", self.model.source), ("weights", self.model.weights)):
            path = Path(text.rpartition(":")[0] if text and ".py:" in text else text or "")
            if text and (path.suffix or key == "weights") and not _IN_MODULE.fullmatch(text) and not path.is_file():
                raise UsageError(f"there is no file '{path}'", where=self.source.place(("model", key)))

    def check_places(self, given: Collection[str]) -> None:
        """Raise `UsageError` for a data set that is nowhere, unless one of its name is ``given`` beside the recipe."""
        from lvc.compiler.data.sources import check_data

        for name, part in self.data.items():
            if name not in given:
                try:
                    check_data(part.path)
                except UsageError as error:
                    raise error.at(self.source.place(("data", name))) from error
        if (name := self.limits.data) and name not in {*self.data, *given}:
            known = ", ".join([*self.data, *given]) or "none"
            help = f"{did_you_mean(name, [*self.data, *given])}give it under [data], or with --data {name}=PATH"
            where = self.source.place(("checks", "data"))
            raise UsageError(f"there is no data set '{name}'", where=where, why=f"data sets: {known}", help=help)


class _Reader:
    """Reads the tables of a recipe, each key once."""

    def __init__(self, top: Table, base: Path | None) -> None:
        self.top = top
        self.base = base

    def recipe(self) -> Recipe:
        top = self.top
        report = top.table("report")
        recipe = Recipe(
            source=top.source,
            summary=top.take("summary", str) or "",
            model=self.model(top.table("model")),
            data=self.data(top.table("data")),
            stages=self.stages(),
            limits=Limits.read(top.table("checks")),
            target=top.parsed("target", Target.parse),
            precision=top.one_of("precision", tuple(PRECISIONS), "fp32") if "precision" in top else None,
            postprocess=top.parsed("postprocess", _steps),
            fuses_preprocess=top.take(FUSE_PREPROCESS, bool) or False,
            plugins=tuple(self.located(top, "plugins", text) for text in top.texts("plugins")),
            checkpoints=self.path(top, "checkpoints"),
            output=self.path(top, "output"),
            times_stages=report.take("latency", bool, True) is not False,
        )
        report.finish()
        top.finish()
        return recipe

    def model(self, table: Table) -> ModelPart:
        labels = table.take("labels", str)
        if labels and self.base and (self.base / labels).is_file():
            labels = self.located(table, "labels", labels)
        seed = table.take("seed", int)
        if seed is not None and not 0 <= seed < 1 << 63:
            raise table.error("'seed' must be an integer from 0", "seed", why=f"it is {seed}")
        part = ModelPart(
            source=self.path(table, "source"),
            weights=self.path(table, "weights"),
            shapes=_shapes(table),
            arguments=table.take("arguments", dict) or {},
            preprocess=table.parsed("preprocess", Preprocess.parse),
            labels=labels,
            task=table.one_of("task", TASKS, "") if "task" in table else None,
            seed=seed,
        )
        table.finish()
        return part

    def data(self, table: Table) -> dict[str, DataPart]:
        return {name: self.data_part(table, name) for name in table}

    def data_part(self, table: Table, name: str) -> DataPart:
        if table.is_table(name):
            inner = table.table(name)
            limit = inner.take("limit", int)
            if limit is not None and limit < 1:
                raise inner.error("'limit' must be an integer from 1", "limit", why=f"it is {limit}")
            path = self.located(inner, "path", inner.text("path"))
            part = DataPart(path, inner.parsed("preprocess", Preprocess.parse), limit)
            inner.finish()
            return part
        return DataPart(self.located(table, name, table.text(name)))

    def stages(self) -> tuple[StagePart, ...]:
        top, parts = self.top, self.top.tables("stage")
        if "pipeline" in top:
            text = top.text("pipeline")
            if parts:
                raise top.error("'pipeline' and [[stage]] are both given", "pipeline", help="write one of the two")
            return (StagePart(ONLY_STAGE, text, top.source.place(("pipeline",))),)
        if not parts:
            help = 'write pipeline = "O2", or stages, each under [[stage]] with name and pipeline'
            raise top.error("the recipe has no pipeline", help=help)
        stages: list[StagePart] = []
        for part in parts:
            name = part.text("name")
            if not _STAGE_NAME.fullmatch(name) or name in TABLES:
                why = "it is the name of a table" if name in TABLES else "names are letters, digits, '-' and '_'"
                raise part.error(f"a stage cannot be called '{name}'", "name", why=why)
            if name in [stage.name for stage in stages]:
                raise part.error(f"two stages are called '{name}'", "name")
            stages.append(StagePart(name, part.text("pipeline"), part.place("pipeline")))
            part.finish()
        return tuple(stages)

    def path(self, table: Table, key: str) -> str | None:
        found = table.take(key, str)
        if found == "":
            raise table.error(f"'{key}' is empty", key)
        return None if found is None else self.located(table, key, found)

    def located(self, table: Table, key: str, text: str) -> str:
        """A path as the command line would name it: those in a file are seen from the file's folder."""
        is_callable = _IN_MODULE.fullmatch(text) and not text.partition(":")[0].endswith(".py")
        if self.base is None or is_callable or is_synthesised(text) or table.is_given(key):
            return text
        return str(self.base / text)


def _steps(text: str) -> Pipeline:
    from lvc.compiler.pipeline.pipeline import Pipeline

    return Pipeline().with_ends(text)


def _shapes(table: Table) -> dict[str, str]:
    if not table.is_table("shape"):
        text = table.take("shape", str)
        return {} if text is None else {"": text}
    inner = table.table("shape")
    return {name: inner.text(name) for name in inner}


def builtin_names() -> list[str]:
    """The recipes that come with lvc."""
    folder = resources.files("lvc.compiler.recipe").joinpath("builtin")
    return sorted(file.name.removesuffix(_SUFFIX) for file in folder.iterdir() if file.name.endswith(_SUFFIX))


def builtin_text(name: str) -> str:
    """The text of a recipe that comes with lvc; `UsageError` with a suggestion if there is none of that name."""
    known = builtin_names()
    if name not in known:
        help = f"{did_you_mean(name, known)}built in: {', '.join(known)}; a file's name ends in {_SUFFIX}"
        raise UsageError(f"there is no recipe '{name}'", help=help)
    file = resources.files("lvc.compiler.recipe").joinpath("builtin", f"{name}{_SUFFIX}")
    return file.read_text(encoding="utf-8")


def _read(path: Path) -> str:
    if not path.exists():
        help = f"{did_you_mean(path.stem, builtin_names())}'lvc recipe new' writes one, 'lvc recipe list' shows some"
        raise UsageError(f"there is no file '{path}'", help=help)
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise UsageError(f"'{path}' is no recipe", why=f"it is larger than {MOST_BYTES} bytes")
        return content.decode("utf-8")
    except OSError as error:
        raise UsageError(f"cannot read '{path}'", why=error.strerror or str(error)) from error
    except UnicodeDecodeError as error:
        raise UsageError(f"'{path}' is no recipe", why=f"it is no UTF-8 text: {error.reason}") from error


def _setting(option: str) -> tuple[tuple[str, ...], str, str]:
    """Read ``path.to.key=value``; return the path, the value and all of it."""
    key, equals, value = option.partition("=")
    path = tuple(part.strip() for part in key.split("."))
    if not equals or not all(path):
        help = "for example --set prune.macs=0.4, or --set checks.max-drop=1"
        raise UsageError(f"'--set {option}' is not STAGE.OPTION=VALUE", help=help)
    return path, value.strip(), option


def _toml(text: str) -> Any:
    """A value as TOML has it, or else as text, which needs no quotes on the command line."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (tomllib.TOMLDecodeError, RecursionError):
        return text


def _set(values: dict[str, Any], path: tuple[str, ...], value: Any, option: str) -> None:
    *outer, key = path
    for name in outer:
        values = values.setdefault(name, {})
        if not isinstance(values, dict):
            raise UsageError(f"'{name}' is no table", where=f"--set {option}")
    values[key] = value


def _overridden(recipe: Recipe, options: Sequence[tuple[tuple[str, ...], str, str]]) -> Recipe:
    names = [stage.name for stage in recipe.stages]
    overrides = []
    for path, value, option in options:
        if path[0] not in names:
            help = f"{did_you_mean(path[0], [*names, *TABLES])}stages: {', '.join(names)}; tables: {', '.join(TABLES)}"
            raise UsageError(f"there is no stage '{path[0]}'", where=f"--set {option}", help=help)
        if len(path) > 3:
            help = "write STAGE.OPTION=VALUE, or STAGE.PASS.OPTION=VALUE"
            raise UsageError("the option has too many parts", where=f"--set {option}", help=help)
        stage, item, name = (path[0], "", path[1]) if len(path) == 2 else path
        overrides.append((stage, item, name, value))
    return replace(recipe, overrides=tuple(overrides))
