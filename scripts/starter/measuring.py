"""What a model folder can do on held-out problems, sampled with `model.generate`: figures of docs/starter-model.md.

Independent of the workbench's own engine and evaluation on purpose, so that one can be held against the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from spark_kernel.evaluate.intervals import Estimate, balanced_proportion, clustered_proportion
from spark_kernel.keyed_random import derive_seed, keyed_random
from spark_kernel.problems.arithmetic import ArithmeticSource
from spark_kernel.problems.held_out import CANONICAL_FORM, may_be_evaluated
from spark_kernel.problems.puzzles.source import PuzzlesSource
from spark_kernel.problems.source import ProblemSource
from spark_kernel.prompts import build
from spark_kernel.prompts.verdicts import read_verdict
from spark_kernel.records import Kind, Origin, Parse, Problem, Rollout, Score, Task, View
from spark_kernel.verify import VerifyRequest, score_request
from starter.demonstrations import HELD_OUT_FRACTION, PUZZLE_OPTIONS
from starter.pieces import LARGEST

MAX_NEW_TOKENS = 64
BATCH = 256
SUBJECTS = ("puzzles", "chains")


@dataclass(frozen=True, slots=True)
class Output:
    """One sampled output. `parse`: whether an answer or verdict was read; `ended`: with the end token, in time."""

    task: Task
    text: str
    ended: bool
    tokens: int
    answer: str | None
    correct: bool


@dataclass(frozen=True, slots=True)
class Figure:
    """A rate with its 95 % interval (clustered by problem) and the number of outputs and problems behind it."""

    name: str
    value: float
    low: float
    high: float
    outputs: int
    problems: int


def load(folder: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Model in evaluation mode and tokenizer of a folder; nothing is fetched."""
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    return AutoModelForCausalLM.from_pretrained(folder, local_files_only=True).eval(), tokenizer


def held_out_problems(count: int, seed: int, subject: str) -> list[Problem]:
    """The first problems at this seed that evaluations may ask about, no two alike: "puzzles" or "chains"."""
    source: ProblemSource = (
        PuzzlesSource(seed=seed, **PUZZLE_OPTIONS)
        if subject == "puzzles"
        else ArithmeticSource(seed=seed, max_value=LARGEST)
    )
    found: dict[str, Problem] = {}
    index = 0
    while len(found) < count:
        problem = source.problem(index)
        if may_be_evaluated(problem, HELD_OUT_FRACTION, CANONICAL_FORM):
            found.setdefault(problem.id, problem)
        index += 1
    return list(found.values())


def sample(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    tasks: Sequence[Task],
    problems: Mapping[str, Problem],
    *,
    seed: int,
    temperature: float = 1.0,
) -> list[Output]:
    """One output per task, in order. `problems`: those that the tasks are about, by id."""
    order = sorted(range(len(tasks)), key=lambda i: len(tasks[i].messages[0].text))
    outputs: dict[int, Output] = {}
    for start in range(0, len(order), BATCH):
        chosen = order[start : start + BATCH]
        chats = [[message.to_chat() for message in tasks[i].messages] for i in chosen]
        inputs = tokenizer.apply_chat_template(
            chats, add_generation_prompt=True, padding=True, return_tensors="pt", return_dict=True
        )
        torch.manual_seed(derive_seed(seed, "measure", start))
        how = {"do_sample": True, "temperature": temperature} if temperature else {"do_sample": False}
        with torch.inference_mode():
            ids = model.generate(**inputs, **how, top_p=1.0, top_k=0, max_new_tokens=MAX_NEW_TOKENS)
        for i, row in zip(chosen, ids[:, inputs["input_ids"].shape[1] :].tolist(), strict=True):
            outputs[i] = _read(tokenizer, tasks[i], problems[tasks[i].problem_id], row)
    return [outputs[i] for i in range(len(tasks))]


