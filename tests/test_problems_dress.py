"""Images, files and answer-format sentences in the dress in which they are published."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from spark_kernel.errors import InputError, ProblemError
from spark_kernel.problems.answer_format import set_apart
from spark_kernel.problems.files import FilesSource
from spark_kernel.problems.held_out import CANONICAL_FORM, canonical_text
from spark_kernel.problems.stream import ProblemStream
from spark_kernel.records import ExclusionReason
from tests.helpers.problem_files import SPARK_END, chat, png, read, written

# Images.


def image_rows(folder: Path) -> dict[str, tuple[dict[str, Any], int]]:
    (folder / "images").mkdir()
    for name, color in (("a", "red"), ("b", "blue")):
        (folder / "images" / f"{name}.png").write_bytes(png(color))
    plain = {"question": "How wide?", "answer": "40"}
    text = base64.b64encode(png()).decode()
    return {
        "base64": ({**plain, "image": text}, 1),
        "base64 with line breaks": (
            {**plain, "image": "\n".join(text[n : n + 76] for n in range(0, len(text), 76))},
            1,
        ),
        "list of base64": ({**plain, "images": [text, text]}, 2),
        "path in an object": ({**plain, "image": {"image": "images/a.png"}}, 1),
        "objects": ({**plain, "images": [{"image": "images/a.png"}, {"path": "images/b.png"}]}, 2),
        "bytes beside a path": ({**plain, "images": [{"bytes": text, "path": "nowhere.png"}]}, 1),
        "benchmark": (
            {"dataset": "MathVista", "problem": "How wide?", "answer": "40", "image_path": "images/a.png"},
            1,
        ),
        "benchmark without": ({"dataset": "GPQA", "problem": "How?", "answer": "40", "image_path": None}, 0),
        "virl": (
            {
                "question": "<image>How wide?",
                "answer": "\\boxed{40}",
                "category": "x",
                "source": "y",
                "qid": "q-1",
                "image": ["images/a.png"],
                "PassRate_7BTrained": 0.5,
            },
            1,
        ),
    }


@pytest.mark.parametrize(
    "name", ["base64", "base64 with line breaks", "list of base64", "path in an object", "objects"]
)
@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_images_as_they_are_published(tmp_path: Path, name: str, suffix: str) -> None:
    row, count = image_rows(tmp_path)[name]
    (found,) = read(written(tmp_path, f"a.{suffix}", row))
    assert len(found.images) == count
    assert found.images[0].sha256 == hashlib.sha256(png()).hexdigest()


@pytest.mark.parametrize("name", ["bytes beside a path", "benchmark", "benchmark without", "virl"])
def test_image_records_of_published_sets(tmp_path: Path, name: str) -> None:
    row, count = image_rows(tmp_path)[name]
    (found,) = read(written(tmp_path, "a.json", row))
    assert (len(found.images), found.gold) == (count, "40")
    assert found.id == row.get("qid", found.id)


def test_geometry3k_and_verl_geo3k(tmp_path: Path) -> None:
    images = [{"bytes": png(), "path": None}]
    plain = {"images": images, "problem": "<image>Find x.", "answer": "3"}
    end = (
        " You FIRST think about the reasoning process as an internal monologue and then provide the final answer. The "
        "reasoning process MUST BE enclosed within <think> </think> tags. The final answer MUST BE put in \\boxed{}."
    )
    verl = {
        "data_source": "hiyouga/geometry3k",
        "prompt": chat("<image>Find x." + end),
        "images": images,
        "ability": "math",
        "reward_model": {"style": "rule", "ground_truth": "3"},
        "extra_info": {"split": "train", "index": 0, "answer": "3", "question": "<image>Find x."},
    }
    found = [
        *read(written(tmp_path, "a.parquet", plain)),
        *read(tmp_path / "a.parquet", format="geometry3k"),
        *read(written(tmp_path, "b.parquet", verl)),
    ]
    assert {(p.question, p.gold, p.images[0].sha256) for p in found} == {
        ("<image>Find x.", "3", hashlib.sha256(png()).hexdigest())
    }


def test_an_image_part_is_made_as_small_as_it_says(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(size=(400, 200)))
    part = {"type": "image", "image": "a.png"}
    text = {"type": "text", "text": "How wide?"}

    def row(**more: Any) -> dict[str, Any]:
        return {"message": json.dumps([{"role": "user", "content": [part | more, text]}]), "answer": "6"}

    sizes, texts = [], set()
    for number, more in enumerate(({}, {"max_pixels": 80_000}, {"max_pixels": 5_000}, {"min_pixels": 10})):
        (found,) = read(written(tmp_path, f"{number}.jsonl", row(**more)))
        with Image.open(found.images[0].path) as image:
            sizes.append(image.size)
        texts.add(canonical_text(found, CANONICAL_FORM))
    assert sizes == [(400, 200), (400, 200), (100, 50), (400, 200)]
    assert len(texts) == 1, "the same problem, however large it is shown"
    with pytest.raises(ProblemError, match="max_pixels must be a whole number"):
        FilesSource(path=str(written(tmp_path, "x.jsonl", row(max_pixels="many")))).problem(0)


def test_base64_in_a_wide_tsv_column(tmp_path: Path) -> None:
    """A table with one option a column and images in base64, longer than the csv module takes by itself."""
    noise = io.BytesIO()
    Image.effect_noise((400, 400), 90).save(noise, "PNG")
    text = base64.b64encode(noise.getvalue()).decode()
    assert len(text) > 131_072
    path = tmp_path / "a.tsv"
    path.write_text(f"index\timage\tquestion\tA\tB\tC\tanswer\n0\t{text}\tWhich?\tw\tx\ty\tC\n")
    (found,) = read(path)
    assert (found.question, found.gold, found.id) == ("Which?\nA. w\nB. x\nC. y", "C", "0")
    assert found.images[0].sha256 == hashlib.sha256(noise.getvalue()).hexdigest()


# What a file may be dressed in.


@pytest.mark.parametrize(
    ("name", "data", "count", "blank"),
    [
        ("a.jsonl", b'\xef\xbb\xbf{"question":"a","answer":"1"}\r\n\r\n{"question":"b","answer":"2"}\r\n\n', 2, 2),
        ("a.csv", b"question,answer\r\na,1\r\n\r\n,\r\n", 1, 2),
        ("a.csv", b"question, answer\na, 1\n", 1, 0),
        ("a.csv", b"Question;Answer\na, b;1\n", 1, 0),
        ("a.jsonl", b'{"QUESTION":"a","Answer":"1","score":NaN}\n', 1, 0),
        ("a.jsonl", b'{"data":[{"question":"a","answer":"1"},{"question":"b","answer":"1"}]}', 2, 0),
        (
            "a.json",
            b'{"version": 1, "data": [\n{"question":"a","answer":"1"},\n{"question":"b","answer":"1"}\n]}',
            2,
            0,
        ),
        ("a.json", b'{"7": {"question":"a","answer":"1"}, "8": {"question":"b","answer":"1"}}', 2, 0),
        ("a.json", b'{\n "problem": "a",\n "solution": "\\\\boxed{1}"\n}\n', 1, 0),
        ("a.json", b'{"question":"a","answer":"1"}\n{"question":"b","answer":"1"}\n', 2, 0),
    ],
)
def test_file_dress(tmp_path: Path, name: str, data: bytes, count: int, blank: int) -> None:
    (tmp_path / name).write_bytes(data)
    source = FilesSource(path=str(tmp_path / name))
    assert [source.problem(index).gold for index in range(source.size or 0)] == ["1", "2"][
        :count
    ] or count == source.size
    assert source.size == count
    assert [row.reason for row in source.skipped] == [ExclusionReason.BLANK] * blank


def test_utf16_is_refused_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("question,answer\na,1\n", encoding="utf-16")
    with pytest.raises(InputError, match="written in UTF-16: save it as UTF-8"):
        FilesSource(path=str(tmp_path / "a.csv"))


def test_repeated_and_empty_rows_are_recorded_and_not_fatal(tmp_path: Path) -> None:
    rows = [{"question": f"What is {n} + {n}?", "answer": str(2 * n)} for n in range(8)]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, rows[3], rows[3]]) + "\n")
    source = FilesSource(path=str(path))
    stream = ProblemStream(source, seed=0, held_out_fraction=0.2)
    excluded = {(e.reason, e.subject_id) for e in stream.take(0, 2, round=1).exclusions}
    assert source.size == 8
    assert {(reason, place) for reason, place in excluded if reason is not ExclusionReason.HELD_OUT} == {
        (ExclusionReason.REPEATED, f"{path}:9"),
        (ExclusionReason.REPEATED, f"{path}:10"),
        (ExclusionReason.BLANK, f"{path}:11"),
    }


def test_a_json_array_on_one_line_names_the_record(tmp_path: Path) -> None:
    path = written(tmp_path, "a.json", {"question": "a", "answer": "1"}, {"question": "b"})
    with pytest.raises(ProblemError, match=r"a\.json:record 2, line 1: the gold is missing"):
        FilesSource(path=str(path)).problem(1)


# Answer-format sentences.

FORMATS = [
    "Please reason step by step, and put your final answer within \\boxed{}.",
    "Let's think step by step and output the final answer within \\boxed{}.",
    'Let\'s think step by step and output the final answer after "####".',
    SPARK_END.strip(),
    SPARK_END.strip().replace("\\boxed", "\\\\boxed"),
    'Remember to put your answer on its own line after "Answer:".',
    "Put your final answer in $\\boxed{}$.",
    "The final answer MUST BE put in \\boxed{}.",
    "Answer with the option's letter from the given choices directly.",
    "Answer the question using a single word or phrase.",
]
PROBLEMS = [
    "What is 2 + 2?",
    "Find $x$ if $2x = 4$",
    "Which?\nA. a\nB. b",
    "Express the answer as a common fraction.",
    "How long is it, in \\text{cm}? Give your answer to two decimal places.",
    "What does \\boxed{5} mean in step 3?",
    "Answer the riddle.",
]


@pytest.mark.parametrize("sentence", FORMATS)
@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("between", [" ", "\n", "\n\n"])
def test_an_answer_format_sentence_is_set_apart_and_nothing_else(problem: str, sentence: str, between: str) -> None:
    assert (set_apart(problem).question, set_apart(problem).removed) == (problem, "")
    for text in (problem + between + sentence, sentence + "\n" + problem):
        found = set_apart(text)
        assert (found.question, found.removed) == (problem, sentence)


@given(st.text(max_size=200))
def test_any_text_is_kept_or_split_without_loss(text: str) -> None:
    found = set_apart(text)
    assert found.question in text
    assert set_apart(found.question).question == found.question


def test_an_older_runs_records_are_read_as_they_were(tmp_path: Path) -> None:
    rows = [
        {"question": "2 + 2? " + FORMATS[0], "answer": "\\boxed{4}"},
        {"question": "Which?", "answer": "B", "choices": ["A) 1", "B) 2"]},
        {"question": "Which? (A) 1 (B) 2", "answer": "B"},
        {"question": "q", "answer": "#### 42"},
    ]
    found = read(written(tmp_path, "a.jsonl", *rows), format="columns-1")
    assert [(p.question, p.gold, p.verifier) for p in found] == [
        ("2 + 2? " + FORMATS[0], "4", "math"),
        ("Which?\nA. A) 1\nB. B) 2", "B", "choice"),
        ("Which? (A) 1 (B) 2", "B", "math"),
        ("q", "#### 42", "math"),
    ]


def test_chat_and_columns_are_one_problem(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png())
    text = {"type": "text", "text": "How wide?" + SPARK_END}
    rows = [
        {"message": [{"role": "user", "content": [{"type": "image", "image": "a.png"}, text]}], "answer": "6"},
        {"question": "How wide?", "image": "a.png", "answer": "6"},
    ]
    for options in ({}, {"answer_format": "keep"}):
        one, other = (
            read(written(tmp_path, f"{n}.jsonl", row), format="columns", **options)[0] for n, row in enumerate(rows)
        )
        assert canonical_text(one, CANONICAL_FORM) == canonical_text(other, CANONICAL_FORM)
