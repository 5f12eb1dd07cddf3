r"""Send mutated outputs through every verifier, in workers as in training, and say what became of them.

    python scripts/fuzz_verifiers.py --outputs 1000000 --seed 0

Outputs are pieces of the tables of answers (tests/data), of verdicts and of reasoning-gym's references, cut, joined,
nested and spoilt by draws keyed by seed and number: `--first 500000` goes on where an earlier call stopped. A
timeout is a recorded end of one output, and listed. It fails where an output ends in a crash, where the pool itself
raises or where workers' memory grows.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from random import Random

from spark_kernel.problems.registry import make_source
from spark_kernel.records import Kind, Origin, Parse, Problem, Score, Task
from spark_kernel.verify import VerifierPool, VerifyRequest

DATA = Path(__file__).parent.parent / "tests" / "data"
PIECES = (
    *"{}[]()|\\$%^_=<>,.:;+-*/!'\"~&# \n\0", r"\boxed{", r"\frac{", r"\sqrt{", r"\text{", r"\left(", r"\right)", r"\pm",
    r"\begin{pmatrix}", r"\end{pmatrix}", r"\\", "^{", "1e999999", "9^{9^{9}}", "100000!", "1,234", "½", "√", "（",
    "或", "米",
    "<think>", "</think>", "<|channel|>final<|message|>", r"\int_0^1 ", r"\sum_{k=1}^{10} ", r"\binom{9}{4}",
    "\ud800", "\u202e",
    r"\infty", r"\mathbb{R}", r"\cup", r"\in", " or ", " and ", "x", "e", "i", "0", "7", "AB", "(A)", "Yes", "No",
    "10:30", "2020-01-02",
)  # fmt: skip
VERDICTS = (
    r"\boxed{Yes}", r"\boxed{No}", r"So \boxed{Yes}? No: \boxed{No}.", r"\boxed{\text{**(Yes)**}}",
    r"Answer: \boxed{No}!", r"<think>\boxed{Yes}</think> \boxed{No}", r"\boxed{Answer: Yes}", r"\boxed{\boxed{No}}",
    r"\fbox{yes}",
)  # fmt: skip
GYMS = ("chain_sum", "countdown", "simple_equations", "basic_arithmetic", "number_sorting", "leg_counting")
"""Families of reasoning-gym with scorers of their own; left out where the package is not installed."""
BATCH = 2000
GROWTH_MIB = 200


def main() -> int:
    """Run, print the account as JSON, and return 1 where something was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--outputs", type=int, default=10_000, help="how many in all (default 10000)")
    parser.add_argument("--first", type=int, default=0, help="number of the first (default 0)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--deadline", type=float, default=5.0, help="processor seconds for one output (default 5)")
    parser.add_argument("--show", type=int, default=20, help="how many timeouts and crashes to print (default 20)")
    args = parser.parse_args()
    rows = [json.loads(line) for name in ("answer_pairs", "answer_kinds") for line in read(name)]
    gyms = list(gym_problems())
    counts: dict[str, Counter[str]] = {}
    found: list[str] = []
    memory: list[float] = []
    slowest, started = 0.0, time.monotonic()
    with VerifierPool(args.workers, args.deadline) as pool:
        for start in range(args.first, args.first + args.outputs, BATCH):
            numbers = range(start, min(start + BATCH, args.first + args.outputs))
            requests = [mutated(rows, gyms, args.seed, number) for number in numbers]
            began = time.monotonic()
            scores = pool.score(requests)
            slowest = max(slowest, time.monotonic() - began)
            account(requests, scores, counts, found)
            memory.append(resident_mib(pool))
            done = numbers[-1] + 1 - args.first
            print(f"{done} of {args.outputs}, {memory[-1]:.0f} MiB, {len(found)} found", file=sys.stderr, flush=True)
    settled = memory[len(memory) // 4 :]
    growth = max(settled) - settled[0] if settled else 0.0
    timeouts = sum(Parse.TIMEOUT.value in line.rpartition(" | ")[2].partition(":")[0] for line in found)
    report = {
        "outputs": args.outputs,
        "first": args.first,
        "seed": args.seed,
        "deadline_seconds": args.deadline,
        "seconds": round(time.monotonic() - started, 1),
        "slowest_batch_seconds": round(slowest, 1),
        "parse": {name: dict(sorted(counter.items())) for name, counter in sorted(counts.items())},
        "memory_mib": {"first": round(memory[0]), "last": round(memory[-1]), "growth_after_a_quarter": round(growth)},
        "timeouts": timeouts,
        "crashes": len(found) - timeouts,
        "some_of_them": found[: args.show],
    }
    print(json.dumps(report, indent=2, ensure_ascii=True))
    return int(len(found) > timeouts or growth > GROWTH_MIB * args.workers)


def read(name: str) -> list[str]:
    """The lines of a table of answers."""
    return (DATA / f"{name}.jsonl").read_text("utf-8").splitlines()


def gym_problems() -> Iterator[Problem]:
    """A few problems of each family."""
    if find_spec("reasoning_gym") is None:
        return
    for name in GYMS:
        source = make_source("reasoning_gym", {"dataset": name}, 0)
        yield from (source.problem(index) for index in range(5))


def mutated(rows: Sequence[dict], gyms: Sequence[Problem], seed: int, number: int) -> VerifyRequest:
    """The output of this number: a row's output, a verdict or a reference, spoilt, against what it should be."""
    rng = Random(f"fuzz {seed} {number}")
    row, other, kind = rng.choice(rows), rng.choice(rows), rng.random()
    text = rng.choice((row["output"], f"\\boxed{{{row['gold']}}}", f"\\boxed{{{spoilt(other['gold'], rng)}}}"))
    problem = Problem("p", row.get("question", "What?"), row["gold"], row["verifier"], meta=row.get("meta") or {})
    if kind < 0.1:
        text = rng.choice(VERDICTS)
    elif kind < 0.15 and gyms:
        problem = rng.choice(gyms)
        text = f"\\boxed{{{problem.gold}}}"
    elif kind < 0.2 and row["verifier"] != "choice":
        golds = {"verifier": row["verifier"], "golds": [row["gold"], other["gold"]][: 1 + (row["verifier"] == "math")]}
        problem = replace(problem, verifier="any_of", meta={"any_of": golds})
    for _ in range(rng.randrange(4)):
        text = spoilt(text, rng)
    if rng.random() < 0.5 and "\\boxed" not in text:
        text = f"\\boxed{{{text}}}"
    if kind < 0.1:
        task = Task("t", Kind.POINTWISE, Origin.SOLVE, problem.id, (), "Yes", "verdict", "none", 1)
    else:
        task = Task("t", Kind.SOLVE, Origin.PROBLEM, problem.id, (), problem.gold, problem.verifier, "none", 1)
    return VerifyRequest(text, problem, task)


def spoilt(text: str, rng: Random) -> str:
    """A text with a piece taken out, put in, doubled, repeated or turned round."""
    place, end = sorted(rng.randrange(len(text) + 1) for _ in range(2))
    end = min(end, place + 40)
    match rng.randrange(7):
        case 0:
            return text[:place] + text[end:]
        case 1:
            return text[:place] + rng.choice(PIECES) + text[place:]
        case 2:
            return text[:place] + text[place:end] * rng.randrange(2, 6) + text[end:]
        case 3:
            return text[:place] + rng.choice(PIECES) * rng.randrange(1, 60) + text[place:]
        case 4:
            return text[:place] + text[place:end][::-1] + text[end:]
        case 5:
            return text + rng.choice((" ", "\\boxed{", ", ", " or ", "=", "\\cup ")) + text
        case _:
            return text[:place] + "".join(rng.choice(PIECES) for _ in range(rng.randrange(8))) + text[end:]


def account(
    requests: Sequence[VerifyRequest], scores: Sequence[Score], counts: dict[str, Counter[str]], found: list[str]
) -> None:
    """Count what became of the outputs, and note those that have no reward."""
    for request, score in zip(requests, scores, strict=True):
        name = request.task.verifier
        counts.setdefault(name, Counter())[score.parse.value] += 1
        if score.parse in (Parse.TIMEOUT, Parse.CRASH):
            found.append(f"{name} | {request.task.label!r} | {request.output!r} | {score.parse.value}: {score.reason}")
            print(found[-1].encode("ascii", "backslashreplace").decode(), file=sys.stderr)


def resident_mib(pool: VerifierPool) -> float:
    """The workers' resident memory together, in MiB."""
    total = 0
    for worker in pool._workers:
        status = Path(f"/proc/{worker.pid}/status").read_text("utf-8")
        total += int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1])
    return total / 1024


if __name__ == "__main__":
    sys.exit(main())
