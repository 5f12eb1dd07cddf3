"""Problem files of text and data of the hub: what is read, and how what is bad is named."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_kernel.errors import InputError, ProblemError
from spark_kernel.problems.files import FilesSource
from spark_kernel.problems.stream import ProblemStream
from spark_kernel.records import ExclusionReason
from tests.helpers.problem_files import GOOD, MORE, problems, write_lines


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    return partial(write_lines, tmp_path)


def test_json_lines(write: Callable[..., Path]) -> None:
    path = write("a.jsonl", {**GOOD, "id": "first"}, {"problem": "π?", "answer": 3.14, "id": 7}, MORE)
    first, second, third = problems(path)
    assert (first.id, first.question, first.gold, first.verifier) == ("first", "What is 2 + 2?", "4", "math")
    assert (second.id, second.question, second.gold) == ("7", "π?", "3.14")
    assert third.id.startswith("q-")
    assert third.meta == {"record": f"{path}:3"}


def test_the_same_records_in_every_format_are_the_same_problems(write: Callable[..., Path], tmp_path: Path) -> None:
    rows = [{"question": 'Say "hi",\nplease: 1, 2 or 3?', "answer": "2"}, {"question": "Ünicode ✓?", "answer": "1"}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    paths = [
        write("a.jsonl", *rows),
        write("a.json", json.dumps(rows, indent=2, ensure_ascii=False)),
        write("lines.json", *rows),
        write("a.csv", "question,answer", '"Say ""hi"",\nplease: 1, 2 or 3?",2', "Ünicode ✓?,1"),
        write("a.tsv", "question\tanswer", '"Say ""hi"",\nplease: 1, 2 or 3?"\t2', "Ünicode ✓?\t1"),
        write("bom.jsonl", b"\xef\xbb\xbf" + json.dumps(rows[0]).encode() + b"\r", rows[1]),
        write("bom.csv", "\ufeffquestion,answer\r", '"Say ""hi"",\nplease: 1, 2 or 3?",2\r', "Ünicode ✓?,1\r"),
        tmp_path / "a.parquet",
    ]
    found = [[(p.id, p.question, p.gold, p.verifier) for p in problems(path)] for path in paths]
    assert all(one == found[0] for one in found)
    assert found[0][0][1:3] == ('Say "hi",\nplease: 1, 2 or 3?', "2")
    places = {path.name: [p.meta["record"].removeprefix(f"{path}:") for p in problems(path)] for path in paths}
    assert places["a.csv"] == ["2", "4"]
    assert places["a.json"] == ["record 1, line 2", "record 2, line 6"]
    assert places["a.parquet"] == ["row 1", "row 2"]


def test_several_files_are_one_source(write: Callable[..., Path]) -> None:
    first, second = write("a.jsonl", GOOD), write("b.jsonl", MORE)
    assert [p.gold for p in problems([first, second])] == ["4", "6"]


def test_columns_are_mapped(write: Callable[..., Path]) -> None:
    path = write("a.csv", "key,frage,loesung,answer", "a1,Was ist 2 + 2?,4,nonsense")
    (found,) = problems(path, columns={"id": "key", "question": "frage", "gold": "loesung"}, verifier="integer")
    assert (found.id, found.question, found.gold, found.verifier) == ("a1", "Was ist 2 + 2?", "4", "integer")


JSONL_MISTAKES = [
    ('{"question": "x"', r"broken JSON: Expecting ',' delimiter at column 17\."),
    (b'{"question": "\xff\xfe", "gold": "1"}', r"the line is not UTF-8 \(byte 15\)\."),
    ("[1, 2]", r"the record is an array, not an object with named fields\."),
    ('{"question": "x", "gold": NaN}', r"the gold is nan\."),
    ('{"question": "x", "question": "y", "gold": 1}', r'the field "question" stands twice in one object\.'),
    ("[" * 100_000, r"unusable JSON: maximum recursion depth"),
    ('{"question": "x", "gold": ' + "9" * 5000 + "}", r"unusable JSON: Exceeds the limit"),
    ({"gold": "4"}, r'the question is missing \(field "question" or "problem"; present: "gold"\); .*columns'),
    ({"question": "x"}, r'the gold is missing \(field "gold" or "answer"; present: "question"\)'),
    ({"question": "x", "gold": None}, r"the gold is missing"),
    ({"question": " \n", "gold": "4"}, r"the question is empty\."),
    ({"question": ["x"], "gold": "4"}, r"the question must be a text, not list\."),
    ({"question": "x", "gold": " "}, r"the gold is empty\."),
    ({"question": "x", "gold": True}, r"the gold must be a text or a number, not bool\."),
    ({"question": "x", "gold": [["4"]]}, r"the gold must be a text or a number, not list\."),
    ({"question": "x", "gold": []}, r"the gold is an empty list\."),
    ({"question": "x", "gold": {"value": 4}}, r'an object with the fields "value": name one of them by its path'),
    ({"question": "x", "gold": "N/A"}, r'the gold "N/A" only says that there is none'),
    ('{"question": "\\ud800", "gold": "4"}', r"the question holds half of a surrogate pair"),
    ({"question": "x", "gold": "4", "id": 1.5}, r"the id must be a text or a whole number, not float\."),
    (
        {"question": "x", "gold": "4", "id": "one"},
        r'the id "one" was given before, at .*jsonl:1, with another q',
    ),
    (
        {"question": "what  IS 2 + 2?", "gold": "5"},
        r'with the same question and images was given before, at .*jsonl:2, with the gold "4" where this one has "5"\.',
    ),
    ({"question": "<image> <image>", "gold": "4"}, r"2 <image> marks for 0 images\."),
    ({"question": "x", "gold": "4", "image": "gone.png"}, r"There is no image file .*gone\.png\."),
    ({"question": "x", "gold": "4", "image": "../a.png"}, r"the image \.\./a\.png lies outside .*image_root"),
    ({"question": "x", "gold": "4", "image": "/etc/passwd"}, r"the image /etc/passwd lies outside"),
    ({"question": "x", "gold": "4", "image": "https://example.com/a.png"}, r"is not downloaded: save it"),
    ({"question": "x", "gold": "4", "image": "a\u0000b"}, r"is no path|cannot be read"),
    ({"question": "x", "gold": "4", "image": 3}, r"an image must be a path, a data URI, base64 or bytes\."),
    ({"question": "x", "gold": "4", "image": "data:image/png;base64,@@"}, r"no valid base64\."),
    ({"question": "x", "gold": "4", "image": "text.jsonl"}, r"text\.jsonl is not an image in a known format: PNG"),
    ({"question": "x", "gold": "A", "choices": ["only"]}, r"the choices must be a list of 2 to 26 texts\."),
    ({"question": "x", "gold": 2, "choices": ["a", "b"]}, r"the gold 2 is no index of 2 choices: 0 to 1\."),
    ({"message": [{"role": "user", "content": 5}], "gold": "4"}, r"content must be a text or a list of parts\."),
    ({"message": "[{", "gold": "4"}, r"the chat is broken JSON"),
    (
        {"message": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}], "gold": "4"},
        r"one user turn",
    ),
    (
        {"message": [{"role": "user", "content": [{"type": "video"}]}], "gold": "4"},
        r"a part of type 'video' is refused",
    ),
    ({"message": [{"role": "user", "content": [{"type": "image"}]}], "gold": "4"}, r"1 image parts and the record 0"),
]


@pytest.mark.parametrize(("line", "reason"), JSONL_MISTAKES, ids=[reason[:40] for _, reason in JSONL_MISTAKES])
def test_a_bad_line_is_named_and_can_be_skipped(write: Callable[..., Path], line: object, reason: str) -> None:
    write("text.jsonl", GOOD)
    path = write("a.jsonl", {**MORE, "id": "one"}, GOOD, line, {**GOOD, "id": "last"})
    source = FilesSource(path=str(path))
    assert source.size == 4
    with pytest.raises(ProblemError, match=rf"^{path}:3: .*{reason}"):
        source.problem(2)
    with pytest.raises(ProblemError, match=rf"^{path}:3: "):
        ProblemStream(source, seed=0, held_out_fraction=0.01)
    stream = ProblemStream(source, seed=0, held_out_fraction=0.01, on_bad_problem="skip")
    taken = stream.take(0, 1, round=1)
    assert [e.detail.split(": ")[0] for e in taken.exclusions if e.reason is ExclusionReason.BAD_PROBLEM] == [
        f"{path}:3"
    ]
    assert [source.problem(index).gold for index in (0, 1, 3)] == ["6", "4", "4"]


@pytest.mark.parametrize(
    ("name", "lines", "place", "reason"),
    [
        ("a.json", ['[{"question": "x", "gold": "1"},', "{"], 3, "broken JSON"),
        ("a.json", ['[{"question": "x", "gold": "1"}', '{"question": "y"}]'], 2, "a comma or ] is missing"),
        ("a.json", ['[{"question": "x", "gold": "1"}'], 2, "a comma or ] is missing"),
        ("a.json", ['[{"question": "x", "gold": "1"},', "]"], 2, "a record is missing after the comma"),
        ("a.json", ["["], 2, "the closing ] is missing"),
        ("a.json", ["[]", "x"], 2, "text after the closing"),
        ("a.json", ["[", b'"\xff"]'], 2, "is not UTF-8"),
        ("a.csv", [""], 1, "the header line with the column names is missing"),
        ("a.csv", ["question,question"], 1, 'names the column "question" twice'),
        ("a.csv", ['"question,gold'], 1, "broken CSV header"),
    ],
)
def test_a_file_broken_as_a_whole_stops_at_once(
    write: Callable[..., Path], name: str, lines: list[object], place: int, reason: str
) -> None:
    path = write(name, *lines)
    with pytest.raises(ProblemError, match=rf"^{path}:{place}: .*{reason}"):
        FilesSource(path=str(path))


def test_a_json_array_goes_on_after_a_bad_record(write: Callable[..., Path]) -> None:
    path = write("a.json", "[", f"{json.dumps(GOOD)},", '{"gold": 1, "gold": 2},', "7,", f"{json.dumps(MORE)}]")
    source = FilesSource(path=str(path))
    assert [source.problem(0).gold, source.problem(3).gold] == ["4", "6"]
    with pytest.raises(ProblemError, match=rf"^{path}:record 2, line 3: unusable JSON: the field"):
        source.problem(1)
    with pytest.raises(ProblemError, match=rf"^{path}:record 3, line 4: the record is a number"):
        source.problem(2)


def test_bad_csv_records_keep_their_line(write: Callable[..., Path]) -> None:
    path = write(
        "a.csv",
        "question,gold",
        '"two\nlines",1',
        "one,2,3",
        b"caf\xe9,3",
        "",
        "five,",
        "x" * 200_000 + ",5",
        "six,6",
        '"open,7',
    )
    source = FilesSource(path=str(path))
    reasons = {
        1: ":4: 3 fields where the header has 2",
        2: ":5: the line is not UTF-8",
        3: ":7: the gold is missing",
        6: ":10: broken CSV: unexpected end of data",
    }
    assert source.size == 7
    assert [source.problem(index).gold for index in (0, 4, 5)] == ["1", "5", "6"]
    assert [(row.place, row.reason) for row in source.skipped] == [(f"{path}:6", ExclusionReason.BLANK)]
    for index, reason in reasons.items():
        with pytest.raises(ProblemError, match=f"{path}{reason}"):
            source.problem(index)


@given(st.lists(st.binary(max_size=60), max_size=8))
def test_any_bytes_give_problems_or_named_lines(tmp_path_factory: pytest.TempPathFactory, lines: list[bytes]) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "a.jsonl"
    path.write_bytes(b"\n".join([json.dumps(GOOD).encode(), *lines]))
    source = FilesSource(path=str(path))
    assert source.problem(0).gold == "4"
    blank = {row.place for row in source.skipped}
    named = [number for number in range(2, source.size + len(blank) + 1) if f"{path}:{number}" not in blank]
    for index, number in zip(range(1, source.size), named, strict=True):
        with pytest.raises(ProblemError, match=rf"a\.jsonl:{number}: "):
            source.problem(index)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"path": "nowhere.jsonl"}, r"There is no problem file nowhere\.jsonl\."),
        ({"path": "a.txt"}, r"must end in one of \.jsonl, \.ndjson, \.json, \.csv, \.tsv, \.parquet"),
        ({"path": []}, "name at least one problem file"),
        ({"path": "a.jsonl", "dataset": "owner/name"}, "needs either"),
        ({"path": "a.jsonl", "columns": {"questions": "q"}}, '"questions", which is refused: question, message, gold'),
        ({"path": "a.jsonl", "image_root": "/nowhere/at/all"}, "image_root = /nowhere/at/all is no folder"),
        ({"path": "a.jsonl", "max_pixels": 10**9}, "max_pixels = 1000000000 is refused"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        FilesSource(**options)


def test_an_empty_file_holds_no_problems(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").touch()
    with pytest.raises(InputError, match=r"a\.jsonl holds no problems"):
        FilesSource(path=str(tmp_path / "a.jsonl"))


def test_a_damaged_parquet_file_is_refused(write: Callable[..., Path]) -> None:
    with pytest.raises(InputError, match="is not a readable Parquet file"):
        FilesSource(path=str(write("a.parquet", "PAR1 not really PAR1")))


def test_ids_do_not_depend_on_the_place(write: Callable[..., Path]) -> None:
    one, other = problems(write("a.jsonl", GOOD, MORE)), problems(write("b.jsonl", MORE, {**GOOD, "gold": 4}))
    assert [p.id for p in one] == [p.id for p in reversed(other)]
    assert other[1].gold == "4"


def test_equal_questions_with_ids_of_their_own_are_kept(write: Callable[..., Path]) -> None:
    assert [p.id for p in problems(write("a.jsonl", {**GOOD, "id": 1}, {**GOOD, "id": 2}))] == ["1", "2"]


def test_a_box_around_gold_is_taken_off(write: Callable[..., Path]) -> None:
    golds = [r"\boxed{\frac{1}{2}}", r"\boxed{1} or \boxed{2}", r"$\boxed{3}$."]
    found = problems(write("a.jsonl", *({"question": f"q{n}", "gold": g} for n, g in enumerate(golds))))
    assert [p.gold for p in found] == [r"\frac{1}{2}", r"\boxed{1} or \boxed{2}", "3"]


def test_choices_are_listed_and_gold_becomes_a_letter(write: Callable[..., Path]) -> None:
    path = write("a.jsonl", {"question": "Which?", "choices": ["red", "blue"], "gold": 1})
    (found,) = problems(path)
    assert found.question == "Which?\nA. red\nB. blue"
    assert (found.gold, found.verifier, found.meta["choices"]) == ("B", "choice", ["red", "blue"])
    (from_csv,) = problems(write("a.csv", "question,choices,gold", 'Which?,"[""red"", ""blue""]",blue'))
    assert (from_csv.question, from_csv.gold, from_csv.verifier) == (found.question, "blue", "choice")


# Hub data, in processes of their own because the hub library reads its environment when it is imported.


def run_python(code: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    root = Path(__file__).parents[1]
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(root), "HF_HOME": str(folder / "hf"), **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.parametrize("options", ["path='hub:owner/name'", "dataset='owner/name', subset='main', split='test'"])
def test_a_hub_name_without_network_says_what_to_do(tmp_path: Path, options: str) -> None:
    code = (
        "from spark_kernel.errors import InputError\nfrom spark_kernel.problems.files import FilesSource\n"
        f"try:\n    FilesSource({options})\nexcept InputError as error:\n    print(error)\n"
    )
    result = run_python(code, tmp_path, HF_HUB_OFFLINE="1")
    part = "(subset main, split test)" if "main" in options else "(split train)"
    assert result.stdout.strip() == (
        f"The hub data set owner/name {part} could not be read: HF_HUB_OFFLINE is set and it is not in the local "
        "cache; check name and network, or download its files elsewhere and name a local JSONL, JSON, CSV or "
        "Parquet file as problems.options.path."
    ), result.stderr


@pytest.mark.slow
def test_hub_data_is_read_through_datasets(tmp_path: Path) -> None:
    """The library takes a folder of this name for the data set, which exercises everything but the download."""
    folder = tmp_path / "owner" / "name"
    folder.mkdir(parents=True)
    code = f"""
import datasets, io, sys
from PIL import Image
image = Image.new("RGB", (5, 5), "green")
rows = {{"question": ["Which colour?", "And 1 + 1?"], "answer": ["green", "2"], "image": [image, None]}}
data = datasets.Dataset.from_dict(rows).cast_column("image", datasets.Image())
data.to_parquet("{folder}/train-00000.parquet")
from spark_kernel.problems.files import FilesSource
source = FilesSource(dataset="owner/name", image_cache="cache")
for index in range(source.size):
    problem = source.problem(index)
    print(problem.question, problem.gold, len(problem.images), problem.meta["record"], sep="|")
"""
    result = run_python(code, tmp_path, HF_HUB_OFFLINE="1")
    assert result.stdout.splitlines() == [
        "Which colour?|green|1|hub:owner/name/train:row 1",
        "And 1 + 1?|2|0|hub:owner/name/train:row 2",
    ], result.stderr
