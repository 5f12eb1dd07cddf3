from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spark_kernel.config import load_config, preset_names
from spark_kernel.errors import InputError, ProblemError
from spark_kernel.problems.arithmetic import ArithmeticSource
from spark_kernel.problems.held_out import CANONICAL_FORM, canonical_text, is_held_out
from spark_kernel.problems.registry import make_source
from spark_kernel.problems.stream import ProblemStream, Taken
from spark_kernel.records import ExclusionReason, Problem


@dataclass
class ListSource:
    """A finite source over given problems; an exception in the list is raised when it is asked for."""

    problems: list[Problem | ProblemError]
    unlimited: bool = False

    @property
    def size(self) -> int | None:
        return None if self.unlimited else len(self.problems)

    def problem(self, index: int) -> Problem:
        found = self.problems[index % len(self.problems)]
        if isinstance(found, ProblemError):
            raise found
        return found


def questions(count: int) -> list[Problem | ProblemError]:
    return [Problem(f"p{n}", f"What is {n} plus {n}?", str(2 * n), "integer") for n in range(count)]


def finite(count: int, **changes: object) -> ProblemStream:
    return ProblemStream(ListSource(questions(count)), **({"seed": 1, "held_out_fraction": 0.2} | changes))


def unlimited(**changes: object) -> ProblemStream:
    return ProblemStream(ArithmeticSource(seed=4), **({"seed": 1, "held_out_fraction": 0.2} | changes))


def ids(problems: tuple[Problem, ...]) -> list[str]:
    return [problem.id for problem in problems]


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6))
@settings(max_examples=20)
def test_any_split_of_takes_gives_the_same_sequence(counts: list[int]) -> None:
    whole = unlimited().take(0, sum(counts), round=1)
    cursor, pieces, exclusions = 0, [], []
    for number, count in enumerate(counts):
        # A new stream each time: nothing but the cursor is carried over.
        taken = unlimited().take(cursor, count, round=number + 1)
        cursor = taken.cursor
        pieces += ids(taken.problems)
        exclusions += [exclusion.subject_id for exclusion in taken.exclusions]
    if len(set(pieces)) == len(pieces):
        assert pieces == ids(whole.problems)
        assert cursor == whole.cursor
        assert exclusions == [exclusion.subject_id for exclusion in whole.exclusions]


@given(st.integers(1, 60), st.lists(st.integers(1, 100), min_size=1, max_size=12), st.integers(0, 12))
@settings(max_examples=25)
def test_a_finite_walk_resumes_exactly(size: int, counts: list[int], stop: int) -> None:
    try:
        stream = finite(size)
    except InputError:
        assert all(is_held_out(p, 0.2, CANONICAL_FORM) for p in questions(size))
        return
    available = stream.trainable_count
    counts = [min(count, available) for count in counts]

    def walk(restart_at: int | None) -> list[Taken]:
        walker, cursor, taken = finite(size), 0, []
        for number, count in enumerate(counts):
            if number == restart_at:
                walker = finite(size)
            taken.append(walker.take(cursor, count, round=number + 1))
            cursor = taken[-1].cursor
        return taken

    assert walk(None) == walk(stop)


def test_an_epoch_is_a_permutation_and_the_next_one_another() -> None:
    stream = finite(50)
    count = stream.trainable_count
    first = stream.take(0, count, round=1)
    second = stream.take(first.cursor, count, round=2)
    expected = [p.id for p in questions(50) if not is_held_out(p, 0.2, CANONICAL_FORM)]
    assert sorted(ids(first.problems)) == sorted(ids(second.problems)) == sorted(expected)
    assert ids(first.problems) != ids(second.problems)
    assert ids(first.problems) != expected
    assert ids(finite(50, seed=2).take(0, count, round=1).problems) != ids(first.problems)


def test_a_round_never_holds_a_problem_twice() -> None:
    stream = finite(30)
    count = stream.trainable_count - 1
    cursor, repeated = 0, 0
    for number in range(1, 21):
        taken = stream.take(cursor, count, round=number)
        assert len(set(ids(taken.problems))) == count
        later = [e for e in taken.exclusions if e.reason is ExclusionReason.REPEATED]
        assert all(e.round == number and e.subject_id in ids(taken.problems) for e in later)
        assert taken.cursor - cursor == count + len(later)
        repeated += len(later)
        cursor = taken.cursor
    assert repeated > 0


