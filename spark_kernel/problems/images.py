"""Images of problems: opened within bounds, named by content, and copied into the run folder.

Image files are untrusted. Only common raster formats are decoded, the pixel count is checked before any pixel is, and
whatever a decoder raises on a damaged file becomes one sentence.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import math
import os
import struct
import tempfile
import zlib
from dataclasses import replace
from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError

from spark_kernel.errors import InputError, ProblemError
from spark_kernel.records import ImageRef, Problem

MAX_PIXELS = 50_000_000
"""The most pixels (width x height) an image may have; a source may ask for fewer."""
MAX_BYTES = 64 * 2**20
"""Largest image file that is read."""
EXTENSIONS = {"PNG": "png", "JPEG": "jpg", "WEBP": "webp", "GIF": "gif", "BMP": "bmp"}
"""The formats that are read (PIL's names) and the extension each is stored under."""
MAGIC = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a", b"BM")
"""How image files of these formats begin; WebP has its mark further in."""
IMAGE_FOLDER = "images"
"""Subfolder of a run that holds its images."""
DECODE_ERRORS = (OSError, SyntaxError, ValueError, EOFError, IndexError, OverflowError, struct.error, zlib.error)
"""What PIL's decoders raise on damaged or hostile files."""


def open_image(path: Path, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The image as RGB, turned upright by its EXIF tag, transparency laid on white.

    Raises:
        InputError: the file is missing, too large, of another format, over `max_pixels`, or damaged.
    """
    return decode_image(_read(path), str(path), max_pixels)[0]


def decode_image(data: bytes, name: str, max_pixels: int = MAX_PIXELS) -> tuple[Image.Image, str]:
    """The decoded image and its format (a key of EXTENSIONS). `name` says in messages which image it is.

    Raises:
        InputError: not a readable image of a known format with at most `max_pixels` pixels.
    """
    try:
        with Image.open(io.BytesIO(data), formats=list(EXTENSIONS)) as image:
            width, height = image.size
            if width * height > max_pixels:
                raise InputError(
                    f"The image {name} has {width} x {height} pixels; at most {max_pixels} are allowed (max_pixels)."
                )
            image.load()
            return _to_rgb(image), str(image.format)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise InputError(f"The image {name} has far more than the {max_pixels} pixels allowed (max_pixels).") from None
    except UnidentifiedImageError:
        raise InputError(f"{name} is not an image in a known format: {', '.join(EXTENSIONS)}.") from None
    except DECODE_ERRORS as error:
        raise InputError(
            f"The image {name} is damaged: {' '.join(str(error).split()) or type(error).__name__}."
        ) from None


def image_file(path: Path, max_pixels: int = MAX_PIXELS) -> ImageRef:
    """A reference to an image file, decoded once to know that it is good. The hash is of the file's bytes.

    Raises:
        InputError: as `open_image`.
    """
    data = _read(path)
    decode_image(data, str(path), max_pixels)
    return ImageRef(hashlib.sha256(data).hexdigest(), str(path))


def image_bytes(data: bytes, name: str, cache: Path, max_pixels: int = MAX_PIXELS) -> ImageRef:
    """A reference to an image that came as bytes, stored in the cache folder under its hash.

    Raises:
        InputError: as `decode_image`, or the cache folder cannot be written.
    """
    if len(data) > MAX_BYTES:
        raise InputError(f"The image {name} has {len(data)} bytes; at most {MAX_BYTES} are read.")
    _, image_format = decode_image(data, name, max_pixels)
    sha256 = hashlib.sha256(data).hexdigest()
    target = cache / f"{sha256}.{EXTENSIONS[image_format]}"
    _store(data, target)
    return ImageRef(sha256, str(target))


def smaller_image(image: ImageRef, most: int, cache: Path) -> ImageRef:
    """The image with at most `most` pixels and about the same proportions; itself where it has no more.

    A smaller one is stored as PNG in the cache folder.

    Raises:
        InputError: as `open_image`, or the cache folder cannot be written.
    """
    picture = open_image(Path(image.path))
    width, height = picture.size
    if width * height <= most:
        return image
    scale = math.sqrt(most / (width * height))
    size = (max(1, math.floor(width * scale)), max(1, math.floor(height * scale)))
    if size[0] * size[1] > most:  # a strip whose short side is held at 1
        size = (min(size[0], most), 1) if width > height else (1, min(size[1], most))
    file = io.BytesIO()
    picture.resize(size, Image.Resampling.BICUBIC).save(file, "PNG")
    return image_bytes(file.getvalue(), "made smaller", cache)


def looks_like_base64(text: str) -> bool:
    """Whether a text is an image file in base64 rather than a path: its first bytes are those of a known format."""
    start = "".join(text[:64].split())[:24]
    try:
        head = base64.b64decode(start, validate=True) if len(start) == 24 else b""
    except (binascii.Error, ValueError):
        return False
    return head.startswith(MAGIC) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")


def base64_bytes(text: str) -> bytes:
    """The bytes of a bare base64 text; line breaks in it are forgiven.

    Raises:
        InputError: it is not base64.
    """
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        raise InputError("An image given as base64 is cut off or damaged.") from None


def data_uri_bytes(uri: str) -> bytes:
    """The bytes of a `data:...;base64,...` URI.

    Raises:
        InputError: it is not base64.
    """
    header, comma, payload = uri.partition(",")
    if not comma or not header.endswith(";base64"):
        raise InputError("An image given as a data URI must be data:image/...;base64,... .")
    try:
        return base64.b64decode(payload, validate=True)
    except (binascii.Error, ValueError):
        raise InputError("An image given as a data URI holds no valid base64.") from None


def adopt_images(problem: Problem, run_folder: Path) -> Problem:
    """The problem with its images copied to `run_folder`/images and its paths relative to `run_folder`.

    A copy is named by content, `images/<sha256>.<ext>`, with the extension of its real format, and appears whole or
    not at all. An image that the run already owns is not read again, so a run that is resumed does not need the
    original files.

    Raises:
        ProblemError: an image is missing, damaged, or no longer the file that was hashed.
    """
    if not problem.images:
        return problem
    return replace(problem, images=tuple(_adopt(image, problem, run_folder) for image in problem.images))


def _adopt(image: ImageRef, problem: Problem, run_folder: Path) -> ImageRef:
    for extension in EXTENSIONS.values():
        relative = f"{IMAGE_FOLDER}/{image.sha256}.{extension}"
        if (run_folder / relative).is_file():
            return ImageRef(image.sha256, relative)
    try:
        data = _read(run_folder / image.path)
        _, image_format = decode_image(data, image.path)
    except InputError as error:
        raise ProblemError(f"Problem {problem.id}: {error}") from None
    if hashlib.sha256(data).hexdigest() != image.sha256:
        raise ProblemError(
            f"Problem {problem.id}: the image {image.path} has changed since the problems were read; "
            "restore it, or start a new run."
        )
    relative = f"{IMAGE_FOLDER}/{image.sha256}.{EXTENSIONS[image_format]}"
    _store(data, run_folder / relative)
    return ImageRef(image.sha256, relative)


def _read(path: Path) -> bytes:
    try:
        # is_file() first: opening a pipe or a device would block or never end.
        if not path.is_file():
            raise InputError(f"There is no image file {path}.")
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        raise InputError(f"The image {path} cannot be read: {error}.") from None
    if len(data) > MAX_BYTES:
        raise InputError(f"The image {path} has more than {MAX_BYTES} bytes.")
    return data


def _store(data: bytes, target: Path) -> None:
    """Write whole or not at all; a file that is there already has this content, for its name is its hash."""
    if target.is_file():
        return
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=".image-")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).chmod(0o644)
            Path(temporary).replace(target)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise InputError(f"The image {target} cannot be written: {error.strerror or error}.") from None


def _to_rgb(image: Image.Image) -> Image.Image:
    upright = ImageOps.exif_transpose(image)
    if upright.mode == "RGB":
        return upright
    if "transparency" in upright.info or upright.mode in ("RGBA", "LA", "PA"):
        layer = upright.convert("RGBA")
        white = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, layer).convert("RGB")
    if upright.mode.startswith("I;16"):  # a plain conversion would clip 16 bits to white
        return upright.convert("I").point(lambda value: value / 256).convert("L").convert("RGB")
    return upright.convert("RGB")
