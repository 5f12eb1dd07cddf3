"""Records survive JSON and Parquet bit for bit."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from enum import Enum
from functools import cache
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spark_kernel import records
from spark_kernel.errors import InputError, NonFiniteError, RunFolderError
from spark_kernel.records import (
    Exclusion,
    ExclusionReason,
    Group,
    ImagePart,
    ImageRef,
    Kind,
    Message,
    Origin,
    Parse,
    Period,
    Problem,
    Rollout,
    Score,
    Task,
    TextPart,
)
from spark_kernel.runs import tables
from spark_kernel.runs.codec import decode_plain, dumps, encode_plain, from_json, loads, to_json

RECORDS = [cls for cls in vars(records).values() if isinstance(cls, type) and is_dataclass(cls)]
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
KEYS = TEXT | st.sampled_from(["$float", "$", "$$float"])
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=2),
    max_leaves=4,
)
QUICK = settings(max_examples=30)


def same(one: object, two: object) -> bool:
    """Equal in type and value, floats bit for bit (every NaN is one)."""
    if isinstance(one, float) and isinstance(two, float):
        return (math.isnan(one) and math.isnan(two)) or struct.pack("d", one) == struct.pack("d", two)
    if type(one) is not type(two):
        return False
    if is_dataclass(one):
        return all(same(getattr(one, f.name), getattr(two, f.name)) for f in fields(one))  # type: ignore[arg-type]
    if isinstance(one, dict):
        return list(one) == list(two) and all(same(one[key], two[key]) for key in one)  # type: ignore[call-overload]
    if isinstance(one, list | tuple):
        return len(one) == len(two) and all(map(same, one, two))  # type: ignore[arg-type]
    return one == two


@cache
def strategy(hint: Any) -> st.SearchStrategy[Any]:
    """Arbitrary values of an annotation; `Any` means JSON values."""
    origin, arguments = get_origin(hint), get_args(hint)
    if is_dataclass(hint):
        return st.builds(hint, **{name: strategy(part) for name, part in get_type_hints(hint).items()})  # type: ignore
    if origin is Mapping:
        return st.dictionaries(strategy(arguments[0]), strategy(arguments[1]), max_size=2)
    if origin is tuple:
        return st.lists(strategy(arguments[0]), max_size=2).map(tuple)
    if origin in (Union, UnionType):
        return st.one_of([strategy(part) for part in arguments])
    known = {Any: PLAIN, str: TEXT, float: st.floats(), type(None): st.none()}
    return known[hint] if hint in known else st.from_type(hint)


@pytest.mark.parametrize("cls", RECORDS, ids=lambda cls: cls.__name__)
def test_every_record_survives_json(cls: type) -> None:
    @QUICK
    @given(strategy(cls))
    def check(record: object) -> None:
        text = dumps(to_json(record))
        again = from_json(cls, loads(text, "test"))
        assert same(record, again)
        json.loads(text, parse_constant=pytest.fail)

    check()


def test_the_list_of_records_is_not_empty_or_partial() -> None:
    names = {cls.__name__ for cls in RECORDS}
    assert {"Task", "Rollout", "Group", "Problem", "Exclusion", "Recycled", "UpdateStats", "RoundReport"} <= names


@QUICK
@given(PLAIN)
def test_plain_values_survive_and_no_user_key_is_taken_for_a_float(value: object) -> None:
    assert same(decode_plain(loads(dumps(encode_plain(value)), "test")), value)


def test_a_part_of_a_message_says_which_it_is() -> None:
    message = Message("user", (TextPart("a"), ImagePart(0)))
    assert to_json(message)["parts"] == [{"type": "TextPart", "text": "a"}, {"type": "ImagePart", "index": 0}]


@pytest.mark.parametrize(
    ("value", "word"),
    [
        ({"reward": 1.0, "correct": True}, "parse"),
        ({"reward": "1", "correct": True, "parse": "ok"}, "reward"),
        ({"reward": 1.0, "correct": 1, "parse": "ok"}, "correct"),
        ({"reward": 1.0, "correct": True, "parse": "fine"}, "parse"),
        ({"reward": 1.0, "correct": True, "parse": "ok", "extra": 1}, "extra"),
        ({"reward": {"$float": "big"}, "correct": True, "parse": "ok"}, "reward"),
        ([], "Score"),
    ],
)
def test_damaged_json_names_the_field(value: object, word: str) -> None:
    with pytest.raises(RunFolderError, match=word):
        from_json(Score, value)


@pytest.mark.parametrize("value", [{1, 2}, {"a": object()}, {1: "a"}, "\ud800", {"\ud800": 1}, [b"x"], 1j])
def test_what_is_not_json_is_refused_on_writing(value: object) -> None:
    with pytest.raises(InputError):
        encode_plain(value)


def test_a_record_with_a_wrong_field_is_refused_on_writing() -> None:
    with pytest.raises(InputError, match=r"Score\.reward"):
        to_json(Score(True, True, Parse.OK))
    with pytest.raises(InputError, match=r"Score\.parse"):
        to_json(Score(1.0, True, "ok"))  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["{", "NaN", '{"a": Infinity}', "[" * 100_000, b"\xff\xfe"])
def test_text_that_is_not_json_is_damage(text: str | bytes) -> None:
    with pytest.raises(RunFolderError, match=r"report\.json"):
        loads(text, "report.json")


# Parquet -------------------------------------------------------------------------------------------------------------

INT32 = st.integers(0, 2**31 - 1)
INT64 = st.integers(-(2**63), 2**63 - 1)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
IMAGE = st.builds(ImageRef, TEXT, st.just("images/a.png"))
PROBLEM = st.builds(
    Problem, TEXT, TEXT, TEXT, TEXT, st.lists(IMAGE, max_size=2).map(tuple), st.dictionaries(TEXT, PLAIN, max_size=2)
)
MESSAGE = st.builds(
    Message, TEXT, st.lists(st.builds(TextPart, TEXT) | st.builds(ImagePart, INT32), max_size=3).map(tuple)
)
TASK = st.builds(
    Task,
    messages=st.lists(MESSAGE, max_size=2).map(tuple),
    images=st.lists(IMAGE, max_size=2).map(tuple),
    round=INT64,
    source_policy_version=st.none() | INT64,
    label_map=st.none() | st.dictionaries(TEXT, TEXT, max_size=2),
    **dict.fromkeys(("id", "problem_id", "label", "verifier", "template_id"), TEXT),
    gold_position=st.none() | TEXT,
    sources=st.lists(TEXT, max_size=2).map(tuple),
)
SCORE = st.builds(Score, st.none() | FINITE, st.none() | st.booleans(), st.sampled_from(Parse), st.none() | TEXT, TEXT)


@st.composite
def groups(draw: st.DrawFn) -> Group:
    task = draw(TASK)
    rollouts = []
    for index in range(draw(st.integers(0, 3))):
        tokens = tuple(draw(st.lists(INT32, max_size=4)))
        rollouts.append(
            Rollout(
                draw(TEXT),
                task.id,
                index,
                draw(INT64),
                tokens,
                tuple(draw(FINITE) for _ in tokens),
                draw(TEXT),
                draw(st.booleans()),
                draw(FINITE),
                draw(st.none() | SCORE),
                draw(st.none() | FINITE),
            )
        )
    return Group(task, tuple(rollouts))


def through_parquet(table: pa.Table, folder: object) -> pa.Table:
    from spark_kernel.runs.storage import read_table, write_table

    name = table.schema.metadata[b"spark_table"].decode()
    path = folder / name  # type: ignore[operator]
    path.mkdir(exist_ok=True)
    for old in path.iterdir():
        old.unlink()
    write_table(path, name, table)
    return read_table(path, name)


@QUICK
@given(members=st.lists(groups(), min_size=1, max_size=3), prefix=st.sampled_from(["", "eval_"]))
def test_groups_survive_parquet(members: list[Group], prefix: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    key = "own/pointwise" if prefix else Period.REWARD
    tasks, rollouts = tables.group_tables(7, {key: tuple(members)}, prefix)
    folder = tmp_path_factory.getbasetemp()
    again = tables.read_groups(through_parquet(tasks, folder), through_parquet(rollouts, folder))
    assert list(again) == [str(key)]
    assert same(again[str(key)], tuple(members))


@QUICK
@given(problems=st.lists(PROBLEM, max_size=3))
def test_problems_survive_parquet(problems: list[Problem], tmp_path_factory: pytest.TempPathFactory) -> None:
    table = through_parquet(tables.problems_table(3, problems), tmp_path_factory.getbasetemp())
    assert same(tables.read_problems(table), tuple(problems))


@QUICK
@given(tasks=st.lists(TASK, max_size=3))
def test_tasks_survive_parquet(tasks: list[Task], tmp_path_factory: pytest.TempPathFactory) -> None:
    table = through_parquet(tables.task_list_table("recycled", 3, tasks), tmp_path_factory.getbasetemp())
    assert same(tables.read_task_list(table), tuple(tasks))


@QUICK
@given(items=st.lists(st.builds(Exclusion, round=st.just(3), stage=TEXT, subject_id=TEXT, detail=TEXT), max_size=3))
def test_exclusions_survive_parquet(items: list[Exclusion], tmp_path_factory: pytest.TempPathFactory) -> None:
    table = through_parquet(tables.exclusions_table(3, items), tmp_path_factory.getbasetemp())
    assert same(tables.read_exclusions(table), tuple(items))


def a_group(**changes: object) -> Group:
    task = Task("t", Kind.SOLVE, Origin.PROBLEM, "p", (Message.of("user", "q"),), "1", "exact", "solve-1", 1)
    rollout = Rollout("r", "t", 0, 0, (1, 2), (-0.5, -0.25), "x", False, 0.1, Score(1.0, True, Parse.OK), 0.0)
    return Group(task, (replace(rollout, **changes),))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "changes",
    [
        {"score": Score(math.nan, True, Parse.OK)},
        {"score": Score(math.inf, True, Parse.OK)},
        {"advantage": math.nan},
        {"logprobs": (-0.5, math.nan)},
        {"logprobs": (-math.inf, -0.5)},
        {"seconds": math.inf},
    ],
)
def test_numbers_that_are_not_finite_are_refused_by_name(changes: dict[str, object]) -> None:
    with pytest.raises(NonFiniteError, match="Rollout r"):
        tables.group_tables(1, {Period.POLICY: (a_group(**changes),)})


@pytest.mark.parametrize(
    "changes",
    [{"logprobs": (-0.5,)}, {"task_id": "other"}, {"token_ids": (2**31, 1)}, {"text": "\udc00"}],
)
def test_records_that_do_not_fit_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(InputError):
        tables.group_tables(1, {Period.POLICY: (a_group(**changes),)})


def test_an_exclusion_of_another_round_and_an_image_outside_the_run_are_refused() -> None:
    with pytest.raises(InputError, match="round 2"):
        tables.exclusions_table(1, [Exclusion(2, "queue", ExclusionReason.TOO_OLD, "t")])
    for path in ("/etc/passwd", "../x.png", "images/../../x.png"):
        with pytest.raises(InputError, match="outside"):
            tables.problems_table(1, [Problem("p", "q", "1", "exact", (ImageRef("0", path),))])


def test_enums_are_stored_by_value() -> None:
    table, _ = tables.group_tables(1, {Period.POLICY: (a_group(),)})
    row = table.to_pylist()[0]
    assert (row["period"], row["kind"], row["origin"]) == ("policy", "solve", "problem")
    assert not any(isinstance(value, Enum) for value in row.values())
