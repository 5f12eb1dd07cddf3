"""Rows of a data set on the Hugging Face hub, through the `datasets` library."""

from __future__ import annotations

import os

from spark_kernel.errors import InputError
from spark_kernel.problems.rows import Rows
from spark_kernel.problems.tables import BATCH_ROWS, arrow_rows


def read_hub(name: str, *, subset: str | None, split: str, revision: str | None) -> Rows:
    """The rows of one split; images stay encoded. HF_HUB_OFFLINE=1 reads only what is cached.

    Raises:
        InputError: no network and not cached, no such data set, subset or split.
    """
    # Slow to import, and needed for hub data only.
    import datasets
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        data = datasets.load_dataset(name, subset, split=split, revision=revision)
    except (OSError, HfHubHTTPError, HFValidationError, ValueError, RuntimeError) as error:
        raise InputError(_explain(name, subset, split, error)) from None
    if not isinstance(data, datasets.Dataset):
        raise InputError(f'The split "{split}" of {name} names several splits: name one.')
    number = 0
    for table in data.with_format("arrow").iter(batch_size=BATCH_ROWS):
        yield from arrow_rows(table, f"hub:{name}/{split}", number)
        number += table.num_rows


def _explain(name: str, subset: str | None, split: str, error: Exception) -> str:
    reason = " ".join(str(error).split())[:300].rstrip(". ")
    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
    cause = "HF_HUB_OFFLINE is set and it is not in the local cache" if offline else f"{type(error).__name__}: {reason}"
    part = f" (subset {subset}, split {split})" if subset else f" (split {split})"
    return (
        f"The hub data set {name}{part} could not be read: {cause}; check name and network, or download its files "
        "elsewhere and name a local JSONL, JSON, CSV or Parquet file as problems.options.path."
    )
