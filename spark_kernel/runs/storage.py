"""Folders of Parquet files: one phase of the journal, one round, one evaluation. Written into a given folder."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from spark_kernel.errors import RunFolderError
from spark_kernel.records import Period, RoundReport
from spark_kernel.runs.bundles import HELD_OUT, EvaluationRecords, PhaseInfo, PhaseRecords, RoundRecords
from spark_kernel.runs.codec import decode_plain, dumps, encode_plain, from_json, loads, to_json
from spark_kernel.runs.files import write_file
from spark_kernel.runs.layout import META, REPORT
from spark_kernel.runs.schemas import SCHEMAS
from spark_kernel.runs.tables import (
    exclusions_table,
    group_tables,
    problems_table,
    read_exclusions,
    read_groups,
    read_problems,
    read_task_list,
    task_list_table,
)


@contextmanager
def _readable(folder: Path) -> Iterator[None]:
    """Values that no record can hold (an unknown kind, a null where there must be a value) mean a damaged file."""
    try:
        yield
    except (ValueError, TypeError, KeyError) as error:
        raise RunFolderError(
            f"{folder} is damaged: a table holds a value that no record can have ({error})."
        ) from error


def parquet_path(folder: Path, name: str) -> Path:
    """The file of a table in a phase, round or evaluation folder."""
    return folder / f"{name.removeprefix('eval_')}.parquet"


def write_table(folder: Path, name: str, table: pa.Table) -> None:
    """Write one table; floats that came from float32 pack well when their bytes are stored apart."""
    floats = ["logprobs.list.element"] if "logprobs" in table.column_names else []
    texts = [field.name for field in table.schema if pa.types.is_string(field.type)]
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", use_dictionary=texts, use_byte_stream_split=floats)
    write_file(parquet_path(folder, name), sink.getvalue())


def read_table(folder: Path, name: str) -> pa.Table:
    """Read one table; an empty one where the phase had none.

    Raises:
        RunFolderError: the file is damaged or has other columns than this version writes.
        FileNotFoundError: the folder has gone meanwhile.
    """
    path = parquet_path(folder, name)
    if not path.exists():
        if not folder.is_dir():
            raise FileNotFoundError(str(folder))
        return SCHEMAS[name].empty_table()
    try:
        table = pq.ParquetFile(path).read()
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError) as error:
        raise RunFolderError(f"{path} is damaged or cannot be read: {error}.") from error
    if not table.schema.equals(SCHEMAS[name]):
        raise RunFolderError(f'{path} does not have the columns of the table "{name}".')
    return table


def write_json(path: Path, value: Any) -> None:
    """Write JSON values as a new file."""
    write_file(path, (dumps(value, indent=1) + "\n").encode())


def read_json(path: Path) -> Any:
    """Read JSON values.

    Raises:
        RunFolderError: missing or damaged.
        FileNotFoundError: the folder has gone meanwhile.
    """
    try:
        return loads(path.read_bytes(), str(path))
    except FileNotFoundError:
        if not path.parent.is_dir():
            raise
        raise RunFolderError(f"{path} is missing.") from None
    except OSError as error:
        raise RunFolderError(f"{path} cannot be read: {os.strerror(error.errno or 0)}.") from error


def write_phase(folder: Path, info: PhaseInfo, records: PhaseRecords) -> None:
    """One journal folder: the tables that are not empty, and meta.json."""
    tasks, rollouts = group_tables(info.round, {info.period: records.groups})
    tables = {
        "problems": problems_table(info.round, records.problems),
        "planned": task_list_table("planned", info.round, records.tasks),
        "tasks": tasks,
        "rollouts": rollouts,
        "recycled": task_list_table("recycled", info.round, records.recycled),
        "exclusions": exclusions_table(info.round, records.exclusions),
    }
    for name, table in tables.items():
        if table.num_rows:
            write_table(folder, name, table)
    write_json(folder / META, encode_plain(records.meta, "meta"))


def read_phase(folder: Path) -> PhaseRecords:
    """What `write_phase` wrote."""
    with _readable(folder):
        groups = read_groups(read_table(folder, "tasks"), read_table(folder, "rollouts"))
        return PhaseRecords(
            problems=read_problems(read_table(folder, "problems")),
            tasks=read_task_list(read_table(folder, "planned")),
            groups=tuple(group for members in groups.values() for group in members),
            recycled=read_task_list(read_table(folder, "recycled")),
            exclusions=read_exclusions(read_table(folder, "exclusions")),
            meta=decode_plain(read_json(folder / META)),
        )


def write_round(folder: Path, records: RoundRecords, report: RoundReport) -> None:
    """One finished round: its five tables, report.json and meta.json."""
    tasks, rollouts = group_tables(records.round, records.groups)
    write_table(folder, "problems", problems_table(records.round, records.problems))
    write_table(folder, "tasks", tasks)
    write_table(folder, "rollouts", rollouts)
    write_table(folder, "recycled", task_list_table("recycled", records.round, records.recycled))
    write_table(folder, "exclusions", exclusions_table(records.round, records.exclusions))
    write_json(folder / META, encode_plain(records.meta, "meta"))
    write_json(folder / REPORT, to_json(report))


def read_round(folder: Path) -> RoundRecords:
    """The records of a finished round, groups in the order of the update."""
    with _readable(folder):
        groups = read_groups(read_table(folder, "tasks"), read_table(folder, "rollouts"))
        return RoundRecords(
            round=int(folder.name),
            problems=read_problems(read_table(folder, "problems")),
            groups={Period(name): members for name, members in groups.items()},
            recycled=read_task_list(read_table(folder, "recycled")),
            exclusions=read_exclusions(read_table(folder, "exclusions")),
            meta=decode_plain(read_json(folder / META)),
        )


def read_report(folder: Path) -> RoundReport:
    """The report of a finished round."""
    found = read_json(folder / REPORT)
    if isinstance(found, dict) and found.get("evaluation", 0) is None:
        del found["evaluation"]  # 0.1.0 wrote it, always empty: evaluations have files of their own
    return from_json(RoundReport, found)


def write_evaluation(folder: Path, records: EvaluationRecords, report: Mapping[str, Any]) -> None:
    """One evaluation: four tables and report.json; its suite is said by the folder's place."""
    tasks, rollouts = group_tables(records.round, records.groups, "eval_")
    write_table(folder, "eval_problems", problems_table(records.round, records.problems, "eval_problems"))
    write_table(folder, "eval_tasks", tasks)
    write_table(folder, "eval_rollouts", rollouts)
    write_table(folder, "eval_exclusions", exclusions_table(records.round, records.exclusions, "eval_exclusions"))
    write_json(folder / REPORT, encode_plain(report, "report"))


def read_evaluation(folder: Path, suite: str = HELD_OUT) -> EvaluationRecords:
    """The records of an evaluation, whose folder is that of its suite."""
    with _readable(folder):
        return EvaluationRecords(
            round=int(folder.name),
            problems=read_problems(read_table(folder, "eval_problems")),
            groups=read_groups(read_table(folder, "eval_tasks"), read_table(folder, "eval_rollouts")),
            exclusions=read_exclusions(read_table(folder, "eval_exclusions")),
            suite=suite,
        )


def read_evaluation_report(folder: Path) -> dict[str, Any]:
    """The summary of an evaluation, as the evaluation wrote it."""
    value = decode_plain(read_json(folder / REPORT))
    if not isinstance(value, dict):
        raise RunFolderError(f"{folder / REPORT} is damaged: it is not an object.")
    return value
