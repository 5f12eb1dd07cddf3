"""Writing a file whole or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from spark_kernel.errors import RunFolderError


@contextmanager
def writing(path: Path) -> Iterator[IO[bytes]]:
    """A file that appears under its name when the block ends, in place of an older one; after an error, nothing does.

    Raises:
        RunFolderError: it cannot be written; says why.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise RunFolderError(f"{path} cannot be written: {error.strerror or error}. Choose another place.") from error
    finally:
        temporary.unlink(missing_ok=True)
