"""The configuration of a run: one schema (`RunConfig`), its presets, and how both are read."""

from spark_kernel.config.loading import (
    as_first_written,
    field_names,
    load_config,
    merge_settings,
    nearest_setting,
    preset_names,
    validate_config,
)
from spark_kernel.config.schema import Quotas, RunConfig

__all__ = [
    "Quotas",
    "RunConfig",
    "as_first_written",
    "field_names",
    "load_config",
    "merge_settings",
    "nearest_setting",
    "preset_names",
    "validate_config",
]
