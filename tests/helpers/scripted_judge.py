"""A scripted model that solves, judges, compares and reflects exactly as told, and its held-out evaluation."""

from __future__ import annotations

import re

from spark_kernel.config.sections import EvaluationSection, RolloutSection
from spark_kernel.evaluate.held_out import evaluate_held_out
from spark_kernel.records import Kind
from tests.helpers.scripted_engine import LocalScorer, ScriptedEngine, sum_problem

PROBLEMS = [sum_problem(i) for i in range(12)]
LENGTHS = RolloutSection(max_new_tokens=100, verdict_max_new_tokens=20)
AMOUNT = EvaluationSection()
NUMBER = re.compile(r"What is (\d+) plus")
SHOWN = re.compile(r"<answer(?:_[ab])?>\n(.*?)\n</answer", re.DOTALL)


def last_number(text):
    """The last number in a text."""
    return int(re.findall(r"\d+", text)[-1])


def kind_of(prompt):
    """Which kind of task a prompt asks, by its words."""
    text = prompt.messages[0].text
    if "<answer_a>" in text:
        return Kind.PAIRWISE
    if "<answer>" not in text:
        return Kind.SOLVE
    asks_again = "earlier answer" in text or "Look at this answer again" in text
    return Kind.REFLECTION if asks_again else Kind.POINTWISE


def verdict(prompt, yes):
    """A verdict in the prompt's own words."""
    text = prompt.messages[0].text
    if r"\boxed{A} means correct" in text:
        return "A" if yes else "B"
    if r"\boxed{A} means not correct" in text:
        return "B" if yes else "A"
    return "Yes" if yes else "No"


def model(solves, judges, compares=lambda shown, gold, seed: "A" if last_number(shown[0]) == gold else "B"):
    """An engine that solves, judges and reflects as told; a reflection corrects what it sees."""

    def write(prompt, seed):
        text = prompt.messages[0].text
        gold = int(NUMBER.search(text).group(1)) + 1
        shown = SHOWN.findall(text)
        kind = kind_of(prompt)
        if kind is Kind.SOLVE:
            return rf"so it is \boxed{{{solves(gold, seed)}}}"
        if kind is Kind.REFLECTION:
            return rf"really \boxed{{{gold}}}"
        if kind is Kind.PAIRWISE:
            return rf"\boxed{{{compares(shown, gold, seed)}}}"
        said = judges(last_number(shown[0]), gold, seed)
        return "unsure" if said is None else rf"\boxed{{{verdict(prompt, said)}}}"

    return ScriptedEngine(write)


def half_right(gold, seed):
    """Solves with odd seeds."""
    return gold if seed % 2 else gold + 7


def knows(shown, gold, seed):
    """Judges right, always."""
    return shown == gold


def evaluate(engine, amount=AMOUNT, lengths=LENGTHS, problems=PROBLEMS, seed=5, round=2, **more):
    """The held-out evaluation of `PROBLEMS`, scored in this process."""
    return evaluate_held_out(engine, LocalScorer(), problems, lengths, amount, seed=seed, round=round, **more)
