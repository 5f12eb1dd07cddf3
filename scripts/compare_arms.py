"""SPARK against policy-only on the quickstart, at matched rollouts and optimizer steps, over several seeds.

    OMP_NUM_THREADS=1 python scripts/compare_arms.py --seeds 0 1 2 3 4 --out runs/arms

Policy-only gets as many problems a round as SPARK has problems and recycled tasks together, so that its rounds cost as
many rollouts.
Both arms start from the same model; after the last round each judges its own fresh answers on the same held-out
problems. The primary measure is balanced accuracy of these judgements, both views together, an unparseable verdict
counted wrong; intervals are paired and clustered by problem (docs/measures.md). Runs that exist are not repeated.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from spark_kernel.config import load_config
from spark_kernel.evaluate.compare import paired_bootstrap, problem_cells
from spark_kernel.records import Group
from spark_kernel.runs.reader import RunReader
from spark_kernel.training.lifecycle import resume_run, start_run

ARMS = {"spark": "quickstart", "policy-only": "quickstart+policy-only"}
MEASURES: dict[str, tuple[tuple[str, ...], bool]] = {
    "own judgements, balanced accuracy": (("own/pointwise/answer", "own/pointwise/full"), True),
    "own pairs, accuracy": (("own/pairwise/answer", "own/pairwise/full"), False),
    "sampled answers, accuracy": (("solve",), False),
    "greedy answers, accuracy": (("loop/solve",), False),
    "reflections, accuracy": (("reflection",), False),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--out", type=Path, default=Path("runs/arms"))
    parser.add_argument("--problems", type=int, default=200, help="held-out problems of the final evaluation")
    parser.add_argument("--jobs", type=int, default=2, help="runs side by side, one thread each")
    parser.add_argument("--set", nargs="*", default=[], help="settings as section.field=JSON, for both arms")
    parser.add_argument("--one", nargs=2, metavar=("ARM", "SEED"), help="only this run (what --jobs starts)")
    arguments = parser.parse_args()
    if arguments.one:
        run_arm(arguments.one[0], int(arguments.one[1]), arguments.out, arguments.problems, arguments.set)
        return
    with ThreadPoolExecutor(arguments.jobs) as pool:
        list(pool.map(lambda pair: start(pair, arguments), [(a, s) for s in arguments.seeds for a in ARMS]))
    rows = [compare(seed, arguments.out) for seed in arguments.seeds]
    (arguments.out / "comparison.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")
    print(table(rows))


def start(pair: tuple[str, int], arguments: argparse.Namespace) -> None:
    """One run in a process of its own, which takes one core."""
    command = [sys.executable, __file__, "--one", pair[0], str(pair[1]), "--out", str(arguments.out)]
    command += ["--problems", str(arguments.problems), "--set", *arguments.set]
    subprocess.run(command, check=True)


def run_arm(arm: str, seed: int, out: Path, problems: int, settings: Sequence[str]) -> None:
    """Train one arm with one seed and evaluate it once, at its end."""
    folder = out / f"{arm}-{seed}"
    if (folder / "evaluations").is_dir() and any((folder / "evaluations").iterdir()):
        return
    overrides: dict[str, Any] = {"seed": seed, "threads": 1, "evaluation__every": 0, "evaluation__problems": problems}
    overrides |= {k.replace(".", "__"): json.loads(v) for k, v in (item.split("=", 1) for item in settings)}
    config = load_config(ARMS[arm], **overrides)
    if arm == "policy-only":
        spark = load_config(ARMS["spark"], **overrides)
        tasks = spark.problems.per_round + spark.quotas.judge + spark.quotas.reflection
        config = load_config(ARMS[arm], **overrides, problems__per_round=tasks)
    exists = (folder / "run.json").exists()
    with resume_run(folder) if exists else start_run(config, folder) as trainer:
        trainer.train()
        trainer.evaluate()


def compare(seed: int, out: Path) -> dict[str, Any]:
    """The measures of both arms of a seed, and their paired differences."""
    readers = {arm: RunReader(out / f"{arm}-{seed}") for arm in ARMS}
    groups = {arm: reader.read_evaluation(reader.evaluations[-1]).groups for arm, reader in readers.items()}
    cost = {}
    for arm, reader in readers.items():
        reports = reader.reports()
        cost[arm] = {
            "rounds": len(reports),
            "rollouts": sum(line.n + line.missing for report in reports for line in report.kinds),
            "optimizer_steps": sum(update.optimizer_steps for report in reports for update in report.updates),
            "seconds": round(sum(sum(report.seconds_by_phase.values()) for report in reports)),
        }
    measures = {}
    for name, (lines, balanced) in MEASURES.items():
        cells = [problem_cells(_lines(groups[arm], lines), balanced=balanced) for arm in ("policy-only", "spark")]
        measures[name] = asdict(paired_bootstrap(cells[0], cells[1], seed=seed, measure=name))
    loops = {arm: reader.evaluation(reader.evaluations[-1])["lines"]["loop"] for arm, reader in readers.items()}
    return {"seed": seed, "cost": cost, "measures": measures, "loop": loops}


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown: one row per measure and seed."""
    lines = [
        "| measure | seed | policy-only | SPARK | difference, points | 95 % interval |",
        "|---|---|---|---|---|---|",
    ]
    for name in MEASURES:
        for row in rows:
            m = row["measures"][name]
            lines.append(
                f"| {name} | {row['seed']} | {m['first']:.3f} | {m['second']:.3f} | {100 * m['difference']:+.1f} | "
                f"{100 * m['low']:+.1f} to {100 * m['high']:+.1f} |"
            )
    lines += [
        "",
        "The test-time loop (greedy) within each arm, differences in points:",
        "",
        "| arm | seed | before | after | difference | 95 % interval | wrong to right | right to wrong | McNemar p |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for arm in ARMS:
        for row in rows:
            loop = row["loop"][arm]
            moved = loop["transitions"]
            lines.append(
                f"| {arm} | {row['seed']} | {loop['before']['value']:.3f} | {loop['after']['value']:.3f} | "
                f"{100 * loop['difference']:+.1f} | {100 * loop['difference_low']:+.1f} to "
                f"{100 * loop['difference_high']:+.1f} | {moved['wrong_right']} | {moved['right_wrong']} | "
                f"{loop['mcnemar_p']:.3g} |"
            )
    for row in rows:
        lines.append(f"\nseed {row['seed']}: {json.dumps(row['cost'])}")
    return "\n".join(lines)


def _lines(groups: Any, names: Sequence[str]) -> list[Group]:
    return [group for name in names for group in groups.get(name, ())]


if __name__ == "__main__":
    main()
