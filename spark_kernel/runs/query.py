"""SQL over the tables of a run, in a DuckDB that can reach nothing else.

A run folder and a query may come from a stranger. DuckDB therefore opens no file at all here: it is handed Arrow
tables and data sets, its access to files, network and extensions is switched off and the settings are locked, it
does not look at Python variables, and one reading statement is all it runs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import duckdb
import pyarrow as pa

from spark_kernel.errors import InputError, RunFolderError

SETTINGS: dict[str, str | bool | int | float | list[str]] = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "allow_community_extensions": "false",
    "allow_persistent_secrets": "false",
    "python_enable_replacements": "false",
    "temp_directory": "",
}
READING = (duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN)


def run_query(sql: str, views: Mapping[str, Callable[[], Any]]) -> pa.Table:
    """The result of one SELECT (or EXPLAIN, DESCRIBE, SHOW TABLES, SUMMARIZE) over named views.

    Args:
        sql: DuckDB's SQL.
        views: makes the Arrow table or data set of a view; called only where the SQL names the view.

    Raises:
        InputError: not one reading statement, or DuckDB refuses it; says why.
        RunFolderError: a file behind a view is damaged.
    """
    with duckdb.connect(":memory:", config=SETTINGS) as connection:
        try:
            statements = connection.extract_statements(sql)
        except duckdb.Error as error:
            raise InputError(f"This is not SQL that DuckDB reads: {error}") from error
        if len(statements) != 1 or statements[0].type not in READING:
            raise InputError("A query must be exactly one SELECT statement: a run folder is read, never changed.")
        connection.execute("SET enable_external_access = false")
        words = {word.lower() for word in re.findall(r"\w+", sql)}
        for name, make in views.items():
            if name in words or "show" in words:
                connection.register(name, make())
        connection.execute("SET lock_configuration = true")
        try:
            return connection.sql(sql).to_arrow_table()
        except duckdb.Error as error:
            if "reading the stream registered as" in str(error):
                raise RunFolderError(f"A table of this run cannot be read: {error}") from error
            raise InputError(f"DuckDB refuses this query: {error}") from error
