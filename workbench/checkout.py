"""The source checkout that this package lies in, if it lies in one: an installed package comes without the rest."""

from __future__ import annotations

from pathlib import Path

PLACE = Path(__file__).resolve().parents[1]
"""The folder that the package lies in: a checkout, or an environment's site-packages."""


def part_of_checkout(name: str) -> Path | None:
    """A folder of the source checkout, such as "notebooks"; None for an installed package."""
    folder = PLACE / name
    return folder if (PLACE / "pyproject.toml").is_file() and folder.is_dir() else None
