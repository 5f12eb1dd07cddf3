"""Rows of verl and its kin (DAPO, SimpleRL): a `prompt` chat and `reward_model.ground_truth`; of slime: a `label`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from spark_kernel.problems.fields import find_field
from spark_kernel.problems.formats.layout import IMAGE_FIELDS, Layout

TRUTH = "reward_model.ground_truth"


def _fits_verl(record: Mapping[str, Any]) -> bool:
    return find_field(record, "prompt") is not None and find_field(record, TRUTH) is not None


def _fits_chat(record: Mapping[str, Any]) -> bool:
    gold = find_field(record, "label")
    return isinstance(find_field(record, "prompt"), list) and gold is not None and find_field(record, TRUTH) is None


def _verl(name: str, about: str) -> Layout:
    return Layout(
        name=name,
        about=about,
        # extra_info.index counts rows, anew in every file and for every repetition: it names no problem.
        columns={"message": ("prompt",), "gold": (TRUTH,), "images": IMAGE_FIELDS},
        fits=_fits_verl,
    )


VERL = _verl("verl", "prompt; reward_model.ground_truth")
DAPO = _verl("dapo", "prompt; reward_model.ground_truth, as verl")

SLIME = Layout(
    name="slime",
    about="prompt; label",
    columns={"message": ("prompt",), "gold": ("label",), "images": IMAGE_FIELDS},
    fits=_fits_chat,
)
