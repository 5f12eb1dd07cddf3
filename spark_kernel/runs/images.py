"""Images of a run lie in images/, named by content; `problems.images` stores them."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from spark_kernel.errors import RunFolderError
from spark_kernel.records import ImageRef
from spark_kernel.runs.layout import IMAGES


def image_path(run: Path, image: ImageRef) -> Path:
    """The file of an image of the run; never one outside the run's image folder, whatever the record says.

    Raises:
        RunFolderError: the path leaves the image folder, or there is no such file.
    """
    relative = PurePosixPath(image.path)
    file = run / relative
    inside = len(relative.parts) == 2 and relative.parts[0] == IMAGES and relative.parts[1] not in ("", ".", "..")
    if not inside or file.is_symlink() or not file.is_file():
        raise RunFolderError(f"{run} has no image {image.path}.")
    return file
