"""A run as its folder tells it, for panels that only look: read again when something on disk has changed."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from pathlib import Path

import yaml

from spark_kernel.config import RunConfig, as_first_written, validate_config
from spark_kernel.errors import InputError, RunFolderError
from spark_kernel.runs.discard import newest_discarded
from spark_kernel.runs.layout import RUN_JSON, suite_folders
from spark_kernel.runs.reader import RunReader
from spark_kernel.runs.status import RunState, RunStatus


@dataclass(frozen=True, slots=True)
class Seen:
    """A look at a run folder.

    `reader`: None where there is nothing to read yet, or it cannot be read; `problem` then says why, in a sentence.
    `config`: as the run was started. `stamp` differs between two looks exactly when rounds, evaluations, recorded
    phases or checkpoints do. `here`: whether this process is the writer. `gone_back`: whether the run was put back to
    an earlier round and what was taken away can come back.
    """

    run: Path
    reader: RunReader | None = None
    problem: str = ""
    config: RunConfig | None = None
    status: RunStatus | None = None
    stamp: tuple[object, ...] = ()
    here: bool = False
    gone_back: bool = False

    @property
    def written_elsewhere(self) -> bool:
        """Whether another process writes the run now."""
        return self.status is not None and self.status.state is RunState.RUNNING and not self.here

    @property
    def sentence(self) -> str:
        """How the run stands, for somebody who only watches it; empty where there is nothing to say."""
        if self.status is None or self.problem:
            return self.problem
        after = f"after round {self.status.last_round}"
        if self.status.state is RunState.RUNNING:
            if self.here:
                return ""
            writer = self.status.writer
            who = f"process {writer.pid} on {writer.host}" if writer is not None else "another process"
            return f"{who[0].upper()}{who[1:]} is writing this run; these panels follow it."
        return {
            RunState.KILLED: f"The process that wrote this run ended without closing it (a kill, a crash or a power "
            f"cut), {after}. Nothing that is on disk is lost: Resume goes on from there.",
            RunState.FAILED: f"The last writer ended on an error {after}; Resume goes on from disk.",
            RunState.STOPPED: f"The run is stopped {after}; Resume goes on.",
            RunState.FINISHED: f"The run is finished {after}.",
        }.get(self.status.state, "")


class RunOnDisk:
    """Looks at a run folder. One reader is kept as long as the run is the same, because it remembers reports."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: Seen | None = None
        self._identity: tuple[object, ...] = ()

    def look(self, run: Path) -> Seen:
        """The run as it is now. Never raises: what cannot be read is said in `problem`."""
        with self._lock:
            try:
                self._seen = self._look(run)
            except (RunFolderError, InputError) as error:
                self._seen, self._identity = Seen(run, problem=" ".join(str(error).split())), ()
            except OSError as error:
                reason = os.strerror(error.errno or 0)
                self._seen, self._identity = Seen(run, problem=f"{run} cannot be read: {reason}."), ()
            return self._seen

    def _look(self, run: Path) -> Seen:
        identity = (run, (run / RUN_JSON).stat().st_mtime_ns if (run / RUN_JSON).exists() else None)
        known = self._seen
        if known is None or known.reader is None or identity != self._identity:
            reader = RunReader(run)
            config: RunConfig | None = _config(reader)
        else:
            reader, config = known.reader, known.config
        status = reader.status()
        checkpoints = tuple(info.path.name for info in reader.checkpoints)
        newest = _changed(run / "rounds"), *map(_changed, suite_folders(run).values())
        phase = status.phase.index if status.phase is not None else None
        self._identity = identity
        return Seen(
            run,
            reader,
            config=config,
            status=status,
            stamp=(run, status.last_round, phase, checkpoints, newest),
            here=status.writer is not None and status.writer.pid == os.getpid(),
            gone_back=newest_discarded(run) is not None,
        )


def _config(reader: RunReader) -> RunConfig:
    try:
        return validate_config(as_first_written(yaml.safe_load(reader.config_yaml)))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise RunFolderError(f"config.yaml of {reader.path} cannot be read: {' '.join(str(error).split())}.") from None


def _changed(folder: Path) -> int:
    try:
        return folder.stat().st_mtime_ns
    except FileNotFoundError:
        return 0
