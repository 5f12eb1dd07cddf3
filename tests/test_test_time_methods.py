"""Voting, best of n and weighted voting: exact choices, ties, missing answers, and equal token budgets."""

from __future__ import annotations

import math
import re
from collections import Counter
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_kernel.errors import InputError, Stopped
from spark_kernel.records import Kind, Parse, Score, View
from spark_kernel.rollout.engine import Sampling
from spark_kernel.test_time.best_of import best_of
from spark_kernel.test_time.budget import spend
from spark_kernel.test_time.equality import label_by_mathematics, label_by_text
from spark_kernel.test_time.methods import Method, Sampled, choose, choose_among
from spark_kernel.test_time.sampled import Sampler, answer_at_equal_cost
from spark_kernel.test_time.steps import LoopSettings
from spark_kernel.test_time.vote import Choice, majority_vote, weighted_vote
from spark_kernel.verify import VerifierPool
from tests.helpers.scripted_engine import ScriptedEngine, sum_problem
from tests.test_test_time_loop import kind_of

WARM = LoopSettings(Sampling(30), Sampling(30), Sampling(30))
NUMBER = re.compile(r"What is (\d+) plus")
SHOWN = re.compile(r"<answer>\n(.*?)\n</answer", re.DOTALL)


# --- choosing


@pytest.mark.parametrize(
    ("labels", "choice"),
    [
        ([0, 1, 1, 2], Choice(1, 2, 4, 1)),
        ([0, 1, 1, 0, 2], Choice(0, 2, 5, 2)),
        ([None, 0, None, None], Choice(1, 1, 1, 1)),
        ([None, 0, 1, 1, None], Choice(2, 2, 3, 1)),
        ([0], Choice(0, 1, 1, 1)),
        ([None, None], Choice(0, 0, 0, 1)),
    ],
)
def test_a_majority_vote(labels, choice):
    assert majority_vote(labels) == choice


@pytest.mark.parametrize(
    ("labels", "yes", "choice"),
    [
        ([0, 1, 1], [0.9, 0.2, 0.3], Choice(0, 0.9, 1.4, 1)),  # one sure answer outweighs two doubtful ones
        ([0, 1, 1], [0.4, None, None], Choice(1, 1.0, 1.4, 1)),  # unread verdicts weigh 0.5
        ([0, 1, None], [0.25, 0.25, 1.0], Choice(0, 0.25, 0.5, 2)),
        ([0, 1, 2, 1], [None, None, None, None], Choice(1, 1.0, 2.0, 1)),
        ([None], [0.9], Choice(0, 0, 0, 1)),
        ([0, 1], [0.0, 0.0], Choice(0, 0.0, 0.0, 2)),
    ],
)
def test_a_vote_weighted_by_the_probability_of_yes(labels, yes, choice):
    found = weighted_vote(labels, yes)
    assert (found.index, found.tied) == (choice.index, choice.tied)
    assert (found.support, found.of) == (pytest.approx(choice.support), pytest.approx(choice.of))


@pytest.mark.parametrize(
    ("labels", "verdicts", "index", "tied"),
    [
        ([0, 1, 2], ["No", "Yes", "Yes"], 1, 2),
        ([0, 1, 1], ["No", "Yes", "Yes"], 1, 1),
        ([0, 1, 2], ["No", None, "No"], 1, 1),  # not rejected is better than rejected
        ([0, 1], ["No", "No"], 0, 2),
        ([None, 0], ["Yes", "No"], 1, 1),  # there is nothing to accept in an output without an answer
        ([None, None], [None, None], 0, 1),
    ],
)
def test_best_of_n_by_verdicts(labels, verdicts, index, tied):
    found = best_of(labels, verdicts)
    assert (found.index, found.tied) == (index, tied)


@given(st.lists(st.one_of(st.none(), st.integers(0, 4)), min_size=1, max_size=12))
def test_a_vote_is_what_counting_says(labels):
    counts = Counter(label for label in labels if label is not None)
    chosen = labels[majority_vote(labels).index]
    assert (chosen is None) == (not counts)
    if counts:
        assert counts[chosen] == max(counts.values())
        assert all(labels.index(chosen) <= labels.index(x) for x, n in counts.items() if n == counts[chosen])
    equal = [0.37] * len(labels)
    assert weighted_vote(labels, equal).index == majority_vote(labels).index


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["Yes", "No", None]), st.floats(0, 1)), min_size=1))
def test_columns_that_a_method_does_not_use_do_not_matter(rows):
    labels, verdicts, yes = map(list, zip(*rows, strict=True))
    nothing = [None] * len(rows)
    assert choose_among(Method.VOTE, labels, verdicts, yes) == choose_among(Method.VOTE, labels, nothing, nothing)
    assert choose_among(Method.BEST_OF, labels, verdicts, yes) == choose_among(
        Method.BEST_OF, labels, verdicts, nothing
    )
    assert choose_among(Method.WEIGHTED, labels, verdicts, yes) == choose_among(Method.WEIGHTED, labels, nothing, yes)


