"""The subcommands of the `workbench` command, one module for each family, and what they share."""

from __future__ import annotations

import logging as stdlib_logging
from pathlib import Path

from spark_kernel.errors import InputError


def require_run(path: Path) -> Path:
    """The path of an existing run.

    Raises:
        InputError: there is no run there.
    """
    if not (path / "run.json").is_file():
        raise InputError(f"There is no run at {path}: `workbench list FOLDER` shows the runs in a folder.")
    return path


def quiet_transformers() -> None:
    """No bars and no warnings of transformers between our own lines; call it before a model is loaded."""
    from huggingface_hub.utils import logging as hub_logging
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    hub_logging.set_verbosity_error()
    stdlib_logging.getLogger("bitsandbytes").setLevel(stdlib_logging.ERROR)  # peft imports it where it is installed
