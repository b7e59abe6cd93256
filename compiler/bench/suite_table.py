"""The results of the suite in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from lvc.compiler.bench.suite import OURS, Entry, engines_of, geometric_mean, threads_of


def markdown(entries: Sequence[Entry], title: str, facts: Sequence[str]) -> str:
    """Write a heading, the facts as a list, one table of speeds for each number of threads, and one of what was
    built."""
    parts = [f"## {title}\n", "".join(f"- {fact}\n" for fact in facts)]
    parts += [_speeds(entries, threads) for threads in threads_of(entries)]
    parts.append(_built(entries))
    return "\n".join(parts)


def _speeds(entries: Sequence[Entry], threads: int) -> str:
    measured = [entry for entry in entries if threads in entry.runs]
    engines = engines_of(measured, threads)
    peers = [name for name in engines if name != OURS]
    headers = ["model", *engines, *(f"{name} / lvc" for name in peers), "**best peer / lvc**"]
    rows = [_speed_row(entry, threads, engines) for entry in measured]
    means = [
        geometric_mean(entry.ratio(threads, peer) for entry in measured if peer in entry.runs[threads])
        for peer in peers
    ]
    best = geometric_mean(entry.ratio(threads) for entry in measured if entry.peers(threads))
    rows.append(["geometric mean", *("" for _ in engines), *(f"{mean:.2f}" for mean in means), f"**{best:.2f}**"])
    plural = "s" if threads > 1 else ""
    text = f"### {threads} thread{plural}\n\nMilliseconds, minimum / median; ratios of the minima.\n\n"
    return text + _table(headers, rows)


def _speed_row(entry: Entry, threads: int, engines: Sequence[str]) -> list[str]:
    runs = entry.runs[threads]
    times = [f"{runs[name].best * 1e3:.2f} / {runs[name].median * 1e3:.2f}" if name in runs else "" for name in engines]
    peers = [name for name in engines if name != OURS]
    ratios = [f"{entry.ratio(threads, name):.2f}" if name in runs else "" for name in peers]
    return [entry.model, *times, *ratios, f"**{entry.ratio(threads):.2f}**" if entry.peers(threads) else ""]


def _built(entries: Sequence[Entry]) -> str:
    more = [
        threads for threads in threads_of(entries) if threads > 1 and all({1, threads} <= set(e.runs) for e in entries)
    ]
    has_floats = any(entry.built.float_bytes for entry in entries)
    headers = [
        "model",
        "input",
        "build, s",
        "again, s",
        "artefact, MB",
        "of the weights",
        *(["of fp32"] * has_floats),
        "activations, MB",
        "of the live tensors",
        "difference to PyTorch",
        *(f"1 / {threads} threads" for threads in more),
    ]
    rows = [_built_row(entry, more, has_floats) for entry in entries]
    rows += [
        [
            "geometric mean",
            *[""] * (8 + has_floats),
            *(f"{geometric_mean(e.scaling(threads) for e in entries):.2f}" for threads in more),
        ]
    ] * bool(more)
    return "### Build, size, memory\n\n" + _table(headers, rows)


def _built_row(entry: Entry, more: Sequence[int], has_floats: bool) -> list[str]:
    built = entry.built
    share = f"{built.artefact_bytes / built.float_bytes:.3f}" if built.float_bytes else ""
    return [
        entry.model,
        entry.inputs,
        f"{built.seconds:.1f}",
        f"{built.seconds_again:.2f}",
        f"{built.artefact_bytes / 1e6:.2f}",
        f"{built.artefact_bytes / max(1, built.weight_bytes):.3f}",
        *([share] * has_floats),
        f"{built.activation_bytes / 1e6:.2f}",
        f"{built.activation_bytes / max(1, built.live_bytes):.2f}",
        f"{entry.difference:.1e}",
        *(f"{entry.scaling(threads):.2f}" for threads in more),
    ]


def _table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [headers, ["---", *("---:" for _ in headers[1:])], *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)