# --- which answers are the same


def test_answers_spelled_alike_are_the_same():
    rows = [["07.50", None, " 7.5.", r"\text{x}", "$X$"], [], [None]]
    assert label_by_text(rows) == [(0, None, 0, 1, 1), (), (None,)]


MATHS = [["0.5", r"\frac{1}{2}", "2", None, "1/2", r"x = 2"], ["apple", "pear", "apple"]]


def same_number(requests):
    """An oracle that knows fractions only; fails to compare what holds no number."""

    def value(text):
        numbers = re.findall(r"\d+(?:\.\d+)?", text.replace(r"\boxed", ""))
        return Fraction(numbers[0]) / Fraction(numbers[1] if len(numbers) > 1 else 1) if numbers else None

    found = []
    for request in requests:
        one, two = value(request.output), value(request.task.label)
        if one is None or two is None:
            found.append(Score(None, None, None, Parse.TIMEOUT, "Too slow."))
        else:
            found.append(Score(float(one == two), one == two, request.output, Parse.OK, ""))
    return found


def test_answers_found_equal_in_pairs_share_a_label_and_what_cannot_be_compared_is_different():
    asked = []

    def score(requests):
        asked.extend(requests)
        return same_number(requests)

    assert label_by_mathematics(score)(MATHS) == [(0, 0, 1, None, 0, 1), (0, 1, 0)]
    assert label_by_text(MATHS)[0] == (0, 1, 2, None, 3, 4)
    assert len(asked) == 5 * 4 // 2 + 1  # every pair of different spellings once


@pytest.mark.slow
def test_mathematical_equality_goes_through_worker_processes():
    with VerifierPool(1, 20.0, 1.0) as pool:
        assert label_by_mathematics(pool.score)(MATHS) == [(0, 0, 1, None, 0, 1), (0, 1, 0)]


def test_without_two_spellings_nothing_is_compared():
    def never(_requests):
        raise AssertionError

    assert label_by_mathematics(never)([["1", "1.0"], [None], []]) == [(0, 0), (None,), ()]


# --- budgets


def test_a_budget_is_spent_evenly_and_never_exceeded():
    found = spend([[10, 10, 10], [5, 5, 5], [7, 7, 7]], 45)
    assert (found.samples, found.tokens, found.limited) == ((2, 2, 2), 44, False)
    assert spend([[10, 10], [5, 5]], 25).samples == (2, 1)
    assert spend([[10, 10], [5, 5]], 24).samples == (1, 1)


def test_the_first_samples_are_free_of_the_budget_and_a_lack_of_samples_is_said():
    over = spend([[10], [5]], 3)
    assert (over.samples, over.tokens, over.limited) == ((1, 1), 15, False)
    under = spend([[10, 1], [5]], 100)
    assert (under.samples, under.tokens, under.limited) == ((2, 1), 16, True)
    assert spend([], 0).samples == ()


@given(
    st.lists(st.lists(st.integers(1, 40), min_size=1, max_size=6), min_size=1, max_size=6),
    st.integers(0, 400),
)
def test_spending(costs, budget):
    found = spend(costs, budget)
    used = [row[:count] for row, count in zip(costs, found.samples, strict=True)]
    assert found.tokens == sum(map(sum, used))
    first = sum(row[0] for row in costs)
    assert found.tokens <= max(budget, first)
    counts = [n for n, row in zip(found.samples, costs, strict=True) if n < len(row)]
    assert not counts or max(found.samples) - min(counts) <= 1
    if not found.limited and found.samples != tuple(map(len, costs)):
        assert found.tokens + max(map(max, costs)) > budget
    if found.limited:
        assert found.samples == tuple(map(len, costs))


# --- sampling, judging, and the loop's cost


def said(prompt, yes):
    text = prompt.messages[0].text
    if r"\boxed{A} means correct" in text:
        return "A" if yes else "B"
    if r"\boxed{A} means not correct" in text:
        return "B" if yes else "A"
    return "Yes" if yes else "No"


