"""Rows of problem files, in order, each with its file and place: JSON, CSV and TSV, Parquet, hub data.

A row that cannot be read is yielded as a `ProblemError` in its place, so that the rows after it keep their order. A
file that cannot be read at all, or not beyond some point, is an error at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from spark_kernel.errors import InputError, ProblemError
from spark_kernel.problems.csv_rows import read_csv, read_tsv
from spark_kernel.problems.json_rows import read_json, read_json_lines
from spark_kernel.problems.rows import Row, Rows

if TYPE_CHECKING:
    import pyarrow

BATCH_ROWS = 64
"""Parquet rows held at once: rows with images are large."""
UTF16 = (b"\xff\xfe", b"\xfe\xff")


def read_rows(path: Path) -> Rows:
    """The rows of a problem file, by its suffix.

    Raises:
        InputError: no such file, an unknown suffix, or a file that is broken as a whole.
    """
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise InputError(f"{path} is no problem file: the name must end in one of {', '.join(READERS)}.")
    if path.is_dir():
        raise InputError(f"{path} is a folder: name the problem file or files in it.")
    if not path.is_file():
        raise InputError(f"There is no problem file {path}.")
    try:
        with path.open("rb") as file:
            if file.read(2) in UTF16:
                raise InputError(f"{path} is written in UTF-16: save it as UTF-8.")
        yield from reader(path)
    except OSError as error:
        raise InputError(f"The problem file {path} cannot be read: {error}.") from None


def read_parquet(path: Path) -> Rows:
    """The rows of a Parquet file, a batch at a time.

    Raises:
        InputError: not a readable Parquet file.
    """
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            number = 0
            for batch in file.iter_batches(batch_size=BATCH_ROWS):
                yield from arrow_rows(batch, str(path), number)
                number += batch.num_rows
    except pyarrow.ArrowException as error:
        raise InputError(f"{path} is not a readable Parquet file: {' '.join(str(error).split())}.") from None


def arrow_rows(batch: pyarrow.RecordBatch | pyarrow.Table, name: str, before: int) -> Rows:
    """The rows of an Arrow batch; `before` rows came before it. Rows count from 1."""
    for index in range(batch.num_rows):
        place = f"{name}:row {before + index + 1}"
        try:
            yield Row(place, batch.slice(index, 1).to_pylist()[0])
        except (UnicodeDecodeError, ValueError, OverflowError) as error:
            yield ProblemError(f"{place}: a value cannot be read: {error}.")


READERS = {
    ".jsonl": read_json_lines,
    ".ndjson": read_json_lines,
    ".json": read_json,
    ".csv": read_csv,
    ".tsv": read_tsv,
    ".parquet": read_parquet,
}
