"""The one file of a form that was posted, read in memory: its bytes, never its name."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence

from python_multipart.exceptions import FormParserError
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser


class _InMemory(MultiPartParser):
    # The body is in memory already, within its bound: nothing of it is written to disk before it was checked.
    spool_max_size = 1 << 31


async def file_of_form(headers: Sequence[tuple[bytes, bytes]], body: bytes) -> bytes | None:
    """The bytes of the form's file; None where it is no form with exactly one file."""
    found = Headers(raw=list(headers))
    if not found.get("content-type", "").startswith("multipart/form-data"):
        return None

    async def stream() -> AsyncGenerator[bytes, None]:
        yield body

    try:
        form = await _InMemory(found, stream(), max_files=1, max_fields=4).parse()
    except (MultiPartException, FormParserError):
        return None
    files = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
    data = await files[0].read() if len(files) == 1 else None
    await form.close()
    return data