class Solver(ScriptedEngine):
    """Answers rightly where its seed is even, judges as told; P(Yes) is 0.9 for "Yes" and 0.2 for "No"."""

    def __init__(self, judges, wrong=lambda seed: 1 + seed % 3):
        self.judges, self.wrong = judges, wrong
        super().__init__(self.written)

    def written(self, prompt, seed):
        text = prompt.messages[0].text
        gold = int(NUMBER.search(text).group(1)) + 1
        if kind_of(prompt) is not Kind.POINTWISE:
            return rf"it is \boxed{{{gold if seed % 2 == 0 else gold + self.wrong(seed)}}}"
        shown = int(re.findall(r"\d+", SHOWN.findall(text)[0])[-1])
        verdict = self.judges(shown, gold)
        return "who can tell" if verdict is None else rf"hm \boxed{{{said(prompt, verdict)}}}"

    def score(self, prompts, outputs):
        return [
            [[self._logprob(p, "".join(map(chr, row)))] for row in rows]
            for p, rows in zip(prompts, outputs, strict=True)
        ]

    def _logprob(self, prompt, text):
        gold = int(NUMBER.search(prompt.messages[0].text).group(1)) + 1
        shown = int(re.findall(r"\d+", SHOWN.findall(prompt.messages[0].text)[0])[-1])
        yes = 0.9 if self.judges(shown, gold) else 0.2
        return math.log(yes if text.endswith(rf"{{{said(prompt, True)}}}") else 1 - yes)


def characters(text):
    return tuple(map(ord, text))


PROBLEMS = [sum_problem(index) for index in range(6)]


def sampler(engine, seed=1, **more):
    return Sampler(engine, WARM, seed, encode=characters, **more)


def right(one: Sampled):
    gold = str(int(one.problem_id[1:]) + 1)
    return [answer.answer == gold for answer in one.answers]


def test_the_first_samples_do_not_depend_on_how_many_there_are_or_who_else_is_asked():
    engine = Solver(lambda shown, gold: shown == gold)
    many = sampler(engine).sample(PROBLEMS, 7)
    few = sampler(engine).sample(PROBLEMS[2:3], 3)
    assert [step.text for step in many[2].answers[:3]] == [step.text for step in few[0].answers]
    grown = sampler(engine).extend(PROBLEMS[2:3], few, 7)
    assert grown[0] == many[2]
    assert [step.index for step in grown[0].answers] == list(range(7))
    assert sampler(engine, seed=2).sample(PROBLEMS, 7) != many
    assert len({prompt.seeds[i] for prompt in engine.calls[0][0] for i in range(7)}) == 42


def test_judging_reads_verdicts_and_probabilities_and_is_done_once():
    engine = Solver(lambda shown, gold: shown == gold)
    drawn = sampler(engine).sample(PROBLEMS, 4)
    some = sampler(engine).judge(PROBLEMS, drawn, 2)
    assert all(one.judgements[2:] == (None, None) for one in some)
    before = len(engine.calls)
    judged = sampler(engine).judge(PROBLEMS, some, 4)
    assert sum(len(prompts) for prompts, _ in engine.calls[before:]) == 12
    for one in judged:
        for correct, judgement in zip(right(one), one.judgements, strict=True):
            assert judgement.verdict == ("Yes" if correct else "No")
            assert judgement.yes_probability == pytest.approx(0.9 if correct else 0.2)
        assert one.costs(Method.VOTE) == [3] * 4
        assert one.costs(Method.BEST_OF) == one.costs(Method.WEIGHTED) == [5] * 4
    assert {step.view for one in judged for step in one.judgements} == {View.ANSWER}


def test_a_perfect_judge_finds_every_right_sample():
    engine = Solver(lambda shown, gold: shown == gold)
    judged = sampler(engine).judge(PROBLEMS, sampler(engine).sample(PROBLEMS, 6), 6)
    for one, labels in zip(judged, label_by_text([[a.answer for a in one.answers] for one in judged]), strict=True):
        chosen = choose(Method.BEST_OF, one, labels)
        assert right(one)[chosen.index] == any(right(one))
        assert chosen.index == (right(one).index(True) if any(right(one)) else 0)
        if any(right(one)[:2]):
            assert choose(Method.BEST_OF, one, labels, 2).index < 2


