"""Problem files of the SPARK authors' records, and pictures in problem files: where they stand, what is refused."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from spark_kernel.errors import ProblemError
from spark_kernel.problems.files import FilesSource
from spark_kernel.prompts.build import question_parts
from spark_kernel.records import ImagePart, TextPart
from tests.helpers.problem_files import GOOD, problems, write_lines


def png(color: str = "red", size: tuple[int, int] = (6, 4)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, color).save(file, "PNG")
    return file.getvalue()


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    return partial(write_lines, tmp_path)


# The authors' data: a chat and an answer.


def test_spark_records_of_text(write: Callable[..., Path]) -> None:
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "2 + 2? Use \\boxed{}."}]
    path = write(
        "a.jsonl",
        {"message": json.dumps(chat), "answer": "\\boxed{4}"},
        {"message": [{"role": "user", "content": [{"type": "text", "text": "3 + 3?"}]}], "answer": 6},
        {"message": "4 + 4?", "answer": "8"},
    )
    first, second, third = problems(path)
    assert (first.question, first.gold, first.meta["system"]) == ("2 + 2?", "4", "Be brief.")
    assert first.meta["answer_format"] == "Use \\boxed{}."
    assert problems(path, answer_format="keep")[0].question == "2 + 2? Use \\boxed{}."
    assert (second.question, second.gold, third.question) == ("3 + 3?", "6", "4 + 4?")


def as_uri(data: bytes) -> str:
    return "data:image;base64," + base64.b64encode(data).decode()


@pytest.mark.parametrize("way", ["parts", "file-uri", "data-uri", "column", "marked text", "bare part", "parquet"])
def test_spark_records_with_an_image(write: Callable[..., Path], tmp_path: Path, way: str) -> None:
    data = png()
    (tmp_path / "pictures").mkdir()
    file = tmp_path / "pictures" / "one.png"
    file.write_bytes(data)
    text = {"type": "text", "text": "How wide?"}
    values = {"parts": "pictures/one.png", "file-uri": file.as_uri(), "data-uri": as_uri(data)}
    if way in values:
        content: Any = [{"type": "image", "image": values[way]}, text]
        record = {"message": json.dumps([{"role": "user", "content": content}]), "answer": "6"}
    elif way == "bare part":
        record = {
            "message": [{"role": "user", "content": [{"type": "image"}, text]}],
            "answer": "6",
            "images": [str(file)],
        }
    else:
        chat = json.dumps([{"role": "user", "content": "<image>How wide?"}])
        images = {"column": "pictures/one.png", "marked text": ["pictures/one.png"]}
        record = {"message": chat, "answer": "6", "images": images.get(way, [{"bytes": data, "path": "one.png"}])}
    path = tmp_path / "a.parquet"
    if way == "parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist([record]), path)
    else:
        path = write("a.jsonl", record)
    (found,) = problems(path, image_cache=str(tmp_path / "cache"))
    assert found.question == "<image>How wide?"
    assert question_parts(found) == [TextPart(""), ImagePart(0), TextPart("How wide?")]
    assert found.images[0].sha256 == sha(data)
    assert Path(found.images[0].path).is_absolute()
    assert Path(found.images[0].path).read_bytes() == data


def test_images_stand_where_the_chat_shows_them(write: Callable[..., Path]) -> None:
    parts = [
        {"type": "text", "text": "From "},
        {"type": "image_url", "image_url": {"url": as_uri(png("red"))}},
        {"type": "text", "text": " to "},
        {"type": "image", "image": as_uri(png("blue"))},
    ]
    (found,) = problems(write("a.jsonl", {"message": [{"role": "user", "content": parts}], "answer": "1"}))
    assert found.question == "From <image> to <image>"
    assert [image.sha256 for image in found.images] == [sha(png("red")), sha(png("blue"))]


def test_hugging_face_image_columns(tmp_path: Path) -> None:
    rows = [
        {"problem": "Which colour?", "answer": "red", "image": {"bytes": png("red"), "path": None}},
        {"problem": "Which colour?", "answer": "blue", "image": {"bytes": png("blue"), "path": "x.png"}},
        {"problem": "Which colour?", "answer": "pink", "image": None},
    ]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    found = problems(tmp_path / "a.parquet", image_cache=str(tmp_path / "cache"), verifier="exact")
    assert [[image.sha256 for image in p.images] for p in found] == [[sha(png("red"))], [sha(png("blue"))], []]
    assert len({p.id for p in found}) == 3
    assert sorted(p.name for p in (tmp_path / "cache").iterdir()) == sorted(
        f"{sha(png(c))}.png" for c in ("red", "blue")
    )


def test_a_link_out_of_the_image_folder_is_refused(write: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "inside").mkdir()
    (tmp_path / "secret.png").write_bytes(png())
    (tmp_path / "inside" / "link.png").symlink_to(tmp_path / "secret.png")
    source = FilesSource(path=str(write("a.jsonl", {**GOOD, "image": "link.png"})), image_root=str(tmp_path / "inside"))
    with pytest.raises(ProblemError, match=r"a\.jsonl:1: the image link\.png lies outside"):
        source.problem(0)


def test_too_many_pixels_are_refused(write: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "big.png").write_bytes(png(size=(100, 100)))
    path = write("a.jsonl", {**GOOD, "image": "big.png"})
    assert problems(path, max_pixels=10_000)[0].images
    with pytest.raises(ProblemError, match=r"a\.jsonl:1: The image .*big\.png has 100 x 100 pixels; at most 9999"):
        FilesSource(path=str(path), max_pixels=9_999).problem(0)
