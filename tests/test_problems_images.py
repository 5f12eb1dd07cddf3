from __future__ import annotations

import contextlib
import hashlib
import io
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from spark_kernel.errors import InputError, ProblemError
from spark_kernel.problems.images import (
    EXTENSIONS,
    MAX_PIXELS,
    adopt_images,
    data_uri_bytes,
    decode_image,
    image_bytes,
    image_file,
    open_image,
)
from spark_kernel.records import ImageRef, Problem


def encoded(image_format: str, image: Image.Image | None = None, **options: object) -> bytes:
    file = io.BytesIO()
    (image or Image.new("RGB", (7, 5), (200, 10, 10))).save(file, image_format, **options)
    return file.getvalue()


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes that declares this size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b"")
    )


def with_images(*references: ImageRef) -> Problem:
    return Problem("p1", "Which?", "A", "choice", tuple(references))


@pytest.mark.parametrize("image_format", list(EXTENSIONS))
def test_every_known_format_opens_as_rgb_and_is_stored_under_its_own_extension(
    tmp_path: Path, image_format: str
) -> None:
    data = encoded(image_format)
    (tmp_path / "wrongly-named.txt").write_bytes(data)
    image = open_image(tmp_path / "wrongly-named.txt")
    assert (image.mode, image.size) == ("RGB", (7, 5))
    reference = image_file(tmp_path / "wrongly-named.txt")
    sha256 = hashlib.sha256(data).hexdigest()
    assert reference == ImageRef(sha256, str(tmp_path / "wrongly-named.txt"))
    (adopted,) = adopt_images(with_images(reference), tmp_path / "run").images
    assert adopted == ImageRef(sha256, f"images/{sha256}.{EXTENSIONS[image_format]}")
    assert (tmp_path / "run" / adopted.path).read_bytes() == data


@pytest.mark.parametrize(("width", "height"), [(8_000, 8_000), (60_000, 60_000), (1, MAX_PIXELS + 1)])
def test_a_decompression_bomb_is_refused_before_it_is_decoded(width: int, height: int) -> None:
    with pytest.raises(InputError, match=r"the 50000000 pixels allowed|at most 50000000 are allowed"):
        decode_image(bomb(width, height), "bomb.png")


@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "WEBP", "GIF"])
def test_a_truncated_image_is_refused(tmp_path: Path, image_format: str) -> None:
    noise = Image.frombytes("RGB", (64, 64), bytes(os.urandom(64 * 64 * 3)))
    data = encoded(image_format, noise)
    (tmp_path / "half").write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match=r"half is (damaged|not an image)|The image .*half is damaged"):
        open_image(tmp_path / "half")


@pytest.mark.parametrize("data", [b"", b"GIF89a", b"<svg/>", b"%!PS-Adobe-3.0 EPSF-3.0\n", encoded("TIFF")])
def test_other_files_are_no_images(data: bytes) -> None:
    with pytest.raises(InputError, match=r"is not an image in a known format|is damaged"):
        decode_image(data, "it")


@given(
    st.sampled_from(["PNG", "JPEG", "GIF", "BMP", "WEBP"]), st.lists(st.tuples(st.integers(0), st.binary(max_size=4)))
)
@settings(max_examples=60)
def test_a_corrupted_image_opens_or_is_refused_in_a_sentence(
    image_format: str, changes: list[tuple[int, bytes]]
) -> None:
    data = bytearray(encoded(image_format))
    for position, replacement in changes:
        position %= len(data)
        data[position : position + len(replacement)] = replacement
    # Any other exception than the one sentence fails the test.
    with contextlib.suppress(InputError):
        assert decode_image(bytes(data), "x", 10_000)[0].mode == "RGB"


def test_transparency_lies_on_white() -> None:
    for mode, clear in (("RGBA", (0, 0, 0, 0)), ("LA", (0, 0))):
        assert decode_image(encoded("PNG", Image.new(mode, (2, 2), clear)), "x")[0].getpixel((0, 0)) == (255, 255, 255)
    palette = Image.new("P", (2, 2), 0)
    assert decode_image(encoded("PNG", palette, transparency=0), "x")[0].getpixel((0, 0)) == (255, 255, 255)


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    grey = Image.new("I;16", (2, 2), 128 * 256)
    assert decode_image(encoded("PNG", grey), "x")[0].getpixel((0, 0)) == (128, 128, 128)


def test_a_photograph_is_turned_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    assert decode_image(encoded("JPEG", exif=exif), "x")[0].size == (5, 7)


def test_bytes_are_stored_once_under_their_hash(tmp_path: Path) -> None:
    data = encoded("PNG")
    first, second = (image_bytes(data, "x", tmp_path / "cache") for _ in range(2))
    assert first == second
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [f"{hashlib.sha256(data).hexdigest()}.png"]


@pytest.mark.parametrize("uri", ["data:image/png,abc", "data:image/png;base64", "data:image/png;base64,***"])
def test_a_bad_data_uri_is_refused(uri: str) -> None:
    with pytest.raises(InputError, match="data URI"):
        data_uri_bytes(uri)


@pytest.fixture
def adopted(tmp_path: Path) -> tuple[Path, Problem]:
    (tmp_path / "a.png").write_bytes(encoded("PNG"))
    return tmp_path / "run", adopt_images(with_images(image_file(tmp_path / "a.png")), tmp_path / "run")


def test_a_run_needs_the_original_image_no_more(adopted: tuple[Path, Problem], tmp_path: Path) -> None:
    run, problem = adopted
    original = with_images(ImageRef(problem.images[0].sha256, str(tmp_path / "a.png")))
    (tmp_path / "a.png").unlink()
    assert adopt_images(original, run) == problem
    assert adopt_images(problem, run) == problem
    assert [path.name for path in (run / "images").iterdir()] == [Path(problem.images[0].path).name]


def damage(path: Path) -> None:
    path.write_bytes(b"no image")


def repaint(path: Path) -> None:
    path.write_bytes(encoded("PNG", Image.new("RGB", (7, 5), "blue")))


@pytest.mark.parametrize(
    ("change", "message"),
    [(Path.unlink, "There is no image file"), (damage, "is not an image"), (repaint, "has changed since")],
)
def test_an_image_that_changed_since_it_was_read_is_refused(
    tmp_path: Path, change: Callable[[Path], None], message: str
) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(encoded("PNG"))
    problem = with_images(image_file(path))
    change(path)
    with pytest.raises(ProblemError, match=f"Problem p1: .*{message}"):
        adopt_images(problem, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_copy_that_fails_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.png").write_bytes(encoded("PNG"))
    problem = with_images(image_file(tmp_path / "a.png"))

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match="cannot be written: No space left on device"):
        adopt_images(problem, tmp_path / "run")
    assert list((tmp_path / "run" / "images").iterdir()) == []


def test_a_pipe_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="There is no image file"):
        open_image(tmp_path / "pipe")


def test_a_problem_without_images_is_left_alone(tmp_path: Path) -> None:
    problem = with_images()
    assert adopt_images(problem, tmp_path / "run") is problem
    assert not (tmp_path / "run").exists()
