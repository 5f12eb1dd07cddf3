"""What a person says of a run's samples: right or wrong, a bookmark, a note; kept in a file beside the run's folder.

A run's folder has one writer, and it is not the person who reads it. So `runs/demo` has its notes in
`runs/demo.notes.json`; those of the recorded runs, which are part of the program, are in the current folder.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from spark_kernel.errors import RunFolderError
from spark_kernel.evaluate.intervals import wilson
from workbench.recorded import recorded_runs

VERSION = 1
LONGEST = 4_000
"""Characters of a note."""


@dataclass(frozen=True, slots=True)
class SampleNote:
    """What a person says of an output: whether it is right (None: nothing said), whether to find it again, and words.

    `place`: "round" or "evaluation" and its number, as the output's id is unique within it. `verifier`: what the
    verifier had found when this was said. `time`: ISO, UTC.
    """

    id: str
    place: str
    right: bool | None = None
    bookmark: bool = False
    text: str = ""
    verifier: bool | None = None
    time: str = ""

    @property
    def is_empty(self) -> bool:
        """Whether nothing is said."""
        return self.right is None and not self.bookmark and not self.text


@dataclass(frozen=True, slots=True)
class Agreement:
    """How often a person and the verifier say the same: `same` of `n`, with Wilson's 95 % interval as shares."""

    n: int
    same: int
    low: float
    high: float

    @property
    def sentence(self) -> str:
        """For a person."""
        if not self.n:
            return "Say of some outputs whether they are right, and the verifier is measured by you."
        return (
            f"You and the verifier agree on {self.same} of {self.n} outputs "
            f"({self.same / self.n:.0%}; 95 %: {self.low:.0%} to {self.high:.0%})."
        )


def agreement(notes: Iterable[SampleNote]) -> Agreement:
    """Over the outputs of which both have said something."""
    both = [note for note in notes if note.right is not None and note.verifier is not None]
    same = sum(note.right == note.verifier for note in both)
    return Agreement(len(both), same, *wilson(same, len(both)))


def notes_path(run: Path) -> Path:
    """Where a run's notes are."""
    beside = Path.cwd() if run.resolve() in recorded_runs() else run.parent
    return beside / f"{run.name}.notes.json"


class RunNotes:
    """The notes of a run, read from disk each time, so that two notebooks see each other's.

    Args:
        run: the run's folder, which is not touched.
    """

    def __init__(self, run: Path) -> None:
        self.path = notes_path(run)

    def read(self) -> dict[str, SampleNote]:
        """All notes by `key_of`; none where there is no file.

        Raises:
            RunFolderError: the file cannot be read, or is not one of these.
        """
        try:
            found = json.loads(self.path.read_text(encoding="utf-8"))
            if found["version"] != VERSION:
                raise RunFolderError(f"{self.path} is of version {found['version']}: this program reads {VERSION}.")
            notes = [SampleNote(**note) for note in found["notes"]]
        except FileNotFoundError:
            return {}
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise RunFolderError(
                f"{self.path} cannot be read as notes ({' '.join(str(error).split())}): mend it or move it away."
            ) from None
        return {key_of(note.place, note.id): note for note in notes}

    def write(self, note: SampleNote) -> dict[str, SampleNote]:
        """Keep a note, in place of an older one of the same output; one that says nothing is dropped. All notes.

        Raises:
            RunFolderError: as `read`, or it cannot be written.
        """
        notes = self.read()
        key = key_of(note.place, note.id)
        notes.pop(key, None)
        if not note.is_empty:
            kept = {
                **asdict(note),
                "text": note.text[:LONGEST],
                "time": datetime.now(UTC).isoformat(timespec="seconds"),
            }
            notes[key] = SampleNote(**kept)
        self._store({"version": VERSION, "notes": [asdict(kept) for kept in notes.values()]})
        return notes

    def _store(self, value: Mapping[str, Any]) -> None:
        try:
            handle, name = tempfile.mkstemp(dir=self.path.parent, prefix=f".{self.path.name}-")
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(value, file, ensure_ascii=False, indent=1)
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(self.path)
        except OSError as error:
            raise RunFolderError(f"{self.path} cannot be written: {os.strerror(error.errno or 0)}.") from None


def key_of(place: str, id: str) -> str:
    """How an output is found among notes."""
    return f"{place} {id}"
