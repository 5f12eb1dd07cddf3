"""The image fields of a problem record: paths, data URIs, base64, bytes, and objects that hold one of them."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from spark_kernel.errors import InputError
from spark_kernel.problems.images import (
    MAX_PIXELS,
    base64_bytes,
    data_uri_bytes,
    image_bytes,
    image_file,
    looks_like_base64,
    smaller_image,
)
from spark_kernel.records import ImageRef

HOLDERS = ("bytes", "image", "path", "url", "image_url")
"""Where an object that stands for an image may have it, in the order in which they are looked at."""


@dataclass(frozen=True, slots=True)
class ReadImage:
    """An image as the model is to see it, and the SHA-256 of the one that was published."""

    shown: ImageRef
    given: str


class ImageReader:
    """Turns an image field into a reference to a checked image file.

    Args:
        root: images given by path must lie inside this folder, after following links; None refuses paths.
        cache: folder for images given as bytes; None: a folder of this user under the temporary directory.
        max_pixels: the most pixels an image may have.
    """

    def __init__(self, root: Path | None, cache: Path | None = None, max_pixels: int = MAX_PIXELS) -> None:
        if not 1 <= max_pixels <= MAX_PIXELS:
            raise InputError(f"problems.options.max_pixels = {max_pixels} is refused: 1 to {MAX_PIXELS}.")
        self._root = root.resolve() if root else None
        if self._root and not self._root.is_dir():
            raise InputError(f"problems.options.image_root = {root} is no folder.")
        self._cache = cache or _own_cache()
        self._max_pixels = max_pixels
        self._known: dict[Path, ImageRef] = {}

    @staticmethod
    def listed(value: object) -> list[Any]:
        """The field as a list of single images; a text that opens with a bracket is a JSON list (for CSV)."""
        if value is None or value == "":
            return []
        if isinstance(value, str) and value.lstrip().startswith("["):
            try:
                value = json.loads(value)
            except (ValueError, RecursionError):
                raise ValueError("the images are no JSON list, path or data URI") from None
        return [one for one in value if one is not None] if isinstance(value, list) else [value]

    def read(self, value: object, *, shrink: bool = True) -> ReadImage:
        """One image, absolute, decoded once.

        Args:
            value: a path, a `file://` or `data:` URI, base64 text, bytes, or an object with one of them in `bytes`,
                `image`, `path` or `url`; its `max_pixels` says how many pixels the model is shown.
            shrink: whether `max_pixels` of the image itself is followed.

        Raises:
            ValueError: not an image field.
            InputError: outside the root, missing, damaged, or too large.
        """
        most = None
        while isinstance(value, Mapping):
            most = value.get("max_pixels") if most is None else most
            value = next((value[name] for name in HOLDERS if value.get(name) is not None), None)
        image = self._one(value)
        if most is None or not shrink:
            return ReadImage(image, image.sha256)
        if isinstance(most, bool) or not isinstance(most, int) or most < 1:
            raise ValueError(f"an image's max_pixels must be a whole number from 1, not {most!r}")
        return ReadImage(smaller_image(image, most, self._cache), image.sha256)

    def _one(self, value: object) -> ImageRef:
        if isinstance(value, bytes):
            return image_bytes(value, "in the record", self._cache, self._max_pixels)
        if not isinstance(value, str) or not value.strip():
            raise ValueError("an image must be a path, a data URI, base64 or bytes")
        if value.startswith("data:"):
            return image_bytes(data_uri_bytes(value), "in the record", self._cache, self._max_pixels)
        if looks_like_base64(value):
            return image_bytes(base64_bytes(value), "in the record", self._cache, self._max_pixels)
        return self._file(value)

    def _file(self, name: str) -> ImageRef:
        scheme = urlsplit(name).scheme if "://" in name else ""
        if scheme == "file":
            name = unquote(urlsplit(name).path)
        elif scheme:
            raise ValueError(f"the image {name[:200]} is not downloaded: save it and give its path")
        if self._root is None:
            raise ValueError(f"the image {name} is given by path: set problems.options.image_root to its folder")
        try:
            path = (self._root / name).resolve()
        except (OSError, ValueError, RuntimeError) as error:
            raise ValueError(f"the image path {name!r} is no path: {error}") from None
        if not path.is_relative_to(self._root):
            raise ValueError(
                f"the image {name} lies outside {self._root}: set problems.options.image_root to a folder that holds it"
            )
        if path not in self._known:
            self._known[path] = image_file(path, self._max_pixels)
        return self._known[path]


def _own_cache() -> Path:
    """This user's cache under the temporary directory, which may be shared with strangers."""
    folder = Path(tempfile.gettempdir()) / f"spark-images-{os.getuid()}"
    if folder.exists() and folder.stat().st_uid != os.getuid():
        raise InputError(f"{folder} belongs to another user: set problems.options.image_cache to a folder of your own.")
    return folder