def test_a_question_under_two_ids_is_one_problem() -> None:
    twin = [replace(p, id=f"{p.id}-again", question=p.question.upper()) for p in questions(30)]
    stream = ProblemStream(ListSource([*questions(30), *twin]), seed=1, held_out_fraction=0.2)
    assert stream.trainable_count % 2 == 0
    taken = stream.take(0, stream.trainable_count // 2, round=1)
    assert len({canonical_text(p, CANONICAL_FORM) for p in taken.problems}) == len(taken.problems)
    with pytest.raises(InputError, match=f"{stream.trainable_count // 2} different problems"):
        stream.take(0, stream.trainable_count // 2 + 1, round=1)


def test_held_out_problems_of_a_finite_source_are_stated_once() -> None:
    stream = finite(50)
    first = stream.take(0, 5, round=1)
    expected = {p.id for p in questions(50) if is_held_out(p, 0.2, CANONICAL_FORM)}
    assert {e.subject_id for e in first.exclusions if e.reason is ExclusionReason.HELD_OUT} == expected
    assert all(e.stage == "problems" and e.round == 1 for e in first.exclusions)
    assert stream.take(first.cursor, 5, round=2).exclusions == ()


def streams_of_presets() -> list[str]:
    """A preset for each different stream of made problems: arms that train on the same ones are one."""
    found: dict[str, str] = {}
    for name in preset_names():
        config = load_config(name)
        if config.problems.source == "arithmetic":
            found.setdefault(f"{config.problems!r} {config.seed} {config.evaluation.problems}", name)
    return list(found.values())


@pytest.mark.parametrize("preset", streams_of_presets())
def test_presets_never_train_on_what_they_evaluate(preset: str) -> None:
    config = load_config(preset)
    make = config.problems
    stream = ProblemStream(
        make_source(make.source, make.options, config.seed), seed=config.seed, held_out_fraction=make.held_out_fraction
    )
    held_out = stream.held_out(config.evaluation.problems, seed=config.seed)
    cursor, trained, passed = 0, set(), 0
    for number in range(1, 41):
        taken = stream.take(cursor, make.per_round, round=number)
        cursor = taken.cursor
        trained |= {canonical_text(p, CANONICAL_FORM) for p in taken.problems}
        passed += sum(e.reason is ExclusionReason.HELD_OUT for e in taken.exclusions)
    assert len(held_out) == len({canonical_text(p, CANONICAL_FORM) for p in held_out}) == config.evaluation.problems
    assert trained.isdisjoint(canonical_text(p, CANONICAL_FORM) for p in held_out)
    assert passed > 0


@pytest.mark.parametrize("make", [lambda: finite(200), unlimited])
def test_held_out_problems_do_not_depend_on_training(make: object) -> None:
    fresh, used = make(), make()
    used.take(37, 20, round=3)
    assert fresh.held_out(10, seed=5) == used.held_out(10, seed=5)
    assert fresh.held_out(10, seed=5)[:4] == used.held_out(4, seed=5)
    assert set(ids(fresh.held_out(10, seed=5))) != set(ids(fresh.held_out(10, seed=6)))
    assert all(is_held_out(p, 0.2, CANONICAL_FORM) for p in fresh.held_out(10, seed=5))


def test_fewer_held_out_problems_than_asked_are_all_given_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    expected = {p.id for p in questions(40) if is_held_out(p, 0.2, CANONICAL_FORM)}
    with caplog.at_level(logging.WARNING):
        assert set(ids(finite(40).held_out(1000, seed=0))) == expected
    assert f"the source has {len(expected)}" in caplog.text


def test_no_held_out_problem_is_an_error_with_advice() -> None:
    trainable = [p for p in questions(20) if not is_held_out(p, 0.2, CANONICAL_FORM)]
    stream = ProblemStream(ListSource(trainable), seed=0, held_out_fraction=0.2)
    with pytest.raises(InputError, match=r"raise the fraction.*evaluation\.every = 0"):
        stream.held_out(5, seed=0)


def test_nothing_to_train_on_is_an_error() -> None:
    held_out = [p for p in questions(200) if is_held_out(p, 0.2, CANONICAL_FORM)]
    with pytest.raises(InputError, match=f"of {len(held_out)} problems {len(held_out)} are held out"):
        ProblemStream(ListSource(held_out), seed=0, held_out_fraction=0.2)


def test_more_problems_than_exist_are_refused() -> None:
    stream = finite(20)
    with pytest.raises(InputError, match=f"more problems than exist: {stream.trainable_count} different"):
        stream.take(0, stream.trainable_count + 1, round=1)


def test_an_exhausted_unlimited_source_is_noticed() -> None:
    source = ListSource(questions(30), unlimited=True)
    count = sum(not is_held_out(p, 0.2, CANONICAL_FORM) for p in questions(30))
    stream = ProblemStream(source, seed=0, held_out_fraction=0.2)
    assert len(stream.take(0, count, round=1).problems) == count
    with pytest.raises(InputError, match=f"{count} were found"):
        stream.take(0, count + 1, round=1)
    assert len(stream.held_out(100, seed=0)) == 30 - count


def bad_list() -> list[Problem | ProblemError]:
    problems = questions(12)
    problems[3] = ProblemError("train.jsonl:4: the gold is empty.")
    problems[7] = ProblemError("train.jsonl:8: the line is empty.")
    return problems


def test_the_first_bad_record_stops_before_training() -> None:
    with pytest.raises(ProblemError, match=r"^train\.jsonl:4: the gold is empty\. 1 more records are bad.*skip"):
        ProblemStream(ListSource(bad_list()), seed=0, held_out_fraction=0.2)


def test_skipped_records_are_exclusions_stated_once() -> None:
    stream = ProblemStream(ListSource(bad_list()), seed=0, held_out_fraction=0.2, on_bad_problem="skip")
    taken = stream.take(0, 3, round=1)
    bad = [e for e in taken.exclusions if e.reason is ExclusionReason.BAD_PROBLEM]
    assert [(e.subject_id, e.detail) for e in bad] == [
        ("problem 3", "train.jsonl:4: the gold is empty."),
        ("problem 7", "train.jsonl:8: the line is empty."),
    ]
    assert stream.take(taken.cursor, 3, round=2).exclusions == ()
    good = {p.id for p in questions(12)} - {"p3", "p7"}
    walked = Counter(ids(stream.take(0, stream.trainable_count, round=1).problems))
    assert set(walked) | set(ids(stream.held_out(12, seed=0))) == good


def refuse_ten(problems: Sequence[Problem]) -> list[str | None]:
    return [f"problem {p.id}: the gold is ten." if p.gold == "10" else None for p in problems]


def test_golds_are_checked_with_their_place() -> None:
    problems = [replace(p, meta={"record": f"train.csv:{n + 2}"}) for n, p in enumerate(questions(12))]
    with pytest.raises(ProblemError, match=r"^train\.csv:7: problem p5: the gold is ten\."):
        ProblemStream(ListSource(problems), seed=0, held_out_fraction=0.2, check_problems=refuse_ten)
    stream = ProblemStream(
        ListSource(problems), seed=0, held_out_fraction=0.2, check_problems=refuse_ten, on_bad_problem="skip"
    )
    details = [e.detail for e in stream.take(0, 1, round=1).exclusions if e.reason is ExclusionReason.BAD_PROBLEM]
    assert details == ["train.csv:7: problem p5: the gold is ten."]


def test_bad_problems_of_an_unlimited_source() -> None:
    source = ListSource(bad_list(), unlimited=True)
    stopping = ProblemStream(source, seed=0, held_out_fraction=0.2)
    with pytest.raises(ProblemError, match=r"train\.jsonl:4"):
        stopping.take(0, 8, round=1)
    taken = ProblemStream(source, seed=0, held_out_fraction=0.2, on_bad_problem="skip").take(0, 6, round=1)
    assert "train.jsonl:4: the gold is empty." in [e.detail for e in taken.exclusions]


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.5, float("nan")])
def test_impossible_fractions_are_refused(fraction: float) -> None:
    with pytest.raises(InputError, match="held_out_fraction"):
        finite(5, held_out_fraction=fraction)


@pytest.mark.parametrize(("cursor", "count"), [(0, 0), (-1, 3)])
def test_impossible_takes_are_refused(cursor: int, count: int) -> None:
    with pytest.raises(InputError, match="at least 1 from 0"):
        unlimited().take(cursor, count, round=1)


def test_progress_of_the_check_is_told_block_by_block() -> None:
    heard: list[tuple[int, int]] = []
    finite(150, on_progress=lambda done, total: heard.append((done, total)))
    assert heard == [(0, 150), (64, 150), (128, 150)]