def measure(folder: Path, subject: str, *, problems: int, samples: int, seed: int) -> list[Figure]:
    """Solving, and judging, comparing and reflecting on the model's own fresh answers."""
    model, tokenizer = load(folder)
    chosen = {p.id: p for p in held_out_problems(problems, seed, subject)}
    solve = [build.solve_task(p, seed=seed, round=k) for p in chosen.values() for k in range(samples)]
    solved = sample(model, tokenizer, solve, chosen, seed=derive_seed(seed, "solve"))
    greedy = sample(model, tokenizer, solve[::samples], chosen, seed=seed, temperature=0.0)
    right, wrong = _sources(solved, True, seed), _sources(solved, False, seed)
    views = {pid: keyed_random(seed, "view", pid).choice((View.ANSWER, View.FULL)) for pid in chosen}

    def how(pid: str) -> dict[str, object]:
        return {"origin": Origin.SOLVE, "view": views[pid], "mixed": True, "seed": seed, "round": 1}

    both = [(pid, rollout) for group in (right, wrong) for pid, rollout in group.items()]
    judge = [build.pointwise_task(chosen[pid], rollout, **how(pid)) for pid, rollout in both]
    reflect = [build.reflection_task(chosen[pid], rollout, **how(pid)) for pid, rollout in both]
    pairs = [build.pairwise_task(chosen[pid], right[pid], wrong[pid], **how(pid)) for pid in right if pid in wrong]
    judged = sample(model, tokenizer, judge, chosen, seed=derive_seed(seed, "judge"))
    paired = sample(model, tokenizer, pairs, chosen, seed=derive_seed(seed, "pair"))
    reflected = sample(model, tokenizer, reflect, chosen, seed=derive_seed(seed, "reflect"))
    return [
        rate("solved, sampled at temperature 1", solved),
        rate("solved, greedy", greedy),
        *(rate(f"solved, sampled, {part}", found) for part, found in _by_part(solved, chosen).items()),
        balanced("judging own answers, balanced accuracy", judged),
        *(balanced(f"the same, {v} view", [o for o in judged if o.task.view is v]) for v in View),
        balanced("the same, letters", [o for o in judged if o.task.label_map]),
        balanced("the same, within mixed groups", [o for o in judged if o.task.problem_id in right.keys() & wrong]),
        rate("right answers accepted", [o for o in judged if o.task.label == "Yes"]),
        rate("wrong answers rejected", [o for o in judged if o.task.label == "No"]),
        rate("own right against own wrong answer", paired),
        rate("right after reflecting on a right answer", [o for o in reflected if o.task.source_correct == (True,)]),
        rate("right after reflecting on a wrong answer", [o for o in reflected if o.task.source_correct == (False,)]),
        *(
            _figure(f"parsed: {name}", outputs, [o.answer is not None for o in outputs])
            for name, outputs in (("solve", solved), ("judge", judged), ("pairs", paired), ("reflect", reflected))
        ),
        _figure("ended within the limit, all kinds", every := [*solved, *judged, *paired, *reflected], _ended(every)),
    ]


def rate(name: str, outputs: Sequence[Output]) -> Figure:
    """Share of correct outputs; what did not parse is wrong."""
    return _figure(name, outputs, [output.correct for output in outputs])


def balanced(name: str, outputs: Sequence[Output]) -> Figure:
    """Mean of the recalls of "Yes" and "No"; what did not parse is wrong."""
    observed = ((o.task.problem_id, o.task.label, float(o.correct)) for o in outputs)
    return _as_figure(name, balanced_proportion(observed, ("Yes", "No")))


def _figure(name: str, outputs: Sequence[Output], hits: Sequence[bool]) -> Figure:
    observed = ((o.task.problem_id, float(hit)) for o, hit in zip(outputs, hits, strict=True))
    return _as_figure(name, clustered_proportion(observed))


def _as_figure(name: str, found: Estimate) -> Figure:
    nan = float("nan")
    value, low, high = (nan if x is None else x for x in (found.value, found.low, found.high))
    return Figure(name, value, low, high, found.n, found.clusters)


def _ended(outputs: Sequence[Output]) -> list[bool]:
    return [output.ended for output in outputs]


def _by_part(outputs: Sequence[Output], problems: Mapping[str, Problem]) -> dict[str, list[Output]]:
    """The outputs by family and level, or by the number of operations."""
    found: dict[str, list[Output]] = {}
    for output in outputs:
        meta = problems[output.task.problem_id].meta
        part = f"{meta['family']} {meta['level']}" if "family" in meta else f"{meta['operations']} operations"
        found.setdefault(part, []).append(output)
    return dict(sorted(found.items()))


def _sources(outputs: Sequence[Output], correct: bool, seed: int) -> dict[str, Rollout]:
    """One right (or wrong) answer of each problem that has one, as a scored rollout; unparsed ones are no source."""
    found: dict[str, list[Output]] = {}
    for output in outputs:
        if output.correct is correct and output.answer is not None and output.ended:
            found.setdefault(output.task.problem_id, []).append(output)
    return {
        pid: _rollout(keyed_random(seed, "source", pid, str(correct)).choice(group)) for pid, group in found.items()
    }


def _rollout(output: Output) -> Rollout:
    score = Score(float(output.correct), output.correct, Parse.OK, output.answer)
    return Rollout(output.task.id, output.task.id, 0, 0, (), (), output.text, False, score=score)


def _read(tokenizer: PreTrainedTokenizerBase, task: Task, problem: Problem, ids: list[int]) -> Output:
    ended = tokenizer.eos_token_id in ids
    ids = ids[: ids.index(tokenizer.eos_token_id) + 1] if ended else ids
    text = tokenizer.decode(ids, skip_special_tokens=True)
    if task.kind in (Kind.SOLVE, Kind.REFLECTION):
        score = score_request(VerifyRequest(text, problem, task))
        return Output(task, text, ended, len(ids), score.answer, score.correct is True)
    allowed = ("A", "B") if task.kind is Kind.PAIRWISE or task.label_map else ("Yes", "No")
    verdict = read_verdict(text, allowed).verdict
    if verdict is not None and task.label_map:
        verdict = task.label_map[verdict]
    return Output(task, text, ended, len(ids), verdict, verdict == task.label)
