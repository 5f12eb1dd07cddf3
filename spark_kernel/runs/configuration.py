"""The configuration that a run folder holds."""

from __future__ import annotations

from pathlib import Path

import yaml

from spark_kernel.config import RunConfig, as_first_written, validate_config
from spark_kernel.errors import RunFolderError
from spark_kernel.runs.layout import CONFIG


def read_config(run: Path) -> RunConfig:
    """The configuration of a run.

    Raises:
        RunFolderError: config.yaml is missing or damaged.
    """
    try:
        return validate_config(as_first_written(yaml.safe_load((run / CONFIG).read_text(encoding="utf-8"))))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise RunFolderError(f"{run / CONFIG} cannot be read: {' '.join(str(error).split())}.") from None
