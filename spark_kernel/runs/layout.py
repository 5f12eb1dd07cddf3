"""Where things lie in a run folder. Names only: nothing here writes."""

from __future__ import annotations

import os
import re
from pathlib import Path

from spark_kernel.errors import InputError, RunFolderError
from spark_kernel.records import Period
from spark_kernel.runs.bundles import HELD_OUT, SCHEMA_VERSION, PhaseInfo, RunInfo
from spark_kernel.runs.codec import from_json, loads

RUN_JSON = "run.json"
CONFIG = "config.yaml"
ENVIRONMENT = "environment.json"
IMAGES = "images"
JOURNAL = "journal"
ROUNDS = "rounds"
EVALUATIONS = "evaluations"
CHECKPOINTS = "checkpoints"
DISCARDED = "discarded"
REPORT = "report.json"
META = "meta.json"
INHERITED = "inherited"
"""Subfolder of a fork with the rounds and evaluations of its parent that it still needs."""
FOLDERS = (IMAGES, JOURNAL, ROUNDS, EVALUATIONS, CHECKPOINTS, DISCARDED)
HANDED = "handed"
"""Stands in the journal for the groups that a person handed a phase in place of its own."""
PHASE_NAME = re.compile(r"[a-z][a-z0-9_]*")
PHASE_FOLDER = re.compile(rf"(\d{{2,}})-({'|'.join(Period)})-({PHASE_NAME.pattern})")
NUMBER = re.compile(r"\d{6,}")
SUITE = re.compile(r"[a-z][a-z0-9_-]{0,63}")


def numbered(number: int) -> str:
    """The folder name of a round: 7 -> "000007"."""
    return f"{number:06d}"


def phase_folder(run: Path, info: PhaseInfo) -> Path:
    """The journal folder of a phase.

    Raises:
        InputError: a phase name that could not be a folder name.
    """
    if not PHASE_NAME.fullmatch(info.phase):
        raise InputError(f'"{info.phase}" is no phase name: use small letters, digits and underscores.')
    return run / JOURNAL / numbered(info.round) / f"{info.index:02d}-{info.period}-{info.phase}"


def list_numbers(folder: Path) -> list[int]:
    """The numbers of the round folders in `rounds`, `journal` or a suite's, ascending. Links are not followed."""
    try:
        with os.scandir(folder) as entries:
            names = [e.name for e in entries if NUMBER.fullmatch(e.name) and e.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return []
    return sorted(int(name) for name in names)


def suite_folder(run: Path, suite: str = HELD_OUT) -> Path:
    """Where a suite's evaluations lie, by round: the run's own in `evaluations` itself, any other in a folder there.

    Raises:
        InputError: a suite name that could not be a folder name.
    """
    if suite == HELD_OUT:
        return run / EVALUATIONS
    if not SUITE.fullmatch(suite):
        raise InputError(
            f'"{suite}" is no name of a suite: use small letters, digits, "-" and "_", beginning with a letter, '
            "at most 64 of them."
        )
    return run / EVALUATIONS / suite


def evaluation_folder(run: Path, round: int, suite: str = HELD_OUT) -> Path:
    """The folder of the evaluation of a suite after a round.

    Raises:
        InputError: as `suite_folder`.
    """
    return suite_folder(run, suite) / numbered(round)


def suite_folders(run: Path) -> dict[str, Path]:
    """The folders of evaluations by suite, the run's own first, the others by name. Links are not followed."""
    try:
        with os.scandir(run / EVALUATIONS) as entries:
            names = [e.name for e in entries if SUITE.fullmatch(e.name) and e.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return {}
    return {suite: suite_folder(run, suite) for suite in dict.fromkeys((HELD_OUT, *sorted(names)))}


def list_suites(run: Path) -> list[str]:
    """The suites that have an evaluation, the run's own first, the others by name."""
    return [suite for suite, folder in suite_folders(run).items() if list_numbers(folder)]


def list_evaluations(run: Path, suite: str = HELD_OUT) -> list[int]:
    """The rounds after which there is an evaluation of a suite, ascending.

    Raises:
        InputError: as `suite_folder`.
    """
    return list_numbers(suite_folder(run, suite))


def list_phases(run: Path, round: int) -> list[PhaseInfo]:
    """The recorded phases of a round in flight, in order."""
    try:
        with os.scandir(run / JOURNAL / numbered(round)) as entries:
            names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return []
    found = [match for name in names if (match := PHASE_FOLDER.fullmatch(name)) and match.group(3) != HANDED]
    infos = [PhaseInfo(round, int(m.group(1)), Period(m.group(2)), m.group(3)) for m in found]
    return sorted(infos, key=lambda info: info.index)


def read_run_info(run: Path) -> RunInfo:
    """run.json, checked.

    Raises:
        RunFolderError: no such folder, not a run, damaged, or written by a newer version.
    """
    path = run / RUN_JSON
    if not run.exists():
        raise RunFolderError(f"There is no run at {run}: check the name, or start a run there.")
    if not run.is_dir():
        raise RunFolderError(f"{run} is not a folder, so it cannot be a run.")
    try:
        value = loads(path.read_bytes(), str(path))
    except FileNotFoundError:
        raise RunFolderError(
            f"{run} is not a run folder: it has no {RUN_JSON}. If its creation was interrupted, create it again."
        ) from None
    except OSError as error:
        raise RunFolderError(f"{path} cannot be read: {os.strerror(error.errno or 0)}.") from error
    version = value.get("schema_version") if isinstance(value, dict) else None
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise RunFolderError(f"{path} is damaged: it names no schema version.")
    if version > SCHEMA_VERSION:
        raise RunFolderError(
            f"{run} was written by a newer version of this program (run schema {version}, this program reads up to "
            f"{SCHEMA_VERSION}): update spark-workbench to open it."
        )
    return from_json(RunInfo, value)


def first_round(info: RunInfo) -> int:
    """The number of a run's first round: 1, or the one after the round it was forked from."""
    return info.parent.round + 1 if info.parent else 1
