"""What a row of `tasks` says for a person: its prompt, images, letters, and where each source stands in it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spark_kernel.errors import RunFolderError
from spark_kernel.records import ImageRef, Kind
from spark_kernel.runs.reader import RunReader


@dataclass(frozen=True, slots=True)
class ImageView:
    """An image of a prompt: its content hash, and its file; None where the run folder lacks it."""

    sha256: str
    file: Path | None


def prompt_messages(task: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """The messages of a row of `tasks` as (role, text), `<image>` where an image stands."""
    return tuple(
        (
            message["role"],
            "".join("<image>" if part["type"] == "image" else part["text"] or "" for part in message["parts"]),
        )
        for message in task["messages"]
    )


def image_views(reader: RunReader, images: Iterable[Mapping[str, str]]) -> tuple[ImageView, ...]:
    """The image files of a row; None for a file that the run does not have."""
    found = []
    for image in images:
        try:
            file: Path | None = reader.image_path(ImageRef(image["sha256"], image["path"]))
        except RunFolderError:
            file = None
        found.append(ImageView(image["sha256"], file))
    return tuple(found)


def label_letters(task: Mapping[str, Any]) -> Mapping[str, str] | None:
    """What each letter means where the prompt asks for letters, else None."""
    return dict(task["label_map"]) if task["label_map"] is not None else None


def source_position(task: Mapping[str, Any], index: int) -> str:
    """Where a source stands in a pair, "A" or "B"; empty in any other task."""
    return "AB"[index] if task["kind"] == Kind.PAIRWISE and index < 2 else ""
