"""Whether bytes are an image that may be shown to a model, decided in a process of its own that can be ended.

A decoder's time has no bound that could be seen beforehand: a JPEG of a few megabytes may ask for hundreds of thousands
of passes over all its pixels. So a child process decodes it, under a deadline and within a bound of memory; this module
is both ends of that.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from spark_kernel.errors import InputError

CHECK_SECONDS = 10.0
"""Longest that starting the child and decoding one image may take."""
CHILD_BYTES = 2 << 30
"""Address space of the child; an image that needs more is refused."""
SIGNATURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF", b"GIF87a", b"GIF89a", b"BM")
"""How the formats begin that are read: whatever begins otherwise costs no process."""
NO_PICTURE = "The upload is refused: it must be one whole PNG, JPEG, WebP, GIF or BMP image."
TOO_SLOW = "The upload is refused: decoding the image takes too long or too much memory."
TOO_MANY_PIXELS = "The upload is refused: at most {pixels} pixels are taken."
SCAN = b"\xff\xda"
MOST_SCANS = 64
"""Passes of a progressive JPEG: encoders write about ten, each costs as much as all pixels and may take a few bytes."""
GOOD, BAD, LARGE = 0, 3, 4
"""What the child ends with; anything else is a child that was ended or ran out of memory."""


def check_picture(data: bytes, pixels: int, seconds: float = CHECK_SECONDS) -> str:
    """The extension that belongs to an image's format. Takes as long as decoding it: not for an event loop.

    Args:
        pixels: most pixels; they are counted before any is decoded.

    Raises:
        InputError: no image of a known format, too many pixels, or too costly to decode.
    """
    if not data.startswith(SIGNATURES):
        raise InputError(NO_PICTURE)
    if data.startswith(SIGNATURES[1]) and data.count(SCAN) > MOST_SCANS:
        raise InputError(TOO_SLOW)
    paths = os.pathsep.join(path or str(Path.cwd()) for path in sys.path)
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", __name__, str(pixels)],
            input=data, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=seconds, check=False,
            env=os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
    except subprocess.TimeoutExpired:  # `run` has ended the child
        raise InputError(TOO_SLOW) from None
    if done.returncode == GOOD:
        return done.stdout.decode("ascii")
    if done.returncode == LARGE:
        raise InputError(TOO_MANY_PIXELS.format(pixels=f"{pixels:,}"))
    raise InputError(NO_PICTURE if done.returncode == BAD else TOO_SLOW)


def _child(pixels: int) -> int:
    """Decode what comes in; the exit code says how it went, standard output the extension."""
    import resource

    from spark_kernel.problems.images import EXTENSIONS, decode_image

    resource.setrlimit(resource.RLIMIT_AS, (CHILD_BYTES, CHILD_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    data = sys.stdin.buffer.read()
    try:
        _, image_format = decode_image(data, "that was uploaded", pixels)
    except InputError as error:
        return LARGE if "pixels" in str(error) else BAD
    sys.stdout.write(EXTENSIONS[image_format])
    return GOOD


if __name__ == "__main__":
    sys.exit(_child(int(sys.argv[1])))
