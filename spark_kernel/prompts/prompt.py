"""What a model is given: the one form of a prompt that engine, learner and encoder share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from spark_kernel.records import Message, Task


@dataclass(frozen=True, slots=True)
class Prompt:
    """Messages to continue, the files of their images, and one seed per wanted output [G].

    A seed determines its output whatever else is in the batch (up to floating-point rounding of the logits).
    """

    task_id: str
    messages: tuple[Message, ...]
    seeds: tuple[int, ...]
    images: tuple[Path, ...] = ()


def task_prompts(tasks: Sequence[Task], images_root: Path) -> list[Prompt]:
    """Tasks as prompts without seeds, to be measured or scored."""
    return [
        Prompt(task.id, task.messages, (), tuple(images_root / image.path for image in task.images)) for task in tasks
    ]
