"""Images that were uploaded: kept under names of our own choosing, within bounds for each client and for all.

A page names an image by what the upload answered, and that name is looked up in a table. It is never made into a path,
so that it cannot lead to any other file, and a name that is wrong says nothing about what lies on this machine.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import stat
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from spark_kernel.errors import InputError
from spark_kernel.records import ImageRef
from workbench.app.limits import Limits
from workbench.app.picture_check import check_picture

NO_IMAGE = "The image is none that was uploaded to this page of late: upload it again."
"""The one answer to every image value that does not name an upload, whatever it is and whatever it points to."""
PREFIX = "upload/"
"""How the names begin that pages get."""
MEDIA_TYPES = {
    "png": "image/png", "jpg": "image/jpeg", "webp": "image/webp", "gif": "image/gif", "bmp": "image/bmp",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Upload:
    """An image that was checked. `name`: what pages call it; `size` in bytes; `client`: whose quota it counts for."""

    name: str
    path: Path
    sha256: str
    size: int
    client: str
    since: float

    @property
    def media_type(self) -> str:
        """Its MIME type, by what it was decoded as."""
        return MEDIA_TYPES[self.path.suffix[1:]]


class Uploads:
    """The uploads of this process. Safe between threads.

    Args:
        folder: an existing folder that nobody else writes to.
        limits: bounds on one image, of one client, and of all.
        check: the extension of an image's format, or InputError; by default `picture_check.check_picture`.
    """

    def __init__(
        self,
        folder: Path,
        limits: Limits,
        check: Callable[[bytes, int], str] = check_picture,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder, self._limits, self._check, self._now = folder.resolve(), limits, check, now
        self._kept: dict[str, Upload] = {}
        self._lock = threading.Lock()

    def add(self, client: str, data: bytes) -> Upload:
        """Check and keep an image. Takes as long as decoding it.

        Beyond the client's quota its own oldest images go at once; beyond that of all, those of whoever holds most.

        Raises:
            InputError: it is too large, none that can be decoded within bounds, or it cannot be written.
        """
        if len(data) > self._limits.image_bytes:
            raise InputError(f"The upload is refused: at most {self._limits.image_bytes / 2**20:.0f} MiB are taken.")
        extension = self._check(data, self._limits.image_pixels)
        token = secrets.token_hex(16)
        path = self._folder / f"{token}.{extension}"
        upload = Upload(f"{PREFIX}{path.name}", path, hashlib.sha256(data).hexdigest(), len(data), client, self._now())
        with self._lock:
            self._expire()
            self._make_room(upload)
            try:
                _write(path, data)
            except OSError:
                path.unlink(missing_ok=True)
                raise InputError("The upload is refused: this server cannot keep it now.") from None
            self._kept[upload.name] = upload
        return upload

    def find(self, name: object) -> Upload:
        """The upload of a name.

        Raises:
            InputError: `NO_IMAGE`, for whatever is no name of an upload that is kept.
        """
        with self._lock:
            self._expire()
            upload = self._kept.get(name) if isinstance(name, str) else None
        if upload is None:
            raise InputError(NO_IMAGE)
        return upload

    def image(self, value: object) -> ImageRef:
        """The image that a page's image slot holds: `{"path": NAME, ...}`.

        Raises:
            InputError: `NO_IMAGE`.
        """
        upload = self.find(value.get("path") if isinstance(value, dict) else None)
        return ImageRef(upload.sha256, str(upload.path))

    def read(self, upload: Upload) -> bytes:
        """The bytes of an upload, if its file is still the plain file that was written.

        Raises:
            InputError: `NO_IMAGE`.
        """
        try:
            handle = os.open(upload.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            raise InputError(NO_IMAGE) from None
        try:
            found = os.fstat(handle)
            if not stat.S_ISREG(found.st_mode) or found.st_size != upload.size:
                raise InputError(NO_IMAGE)
            return os.read(handle, upload.size)
        finally:
            os.close(handle)

    @property
    def folder(self) -> Path:
        """Where they lie, and nothing else."""
        return self._folder

    def _expire(self) -> None:
        oldest = self._now() - self._limits.upload_seconds
        for upload in [upload for upload in self._kept.values() if upload.since < oldest]:
            self._drop(upload)

    def _make_room(self, new: Upload) -> None:
        """Drop until the new one fits."""
        own = [upload for upload in self._kept.values() if upload.client == new.client]
        while own and (
            len(own) >= self._limits.client_uploads
            or sum(upload.size for upload in own) + new.size > self._limits.client_upload_bytes
        ):
            self._drop(own.pop(0))
        while self._kept and sum(u.size for u in self._kept.values()) + new.size > self._limits.upload_bytes:
            held: dict[str, int] = {}
            for upload in self._kept.values():
                held[upload.client] = held.get(upload.client, 0) + upload.size
            largest = max(held, key=lambda client: held[client])
            self._drop(next(upload for upload in self._kept.values() if upload.client == largest))

    def _drop(self, upload: Upload) -> None:
        del self._kept[upload.name]
        upload.path.unlink(missing_ok=True)


def _write(path: Path, data: bytes) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(data)
