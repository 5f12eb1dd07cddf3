r"""Processor time of checking golds and of scoring recorded outputs, for the checkout that it runs in.

    PYTHONPATH=. python scripts/measure_verifiers.py

To compare two checkouts, run it in both by turns and take the ratios: a machine that others use is no clock.
"""

from __future__ import annotations

import json
import resource
import statistics
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from random import Random

from spark_kernel.errors import ProblemError
from spark_kernel.problems.files import FilesSource
from spark_kernel.records import Problem
from spark_kernel.runs.reader import RunReader
from spark_kernel.verify import Verifier, VerifierPool, VerifyRequest, get_verifier, score_request

ROOT = Path(__file__).parent.parent
GOLDS = 7473
"""As many as the training split of GSM8K has."""
PASSES = 40


def main() -> None:
    """Print one line for each figure."""
    math = get_verifier("math")
    rows = [
        json.loads(line)
        for name in ("answer_pairs", "answer_kinds")
        for line in (ROOT / "tests" / "data" / f"{name}.jsonl").read_text("utf-8").splitlines()
    ]
    spent = [gold_seconds(math, gold) for gold in sorted({row["gold"] for row in rows if row["verifier"] == "math"})]
    print(
        f"check_gold of math, {len(spent)} golds of the tables, ms: median {1000 * statistics.median(spent):.2f}, "
        f"mean {1000 * statistics.mean(spent):.2f}, worst {1000 * max(spent):.0f}"
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "gsm8k.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in grade_school(GOLDS)), "utf-8")
        began = time.process_time()
        source = FilesSource(path=str(path))
        problems = [source.problem(index) for index in range(source.size or 0)]
        print(f"{len(problems)} golds in GSM8K's form, s: read {time.process_time() - began:.1f}")
        began = time.process_time()
        with VerifierPool(2, 5.0) as pool:
            refused = sum(fault is not None for fault in pool.check_golds(problems))
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        total = time.process_time() - began + used.ru_utime + used.ru_stime
        print(f"  checked {total:.1f} (children and start included), refused {refused}")
    for name, requests in recorded().items():
        verifier = get_verifier(name)
        best = min(pass_seconds(verifier, requests) for _ in range(PASSES)) / len(requests)
        print(f"{len(requests)} recorded outputs by {name}, µs each: {1e6 * best:.1f}")


def gold_seconds(verifier: Verifier, gold: str) -> float:
    """Processor time of one check."""
    problem = Problem("p", "What is it?", gold, "math")
    began = time.process_time()
    with suppress(ProblemError):  # what is refused costs time as well
        verifier.check_gold(problem)
    return time.process_time() - began


def grade_school(count: int) -> list[dict[str, str]]:
    """Rows in GSM8K's form; the data set itself is not shipped."""
    draw = Random(15)
    rows = []
    for place in range(count):
        gold = draw.choice((draw.randrange(1, 100), draw.randrange(100, 2000), draw.randrange(2000, 400_000)))
        written = f"{gold:,}" if draw.random() < 0.5 else str(gold)
        question = f"Ana has {place} boxes with {draw.randrange(9)} pens at ${draw.randrange(9)}. How much is that?"
        rows.append({"question": question, "answer": f"In all {place}*2=<<{place}*2={2 * place}>>.\n#### {written}"})
    return rows


def recorded() -> dict[str, list[VerifyRequest]]:
    """The outputs of the recorded quickstart run, by verifier."""
    found: dict[str, list[VerifyRequest]] = {}
    run = RunReader(ROOT / "workbench" / "recorded" / "quickstart")
    rounds = [run.read_round(number) for number in run.rounds]
    problems = {problem.id: problem for records in rounds for problem in records.problems}
    for group in (group for records in rounds for groups in records.groups.values() for group in groups):
        problem = problems[group.task.problem_id]
        requests = [VerifyRequest(rollout.text, problem, group.task) for rollout in group.rollouts]
        found.setdefault(group.task.verifier, []).extend(requests)
    return found


def pass_seconds(verifier: Verifier, requests: list[VerifyRequest]) -> float:
    """Processor time of scoring all of them once."""
    began = time.process_time()
    for request in requests:
        score_request(request, 1.0, verifier)
    return time.process_time() - began


if __name__ == "__main__":
    main()
