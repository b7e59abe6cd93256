"""Runs the benchmark suite: lvc beside ONNX Runtime, OpenVINO and PyTorch, in turns, without tuning.

Each model is measured in a process of its own: built from nothing (an empty kernel cache), built again, then timed
beside the peers on one thread and on two. What was measured is kept as one JSON file a model in ``--out``; a model that
stands there with the same settings is not measured again. From these files come ``table.md`` and ``chart.svg``.
Weights are random, drawn so that no branch of a network is silent.

    python tools/bench.py                                    # the whole suite, about 15 minutes on two cores
    python tools/bench.py resnet18 vit_b_16 --threads 1 --seconds 20
    python tools/bench.py --suite field --batch 8 --out build/bench-field    # needs lvc[zoo]; see suites.py
    python tools/bench.py --precision bf16 --out build/bench-bf16
    python tools/bench.py --int8 --out build/bench-int8      # needs lvc[quantisation-peers]
    python tools/bench.py --target x86-64-v3 --peers-isa avx2 --out build/bench-avx2
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from suites import SUITES, request_of

from lvc.compiler.bench.suite import OURS, Built, Entry, Speed
from lvc.compiler.bench.suite_picture import speed_picture
from lvc.compiler.bench.suite_table import markdown
from lvc.compiler.pipeline.catalogue import PRECISIONS

PEERS = {
    "fp32": "onnxruntime,openvino,torch,torch_compile",
    "bf16": "openvino_default",
    "int8": "onnxruntime_int8,openvino_int8",
}
# weights of 7 bits, as in the preset int8-avx2: as fast as 8 with VNNI, faster without; rounding them better takes
# minutes and changes no kernel
INT8 = (
    "O1,merge-duplicates,O1,equalise-weights,insert-fake-quant{weight_bits=7},calibrate,lower-to-integer,fuse-operators"
)
# what keeps the peers to AVX2; OpenVINO wants both of the first two, ONNX Runtime has no such switch
AVX2 = {"ONEDNN_MAX_CPU_ISA": "AVX2", "OV_CPU_MAX_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}


@dataclass(frozen=True)
class Settings:
    """What a measurement depends on, machine and versions apart. ``quantise`` is a pipeline that is run before the
    clock of building starts; where it is not empty the build without it races too."""

    quantise: str
    pipeline: str
    target: str
    engines: tuple[str, ...]
    threads: tuple[int, ...]
    seconds: float
    peers_isa: str
    batch: int = 1


def measure(model_name: str, settings: Settings, folder: Path) -> dict[str, Any]:
    """Build and time one model in this process; what peers make of it is kept in the folder."""
    import lvc.backends.tvm.build  # its seconds are start-up
    import lvc.backends.tvm.cpu.code_generator
    import lvc.backends.tvm.lower  # noqa: F401
    from lvc.compiler import container, driver, loaded
    from lvc.compiler.bench.engine import Original
    from lvc.compiler.bench.suite import IN_FLOAT
    from lvc.compiler.data.seeded import seeded_inputs
    from lvc.compiler.measure.memory import memory_of
    from lvc.compiler.measure.processor import processor
    from lvc.compiler.pipeline.observers import relative_difference

    load = os.getloadavg()[0]
    request = request_of(model_name, settings.batch)
    model = request.load()
    inputs = seeded_inputs(model.inputs, 0)
    source = quantised(model, settings.quantise) if settings.quantise else model
    with tempfile.TemporaryDirectory(prefix="lvc-bench-") as scratch:
        os.environ["LVC_CACHE"] = str(Path(scratch) / "cache")
        first = _timed(lambda: driver.compile(source, settings.pipeline, settings.target, verify=False))
        again = _timed(lambda: driver.compile(source, settings.pipeline, settings.target, verify=False))
        artefact, file = first[1], Path(scratch) / f"{model_name}.lvc"
        container.write(artefact, file)
        artefacts, float_bytes = {OURS: artefact}, None
        if settings.quantise:
            artefacts[IN_FLOAT] = driver.compile(model, "O2", settings.target)
            container.write(artefacts[IN_FLOAT], Path(scratch) / "float.lvc")
            float_bytes = (Path(scratch) / "float.lvc").stat().st_size
        memory = memory_of(artefact)
        assert memory
        built = Built(
            round(first[0], 2),
            round(again[0], 2),
            file.stat().st_size,
            sum(layer["weight_bytes"] for layer in artefact.metadata["layers"]),
            memory.activations(max(settings.threads)),
            memory.live,
            float_bytes,
        )
        original = Original(request, folder)
        runs = {threads: _race(artefacts, original, inputs, threads, settings) for threads in settings.threads}
        found = loaded.load(artefact, 1).executable(*inputs)
        difference = max(map(relative_difference, found, model(*inputs)))
    entry = Entry(model_name, ", ".join(map(str, model.inputs)), built, difference, runs)
    return {
        "entry": entry.to_json(),
        "processor": processor(),
        "load": round(load, 2),
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        "versions": _versions(settings),
    }


def _versions(settings: Settings) -> dict[str, str]:
    """The versions of those peers that are installed."""
    from lvc.compiler.bench.engine import find_engine
    from lvc.compiler.errors import UsageError

    versions = {}
    for name in settings.engines:
        with contextlib.suppress(UsageError):
            versions[name] = find_engine(name).version()
    return versions


def quantised(model: Any, pipeline: str) -> Any:
    """The model in integers, calibrated on the images on which the peers are."""
    from lvc.compiler.bench.calibration import random_images
    from lvc.compiler.driver import optimise
    from lvc.compiler.pipeline.pipeline import Pipeline
    from lvc.compiler.pipeline.workspace import Workspace

    images = [(one[0], None) for one in random_images(model.inputs)]
    return optimise(model, Pipeline.parse(pipeline), Workspace({"calib": lambda: images}))[0]


def _timed(action: Any) -> tuple[float, Any]:
    started = time.perf_counter()
    result = action()
    return time.perf_counter() - started, result


def _race(
    artefacts: Mapping[str, Any], original: Any, inputs: Any, threads: int, settings: Settings
) -> dict[str, Speed]:
    """Time lvc and the peers in turns; a peer that cannot run a model is told and left out."""
    from lvc.compiler.bench.comparison import Contestant, compare
    from lvc.compiler.bench.engine import find_engine, prepare
    from lvc.compiler.errors import UsageError
    from lvc.compiler.loaded import load
    from lvc.compiler.measure.device import ThisMachine
    from lvc.compiler.pipeline.workspace import Silence

    contestants = [Contestant(name, "", load(artefact, threads).executable) for name, artefact in artefacts.items()]
    for name in settings.engines:
        try:
            contestants.append(Contestant(name, "", prepare(find_engine(name), original, threads)))
        except UsageError as error:
            print(f"note: {error}", file=sys.stderr)
    rows = compare(
        contestants, inputs, ThisMachine(), seconds=settings.seconds, repeats=None, clock="wall", progress=Silence()
    )
    return {row.name: Speed(row.timing.best, row.timing.median) for row in rows}


def run_apart(model_name: str, settings: Settings, folder: Path, timeout: float) -> dict[str, Any]:
    """Measure a model in a process of its own, under the environment that the settings ask for."""
    environment = {**os.environ, **(AVX2 if settings.peers_isa == "avx2" else {})}
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, __file__, "--one", model_name, "--settings", json.dumps(asdict(settings))]
    command += ["--out", str(folder)]
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=timeout, check=False, env=environment)
    except subprocess.TimeoutExpired:
        return {"error": f"took more than {timeout:.0f} s"}
    if done.returncode:
        return {"error": f"exit code {done.returncode}"}
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def known(file: Path, settings: Settings) -> dict[str, Any] | None:
    """What is kept of a model, if it was measured with the same settings."""
    try:
        kept: dict[str, Any] = json.loads(file.read_text())
        Entry.from_json(kept["entry"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return kept if kept.get("settings") == json.loads(json.dumps(asdict(settings))) else None


def facts(kept: Sequence[Mapping[str, Any]], settings: Settings, command: str) -> list[str]:
    """The lines above the table: what was run, with what, where and when."""
    import lvc

    def joined(key: str) -> str:
        return ", ".join(dict.fromkeys(str(one[key]) for one in kept))

    versions = {name: version for one in kept for name, version in one["versions"].items()}
    peers = ", ".join(f"{name} {version}" for name, version in versions.items())
    loads = [one["load"] for one in kept]
    lines = [
        f"`{command}`, {joined('date')}",
        f"{joined('processor')}, {os.cpu_count()} cores; load before each model {min(loads):.1f} to {max(loads):.1f}",
        f"lvc {lvc.__version__}, pipeline `{settings.quantise or settings.pipeline}`, target `{settings.target}`, "
        f"no tuning; {peers}",
        f"batch {settings.batch}, engines in turns in one process, {settings.seconds:g} s for each model and number of "
        "threads; build times without start-up and loading, from an empty cache and from a full one",
    ]
    if settings.peers_isa == "avx2":
        switches = " ".join(f"{name}={value}" for name, value in AVX2.items())
        lines.append(f"peers kept to AVX2 by `{switches}`; ONNX Runtime has no switch and takes what the CPU has")
    return lines


def main() -> int:
    options = _options()
    if options.one:
        fields = {**json.loads(options.settings)}
        fields |= {name: tuple(fields[name]) for name in ("engines", "threads")}
        print(json.dumps(measure(options.one, Settings(**fields), options.out)))
        return 0
    settings = Settings(
        quantise=INT8 if options.precision == "int8" else "",
        pipeline="O0" if options.precision == "int8" else _pipeline(options),
        target=options.target,
        engines=tuple((options.engines or PEERS[options.precision]).split(",")),
        threads=tuple(options.threads),
        seconds=options.seconds,
        peers_isa=options.peers_isa,
        batch=options.batch,
    )
    options.out.mkdir(parents=True, exist_ok=True)
    kept, failed = [], []
    for name in options.models or SUITES[options.suite]:
        file = options.out / (f"{name}.json" if options.batch == 1 else f"{name}-batch{options.batch}.json")
        result = None if options.again else known(file, settings)
        if result is None:
            result = run_apart(name, settings, options.out / "peers" / file.stem, options.timeout)
            if "error" in result:
                failed.append(name)
                print(f"{name}: {result['error']}", file=sys.stderr, flush=True)
                continue
            result["settings"] = asdict(settings)
            _write(file, json.dumps(result, indent=1).encode())
        kept.append(result)
        print(_line(Entry.from_json(result["entry"])), file=sys.stderr, flush=True)
    if kept:
        _report(kept, settings, options)
    return 1 if failed else 0


def _pipeline(options: argparse.Namespace) -> str:
    return ",".join(filter(None, (options.pipeline, PRECISIONS[options.precision])))


def _report(kept: Sequence[Mapping[str, Any]], settings: Settings, options: argparse.Namespace) -> None:
    entries = [Entry.from_json(one["entry"]) for one in kept]
    command = shlex.join(["python", "tools/bench.py", *sys.argv[1:]])
    title = f"The {options.suite} suite, {options.precision}"
    text = markdown(entries, title, facts(kept, settings, command))
    _write(options.out / "table.md", text.encode())
    conditions = f"{kept[0]['processor']}, {options.precision}, batch {options.batch}, no tuning."
    _write(options.out / "chart.svg", speed_picture(entries, conditions).render(".svg"))
    print(text)
    print(f"wrote {options.out}/table.md and chart.svg", file=sys.stderr)


def _line(entry: Entry) -> str:
    """One line of talk about a model that is done."""
    ratios = ", ".join(f"{entry.ratio(t):.2f} on {t}" for t in entry.runs if entry.peers(t))
    built = entry.built
    return (
        f"{entry.model}: best peer / lvc {ratios} threads; built in {built.seconds:.1f} s, again in "
        f"{built.seconds_again:.1f} s; difference {entry.difference:.1e}"
    )


def _write(path: Path, content: bytes) -> None:
    from lvc.compiler.files import write_atomically

    write_atomically(path, content)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        allow_abbrev=False,
        description=(__doc__ or "").splitlines()[0],
        epilog="; ".join(f"{suite}: {', '.join(models)}" for suite, models in SUITES.items()),
    )
    parser.add_argument(
        "models", metavar="MODEL", nargs="*", help="models of a suite or of torchvision (default: the suite)"
    )
    parser.add_argument("--suite", choices=tuple(SUITES), default="classic", help="which suite (default classic)")
    parser.add_argument("--batch", type=int, default=1, help="images at once (default 1)")
    parser.add_argument("--threads", type=lambda text: [int(t) for t in text.split(",")], default=[1, 2], metavar="N,N")
    parser.add_argument("--seconds", type=float, default=12.0, help="time for each model and number of threads")
    parser.add_argument("--precision", choices=tuple(PEERS), default="fp32")
    parser.add_argument("--int8", dest="precision", action="store_const", const="int8", help="as --precision int8")
    parser.add_argument("--target", default="native", help="target of lvc (default native)")
    parser.add_argument("--pipeline", default="O2", help="pipeline of lvc, without its precision (default O2)")
    parser.add_argument("--engines", help="peers (default: those of the precision)")
    parser.add_argument("--peers-isa", choices=("all", "avx2"), default="all", help="instruction sets of the peers")
    parser.add_argument("--out", type=Path, default=Path("build/bench"), help="folder for results")
    parser.add_argument("--again", action="store_true", help="measure what has been measured before too")
    parser.add_argument("--timeout", type=float, default=900, help="seconds for one model")
    parser.add_argument("--one", metavar="MODEL", help=argparse.SUPPRESS)
    parser.add_argument("--settings", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