def test_answers_that_are_missing_are_not_judged_and_not_chosen():
    def write(prompt, seed):
        if kind_of(prompt) is Kind.POINTWISE:
            return rf"\boxed{{{said(prompt, True)}}}"
        return "no idea at all" if seed % 2 else r"\boxed{4}"

    engine = ScriptedEngine(write)
    (one,) = Sampler(engine, WARM, 3).sample(PROBLEMS[:1], 8)
    answers = [step.answer for step in one.answers]
    assert set(answers) == {None, "4"}
    (one,) = Sampler(engine, WARM, 3).judge(PROBLEMS[:1], [one], 8)
    assert [judgement is not None for judgement in one.judgements] == [answer == "4" for answer in answers]
    (labels,) = label_by_text([answers])
    for method in Method:
        assert choose(method, one, labels).index == answers.index("4")
    assert one.costs(Method.BEST_OF) == [1 + 1 if answer == "4" else 4 for answer in answers]


def test_every_method_costs_what_the_loop_costs():
    engine = Solver(lambda shown, gold: shown == gold)
    found = answer_at_equal_cost(sampler(engine), PROBLEMS, WARM)
    budget = sum(attempt.tokens for attempt in found.attempts)
    assert budget > 5 * len(PROBLEMS)
    for method in Method:
        spending = found.spending[method]
        dearest = 3 if method is Method.VOTE else 5
        assert budget - dearest < spending.tokens <= budget
        assert (spending.budget, spending.limited) == (budget, False)
        assert spending.tokens == dearest * sum(spending.samples)
        assert max(spending.samples) - min(spending.samples) <= 1
        assert [step.problem_id for step in found.answers(method)] == [problem.id for problem in PROBLEMS]
        for choice, count in zip(found.choices[method], spending.samples, strict=True):
            assert choice.index < count
    assert min(found.spending[Method.VOTE].samples) >= min(found.spending[Method.BEST_OF].samples)
    again = answer_at_equal_cost(sampler(Solver(lambda shown, gold: shown == gold)), PROBLEMS, WARM)
    assert again == found


def test_one_question_is_answered_as_in_a_batch_of_its_own():
    engine = Solver(lambda shown, gold: False)  # the loop rejects to the end: 3 answers, 3 judgements
    found = answer_at_equal_cost(sampler(engine), PROBLEMS[:1], WARM, methods=(Method.VOTE,))
    assert found.attempts[0].tokens == 3 * 3 + 3 * 2
    assert (found.spending[Method.VOTE].samples, found.spending[Method.VOTE].tokens) == ((5,), 15)
    assert list(found.spending) == [Method.VOTE]
    assert all(judgement is None for judgement in found.sampled[0].judgements)


def test_a_cap_on_samples_is_said():
    engine = Solver(lambda shown, gold: False)
    found = answer_at_equal_cost(sampler(engine), PROBLEMS[:2], WARM, most=2)
    assert found.spending[Method.VOTE].samples == (2, 2)
    assert found.spending[Method.VOTE].limited
    assert len(found.sampled[0].answers) == 2


def test_equal_answers_may_be_found_by_mathematics():
    def write(prompt, seed):
        if kind_of(prompt) is Kind.POINTWISE:
            return rf"\boxed{{{said(prompt, False)}}}"
        return rf"so \boxed{{{('1/2', '0.5', '7')[seed % 3]}}}"

    engine = ScriptedEngine(write)
    found = answer_at_equal_cost(
        Sampler(engine, WARM, 0),
        PROBLEMS,
        WARM,
        methods=(Method.VOTE,),
        label=label_by_mathematics(same_number),
    )
    for one, labels in zip(found.sampled, found.labels, strict=True):
        halves = {label for step, label in zip(one.answers, labels, strict=True) if step.answer != "7"}
        assert len(halves) <= 1
    assert {float(Fraction(step.answer)) for step in found.answers(Method.VOTE)} <= {0.5, 7.0}


def test_greedy_samples_and_no_samples_are_refused():
    greedy = LoopSettings(Sampling(30, 0.0), Sampling(30), Sampling(30))
    with pytest.raises(InputError, match="temperature 0"):
        Sampler(ScriptedEngine(lambda *_: ""), greedy, 0)
    with pytest.raises(InputError, match="samples = 0"):
        sampler(Solver(lambda *_: True)).sample(PROBLEMS, 0)


def test_a_stop_ends_the_sampling():
    def stop():
        raise Stopped

    with pytest.raises(Stopped):
        sampler(Solver(lambda *_: True), check_stop=stop).sample(PROBLEMS, 2)
    assert answer_at_equal_cost(sampler(Solver(lambda *_: True)), [], WARM).sampled == ()
