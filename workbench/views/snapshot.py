"""What a run is and how it stands, in one immutable record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import yaml

from spark_kernel.config import RunConfig, as_first_written, validate_config
from spark_kernel.errors import RunFolderError
from spark_kernel.runs.bundles import PhaseInfo
from spark_kernel.runs.reader import RunReader
from spark_kernel.runs.status import RunState, RunStatus
from spark_kernel.training.state import Stage, schedule
from workbench.settings.differences import nearest_preset


@dataclass(frozen=True, slots=True)
class CheckpointRow:
    """A checkpoint: its folder's name, its round, and whether it stands in the middle of that round."""

    name: str
    round: int
    in_progress: bool


@dataclass(frozen=True, slots=True)
class Difference:
    """A setting that differs from the preset, both values as text: "preset" is the preset's, "run" the run's."""

    setting: str
    preset: str
    run: str


@dataclass(frozen=True, slots=True)
class RunSnapshot:
    """How a run stands.

    `state`: a `RunState` value: running, finished, stopped, failed or killed. `state_line`: the same as a sentence,
    with who writes it or how it ended. `created`: UTC, ISO 8601. `rounds_done`, `rounds_configured`: counts, where a
    fork's rounds count from its ancestor's first. `newest_round`: the last finished round, None before the first.
    `evaluations`: rounds after which one stands. `parent`: "NAME after round K" of a fork, else empty. `due`: the
    phase that comes next, as "roll_out (policy period)", with `due_round`; empty for a finished run. `phases`: recorded
    phases of the round in flight, as (period, phase). `environment`: names and values for a table, versions and device
    first. `preset`: the preset that differs least, and `differences` from it. `config_yaml`: the whole configuration.
    `problem`: a sentence where the configuration cannot be read by this version, else empty.
    """

    path: str
    name: str
    state: str
    state_line: str
    created: str
    rounds_done: int
    rounds_configured: int | None
    newest_round: int | None
    evaluations: tuple[int, ...]
    checkpoints: tuple[CheckpointRow, ...]
    parent: str
    due: str
    due_round: int | None
    phases: tuple[tuple[str, str], ...]
    environment: tuple[tuple[str, str], ...]
    preset: str
    differences: tuple[Difference, ...]
    config_yaml: str
    problem: str


def run_snapshot(reader: RunReader) -> RunSnapshot:
    """How the run stands now.

    Raises:
        RunFolderError: a file that every run has is missing or damaged.
    """
    status = reader.status()
    rounds = reader.rounds
    text = reader.config_yaml
    preset, problem = "", ""
    differences: tuple[Difference, ...] = ()
    config: RunConfig | None = None
    try:
        preset, differences = _nearest(text)
        config = run_config(text)
    except RunFolderError as error:
        problem = str(error)
    due = _due(status, config)
    parent = reader.info.parent
    return RunSnapshot(
        path=str(reader.path),
        name=reader.info.name,
        state=str(status.state),
        state_line=_state_line(status),
        created=reader.info.created,
        rounds_done=status.last_round,
        rounds_configured=None if config is None else config.rounds,
        newest_round=rounds[-1] if rounds else None,
        evaluations=tuple(reader.evaluations),
        checkpoints=tuple(CheckpointRow(info.name, info.round, info.in_progress) for info in reader.checkpoints),
        parent=f"{parent.run} after round {parent.round}" if parent else "",
        due=due,
        due_round=status.last_round + 1 if due else None,
        phases=tuple((str(info.period), info.phase) for info in reader.phases()),
        environment=environment_rows(reader.environment),
        preset=preset,
        differences=differences,
        config_yaml=text,
        problem=problem,
    )


@lru_cache(maxsize=64)
def run_config(config_yaml: str) -> RunConfig:
    """The configuration of a run folder from its text (`RunReader.config_yaml`); unlike `lifecycle.read_config`
    this needs no torch.

    Raises:
        RunFolderError: it is damaged, or from a version with other settings; says which.
    """
    from spark_kernel.errors import InputError

    try:
        return validate_config(as_first_written(yaml.safe_load(config_yaml)))
    except (yaml.YAMLError, InputError) as error:
        raise RunFolderError(f"config.yaml cannot be read: {' '.join(str(error).split())}") from None


def environment_rows(environment: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """environment.json as names and values: versions, then processor, memory, devices, threads and commit."""
    rows: list[tuple[str, str]] = []
    for name in ("python",):
        if environment.get(name):
            rows.append((name, str(environment[name])))
    packages = environment.get("packages")
    if isinstance(packages, Mapping):
        rows += [(str(name), str(version)) for name, version in packages.items() if version]
    cpu, torch = environment.get("cpu"), environment.get("torch")
    if isinstance(cpu, Mapping):
        rows.append(("processor", f"{cpu.get('model')}, {cpu.get('usable_cores')} of {cpu.get('cores')} cores"))
    memory = environment.get("memory_bytes")
    if isinstance(memory, int):
        rows.append(("memory", f"{memory / 2**30:.1f} GiB"))
    if isinstance(torch, Mapping):
        devices = torch.get("devices")
        names = [str(item.get("name", item)) if isinstance(item, Mapping) else str(item) for item in devices or ()]
        rows.append(("devices", ", ".join(names) or "CPU only"))
        rows.append(("torch threads", str(torch.get("threads"))))
    git = environment.get("git")
    if isinstance(git, Mapping) and git.get("commit"):
        rows.append(("commit", f"{git['commit']}{' with changes' if git.get('changed') else ''}"))
    return tuple(rows)


@lru_cache(maxsize=64)
def _nearest(config_yaml: str) -> tuple[str, tuple[Difference, ...]]:
    preset, differences = nearest_preset(run_config(config_yaml))
    return preset, tuple(Difference(name, _show(theirs), _show(own)) for name, (own, theirs) in differences.items())


def _show(value: Any) -> str:
    if value is None:
        return "none"
    return str(value.model_dump() if hasattr(value, "model_dump") else value)


def _state_line(status: RunStatus) -> str:
    event = status.last_event or {}
    time = str(event.get("time", ""))[:19].replace("T", " ")
    when = f", last event {time} UTC" if time else ""
    if status.state is RunState.RUNNING:
        writer = status.writer
        return f"running: written by process {writer.pid} on {writer.host}" if writer else "running"
    if status.state is RunState.FAILED:
        return f"failed: {event.get('detail') or 'the events say why'}{when}"
    if status.state is RunState.KILLED:
        return f"killed: its process ended without closing the run{when}"
    return f"{status.state}{when}"


def _due(status: RunStatus, config: RunConfig | None) -> str:
    if config is None:
        return ""
    if status.phase is None and status.last_round >= config.rounds:
        return ""
    return str(_next_stage(status.phase, schedule(config.period, status.last_round + 1)))


def _next_stage(phase: PhaseInfo | None, stages: tuple[Stage, ...]) -> Stage:
    """The stage after the newest recorded one; nothing is recorded of the report, so it follows the last phase."""
    return stages[0] if phase is None else stages[min(phase.index + 1, len(stages) - 1)]
