"""How much one person may ask of the app."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on every request.

    `prompt_chars`, `gold_chars`: longest question and gold answer. `image_bytes`: largest upload; `image_pixels`:
    most pixels, checked before any is decoded. `upload_bytes`: of all images that are kept; `client_upload_bytes`
    and `client_uploads`: of one client; `upload_seconds`: how long one is kept. `new_tokens`: longest output of one
    step; `reflections`: most reflections. `body_bytes`: largest request body that is no upload. `waiting`: most
    questions in the queue; whoever comes later is told to come back. `per_client`: most questions of one client
    that wait or run. `requests_per_second` with bursts of `burst`: of one client, reading included;
    `open_requests`: those that are not answered yet, streams included; `page_work`, `client_page_work`: tables and
    figures that wait to be made, of all and of one client; `logins_per_minute`: attempts of one client. `rows`:
    most samples in one table; `loaded_models`: models kept in memory.
    """

    prompt_chars: int = 8_000
    gold_chars: int = 500
    image_bytes: int = 8 * 2**20
    image_pixels: int = 16_000_000
    upload_bytes: int = 256 * 2**20
    client_upload_bytes: int = 128 * 2**20
    client_uploads: int = 100
    upload_seconds: float = 1_800.0
    new_tokens: int = 2_048
    reflections: int = 4
    body_bytes: int = 256 * 2**10
    waiting: int = 32
    per_client: int = 32
    requests_per_second: float = 50.0
    burst: int = 400
    open_requests: int = 1_000
    page_work: int = 200
    client_page_work: int = 100
    logins_per_minute: int = 10
    rows: int = 20_000
    loaded_models: int = 2


LOCAL = Limits()
"""One's own machine."""
PUBLIC = Limits(
    prompt_chars=4_000,
    image_bytes=4 * 2**20,
    image_pixels=8_000_000,
    upload_bytes=128 * 2**20,
    client_upload_bytes=16 * 2**20,
    client_uploads=8,
    new_tokens=512,
    reflections=2,
    waiting=16,
    per_client=2,
    requests_per_second=5.0,
    burst=60,
    open_requests=60,
    page_work=60,
    client_page_work=12,
    logins_per_minute=5,
)
"""A page that anybody may open."""
