"""Problem files in the schemas of published data sets, and what comes of reading them."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
from PIL import Image

from spark_kernel.problems.files import FilesSource
from spark_kernel.prompts.build import solve_task
from spark_kernel.prompts.verdicts import write_box
from spark_kernel.records import Problem
from spark_kernel.verify.scoring import score_request
from spark_kernel.verify.verifier import VerifyRequest

SPARK_END = (
    " Please first conduct reasoning, and then answer the question. Repeat the final answer using a '\\boxed{}'."
)
"""What the SPARK authors' rows end in."""
GOOD = {"question": "What is 2 + 2?", "gold": "4"}
MORE = {"question": "What is 3 + 3?", "gold": "6"}


def png(color: str = "red", size: tuple[int, int] = (40, 20)) -> bytes:
    """A picture of one colour."""
    file = io.BytesIO()
    Image.new("RGB", size, color).save(file, "PNG")
    return file.getvalue()


def chat(text: str) -> list[dict[str, str]]:
    """A chat of one user turn."""
    return [{"role": "user", "content": text}]


def written(folder: Path, name: str, *rows: dict[str, Any]) -> Path:
    """Rows as a file, by its suffix."""
    path = folder / name
    if name.endswith("parquet"):
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), path)
    elif name.endswith("jsonl"):
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        path.write_text(json.dumps(list(rows)))
    return path


def read(path: Path, **options: Any) -> list[Problem]:
    """All problems of a file."""
    source = FilesSource(path=str(path), image_cache=str(path.parent / "cache"), **options)
    return [source.problem(index) for index in range(source.size or 0)]


def write_lines(folder: Path, name: str, *lines: object) -> Path:
    """Lines as they are (bytes or text), other values as JSON."""
    raw = [
        line if isinstance(line, bytes) else (line if isinstance(line, str) else json.dumps(line)).encode()
        for line in lines
    ]
    path = folder / name
    path.write_bytes(b"\n".join(raw) + b"\n")
    return path


def problems(path: Path | list[Path], **options: Any) -> list[Problem]:
    """All problems of a file or of several, with the options as they are."""
    names = [str(p) for p in path] if isinstance(path, list) else str(path)
    source = FilesSource(path=names, **options)
    return [source.problem(index) for index in range(source.size)]


def is_right(problem: Problem, answer: str) -> bool:
    """Whether the problem's verifier finds a boxed answer right."""
    task = solve_task(problem, seed=0, round=1)
    return bool(score_request(VerifyRequest(f"It is {write_box(answer)}.", problem, task)).correct)
