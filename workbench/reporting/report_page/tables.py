"""The tables of a run as one file each, a round at a time, so that a long run needs no more memory than a short one."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from spark_kernel.errors import InputError, RunFolderError
from spark_kernel.runs.codec import encode_plain
from spark_kernel.runs.reader import RunReader
from spark_kernel.runs.schemas import EVALUATION_TABLES, REPORT_SCHEMAS, TABLE_SCHEMAS
from workbench.reporting.report_page.files import writing
from workbench.spreadsheet import inert_cell

FORMATS = ("csv", "parquet")


def write_tables(reader: RunReader, folder: Path, format: str) -> list[Path]:
    """Every table of docs/run-folder.md as a file in `folder`, which is made where it is missing; files are replaced.

    In CSV, lists and maps are JSON text, and text that a spreadsheet would run as a formula has an apostrophe before
    it, for model text is untrusted; Parquet holds every value as it is.

    Raises:
        InputError: an unknown format, or the folder lies inside the run.
        RunFolderError: the run is damaged, or the folder cannot be written.
    """
    if format not in FORMATS:
        raise InputError(f'There is no format "{format}": choose {" or ".join(FORMATS)}.')
    if folder.resolve().is_relative_to(reader.path.resolve()):
        raise InputError(f"{folder} lies inside the run {reader.path}, which is only read: choose another folder.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunFolderError(f"{folder} cannot be made: {error.strerror}. Choose another folder.") from error
    write = _write_csv if format == "csv" else _write_parquet
    written = []
    for name, schema in TABLE_SCHEMAS.items():
        path = folder / f"{name}.{format}"
        with writing(path) as file:
            write(file, schema, _parts(reader, name))
        written.append(path)
    return written


def _parts(reader: RunReader, name: str) -> Iterator[pa.Table]:
    """The table a round at a time; those made of reports in one piece."""
    if name in REPORT_SCHEMAS:
        yield reader.table(name)
        return
    for round, suite in _present(reader, name):
        try:
            yield reader.table(name, [round], suite)
        except RunFolderError:
            if (round, suite) in _present(reader, name):
                raise


def _present(reader: RunReader, name: str) -> list[tuple[int, str | None]]:
    """The rounds of a table; of evaluations with their suite."""
    if name not in EVALUATION_TABLES:
        return [(round, None) for round in reader.rounds]
    return [(round, suite) for suite in reader.suites for round in reader.evaluated(suite)]


def _write_parquet(file: IO[bytes], schema: pa.Schema, parts: Iterator[pa.Table]) -> None:
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for part in parts:
            writer.write_table(part)


def _write_csv(file: IO[bytes], schema: pa.Schema, parts: Iterator[pa.Table]) -> None:
    text = _Utf8(file)
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(schema.names)
    for part in parts:
        for row in part.to_pylist():
            rows.writerow([_cell(row[name], schema.field(name).type) for name in schema.names])


class _Utf8:
    """The text end of a binary file, as `csv.writer` needs it; closing stays with the file."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def write(self, text: str) -> int:
        return self._file.write(text.encode())


def _cell(value: Any, type: pa.DataType) -> Any:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if pa.types.is_map(type):
        value = dict(value)
    text = value if isinstance(value, str) else json.dumps(encode_plain(_plain(value)), ensure_ascii=False)
    return inert_cell(text)


def _plain(value: Any) -> Any:
    """Nested Arrow values as JSON values: pairs of a map inside a map become an object too."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        if value and all(isinstance(item, tuple) and len(item) == 2 for item in value):
            return {str(key): _plain(item) for key, item in value}
        return [_plain(item) for item in value]
    return value
