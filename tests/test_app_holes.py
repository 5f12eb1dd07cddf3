"""What was open once, rule by rule, without a server; tests/test_app_attacks.py has it at a started app."""

from __future__ import annotations

import asyncio
import html
import json
import os
import random
import re
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from spark_kernel.errors import InputError
from tests.helpers.app_guard import JOINS, client, echo, get, guard, red_png, run_async
from workbench.app.access import decide_access
from workbench.app.forwarded import client_of
from workbench.app.guard import API, Guard
from workbench.app.limits import LOCAL, PUBLIC, Limits
from workbench.app.payload import Door
from workbench.app.uploads import NO_IMAGE, Upload, Uploads
from workbench.app.workroom import BUSY, Remembered, Workroom
from workbench.model_text import FORMULAS, markdown_html
from workbench.text_diff import MOST_UNITS, diff_html


def kept(folder: Path, limits: Limits = PUBLIC, clock: Callable[[], float] = time.monotonic) -> Uploads:
    """Uploads that take anything for a PNG."""
    return Uploads(folder, limits, check=lambda data, pixels: "png", now=clock)


class TestUploads:
    def test_a_client_beyond_its_share_loses_its_own_oldest_at_once_and_nobody_elses(self, tmp_path: Path) -> None:
        uploads = kept(tmp_path, replace(PUBLIC, client_uploads=2, client_upload_bytes=50))
        others = uploads.add("you", b"x" * 40)
        first, second, third = (uploads.add("me", bytes([n]) * 20) for n in range(3))
        assert {path.name for path in tmp_path.iterdir()} == {u.path.name for u in (others, second, third)}
        with pytest.raises(InputError, match="upload it again"):
            uploads.find(first.name)
        large = uploads.add("me", b"y" * 45)
        assert {path.name for path in tmp_path.iterdir()} == {others.path.name, large.path.name}

    def test_beyond_the_share_of_all_whoever_holds_most_makes_room(self, tmp_path: Path) -> None:
        uploads = kept(tmp_path, replace(PUBLIC, upload_bytes=100))
        mine = uploads.add("me", b"x" * 30)
        greedy = [uploads.add("you", b"x" * 30) for _ in range(2)]
        uploads.add("she", b"x" * 40)
        assert uploads.find(mine.name) == mine
        with pytest.raises(InputError):
            uploads.find(greedy[0].name)
        assert sum(path.stat().st_size for path in tmp_path.iterdir()) == 100

    def test_an_upload_goes_when_its_time_is_over(self, tmp_path: Path) -> None:
        now = [0.0]
        uploads = kept(tmp_path, PUBLIC, lambda: now[0])
        upload = uploads.add("me", b"x")
        now[0] = PUBLIC.upload_seconds + 1
        with pytest.raises(InputError, match="upload it again"):
            uploads.find(upload.name)
        assert list(tmp_path.iterdir()) == []

    def test_what_takes_the_place_of_an_upload_is_neither_followed_nor_waited_for(self, tmp_path: Path) -> None:
        (tmp_path / "secret").write_bytes(red_png())
        folder = tmp_path / "uploads"
        folder.mkdir()
        uploads = kept(folder)
        replacements: tuple[Callable[[Path], Any], ...] = (
            lambda path: path.symlink_to(tmp_path / "secret"), os.mkfifo, Path.mkdir,
            lambda path: path.write_bytes(b"other"),
        )  # fmt: skip
        for put in replacements:
            upload = uploads.add("me", red_png())
            assert uploads.read(upload) == red_png()
            upload.path.unlink()
            put(upload.path)
            with pytest.raises(InputError) as refused:
                uploads.read(upload)
            assert str(refused.value) == NO_IMAGE

    def test_a_disk_that_is_full_leaves_nothing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(path: Path, data: bytes) -> None:
            path.write_bytes(data[:1])
            raise OSError(28, "No space left on device", str(path))

        monkeypatch.setattr("workbench.app.uploads._write", full)
        with pytest.raises(InputError, match="cannot keep it") as refused:
            kept(tmp_path).add("me", b"xx")
        assert str(tmp_path) not in str(refused.value)
        assert list(tmp_path.iterdir()) == []

    def test_only_names_that_were_given_are_served_and_with_their_own_type(self, tmp_path: Path) -> None:
        uploads = kept(tmp_path)
        upload: Upload = uploads.add("me", red_png())
        (tmp_path / "beside.png").write_bytes(red_png())
        app = Guard(echo, decide_access(), LOCAL, uploads, Door({}))

        async def fetch(name: str) -> httpx.Response:
            transport = httpx.ASGITransport(app=app)
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http:
                return await http.get(f"{API}/file={name}")

        found = run_async(fetch(upload.name))
        assert (found.content, found.headers["content-type"]) == (red_png(), "image/png")
        for name in ("upload/beside.png", f"upload/{upload.path}", str(upload.path), upload.path.name, "upload/"):
            assert run_async(fetch(name)).status_code == 404


class TestGuardOfWhatIsPosted:
    @pytest.mark.parametrize("path", ["queue/join", "run/predict", "upload", "cancel", "reset"])
    def test_everything_that_is_posted_counts_towards_the_pace(self, path: str) -> None:
        async def many() -> list[int]:
            async with client(limits=replace(LOCAL, requests_per_second=0.01, burst=3)) as http:
                return [(await http.post(f"{API}/{path}", json=JOINS)).status_code for _ in range(5)]

        assert [status == 429 for status in run_async(many())] == [False, False, False, True, True]

    def test_a_question_that_was_taken_has_paid_for_the_reading_of_its_answer(self) -> None:
        stream = f"{API}/queue/data?session_hash=s1"

        async def ask_then_read() -> list[int]:
            async with client(limits=replace(LOCAL, requests_per_second=0.01, burst=1)) as http:
                joined = await http.post(f"{API}/queue/join", json=JOINS)
                return [joined.status_code, *[(await http.get(stream)).status_code for _ in range(2)]]

        assert run_async(ask_then_read()) == [200, 200, 429]  # one reading for one question

    def test_what_is_not_answered_yet_is_bounded(self) -> None:
        held = asyncio.Event()

        async def hold(scope: Any, receive: Any, send: Any) -> None:
            await held.wait()
            await echo(scope, receive, send)

        async def many() -> list[int]:
            app = guard(limits=replace(LOCAL, open_requests=2))
            app._app = hold
            transport = httpx.ASGITransport(app=app)
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http:
                waiting = [asyncio.create_task(http.get("/theme.css")) for _ in range(2)]
                await asyncio.sleep(0.05)
                third = (await http.get("/theme.css")).status_code
                held.set()
                first = [(await task).status_code for task in waiting]
                return [*first, third, (await http.get("/theme.css")).status_code]

        assert run_async(many()) == [200, 200, 429, 200]

    def test_the_body_that_arrives_is_the_one_that_was_checked(self) -> None:
        async def post(sent: Any) -> httpx.Response:
            async with client() as http:
                return await http.post(f"{API}/queue/join", content=sent)

        seen = run_async(post(b'{"data": [1], "data": [], "fn_index": 0, "session_hash": "s1"}'))
        written = {**JOINS, "trigger_id": None, "event_data": None}
        assert seen.text.startswith(f"{len(json.dumps(written))} ")

    def test_the_guard_knows_who_joined(self) -> None:
        async def read() -> list[int]:
            async with client() as http:
                before = await http.get(f"{API}/queue/data?session_hash=s1")
                await http.post(f"{API}/queue/join", json=JOINS)
                return [before.status_code, (await http.get(f"{API}/queue/data?session_hash=s1")).status_code]

        assert run_async(read()) == [404, 200]

    @pytest.mark.parametrize("path", ["/config%0a", "/%0a", "/favicon.ico%0a", "/gradio_api/info%0A", "/config%0d"])
    def test_a_line_break_in_a_path_does_not_end_it(self, path: str) -> None:
        assert run_async(get(path)).status_code == 404


class TestWhereItComesFrom:
    def test_lines_of_x_forwarded_for_are_one_list_counted_from_the_right(self) -> None:
        def scope(*lines: bytes) -> dict[str, Any]:
            return {"headers": [(b"x-forwarded-for", line) for line in lines], "client": ("10.0.0.1", 1)}

        assert client_of(scope(b"6.6.6.6", b"4.4.4.4"), 1) == "4.4.4.4"
        assert client_of(scope(b"6.6.6.6", b"5.5.5.5", b"4.4.4.4"), 2) == "5.5.5.5"
        assert client_of(scope(b"6.6.6.6, 5.5.5.5", b"4.4.4.4"), 2) == "5.5.5.5"
        assert client_of(scope(b"6.6.6.6"), 2) == "10.0.0.1"

    def test_x_forwarded_host_counts_for_nothing_unless_told_so(self) -> None:
        async def root(*, told: bool, **headers: str) -> tuple[int, list[tuple[bytes, bytes]]]:
            seen: list[tuple[bytes, bytes]] = []

            async def note(scope: Any, receive: Any, send: Any) -> None:
                seen.extend(scope["headers"])
                await echo(scope, receive, send)

            access = decide_access("0.0.0.0", public=True, hosts=["demo.example"], proxies=1, forwarded_host=told)
            app = guard(access)
            app._app = note
            transport = httpx.ASGITransport(app=app)
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:7860") as http:
                answer = await http.get("/", headers={name.replace("_", "-"): v for name, v in headers.items()})
            return answer.status_code, seen

        forged = {"x_forwarded_host": "evil.example", "x_gradio_server": "http://evil.example", "x_real_ip": "1.2.3.4"}
        status, seen = run_async(root(told=False, **forged, x_forwarded_proto="https"))
        assert status == 200
        assert b"evil.example" not in b"".join(value for _, value in seen)
        assert (b"x-forwarded-proto", b"https") in seen
        assert run_async(root(told=True, x_forwarded_host="evil.example"))[0] == 421
        assert run_async(root(told=True))[0] == 421
        status, seen = run_async(root(told=True, x_forwarded_host="evil.example, demo.example"))
        assert status == 200
        assert (b"host", b"demo.example") in seen
        with pytest.raises(InputError, match="--proxies"):
            decide_access(forwarded_host=True)


class TestBesideTheLoop:
    def test_what_waits_is_bounded_for_a_client_and_for_all(self) -> None:
        async def go() -> list[Any]:
            room, held = Workroom("test", 1, 3, 2), threading.Event()
            mine = [asyncio.create_task(room.run("me", held.wait)) for _ in range(2)]
            await asyncio.sleep(0)
            third = await asyncio.gather(room.run("me", held.wait), return_exceptions=True)
            yours = asyncio.create_task(room.run("you", held.wait))
            await asyncio.sleep(0)
            fourth = await asyncio.gather(room.run("she", held.wait), return_exceptions=True)
            held.set()
            done = await asyncio.gather(*mine, yours)
            again = await room.run("me", lambda: "free")
            room.close()
            return [str(third[0]), str(fourth[0]), done, again]

        assert run_async(go()) == [BUSY, BUSY, [True, True, True], "free"]

    def test_what_two_ask_for_at_once_is_made_once_and_an_error_is_not_remembered(self) -> None:
        known, calls, held = Remembered(2), [], threading.Event()

        def make() -> str:
            calls.append(1)
            held.wait(10)
            return "made"

        found: list[str] = []
        threads = [threading.Thread(target=lambda: found.append(known.get("k", make))) for _ in range(4)]
        for thread in threads:
            thread.start()
        held.set()
        for thread in threads:
            thread.join()
        assert (found, len(calls)) == (["made"] * 4, 1)
        with pytest.raises(ZeroDivisionError):
            known.get("bad", lambda: 1 // 0)
        assert known.get("bad", lambda: 2) == 2
        assert known.get("third", lambda: 3) == 3
        assert known.get("k", lambda: "anew") == "anew"  # the oldest went


class TestDifferences:
    @staticmethod
    def sides(marked: str) -> tuple[str, str]:
        """Both texts, read back from the difference."""
        old = re.sub(r"</?del>", "", re.sub(r"<ins>.*?</ins>", "", marked, flags=re.DOTALL))
        new = re.sub(r"</?ins>", "", re.sub(r"<del>.*?</del>", "", marked, flags=re.DOTALL))
        return html.unescape(old), html.unescape(new)

    def test_both_texts_can_be_read_back_and_no_shorter_way_is_missed(self) -> None:
        draws = random.Random(5)
        for _ in range(400):
            old, new = ("".join(draws.choice("ab <\n") for _ in range(draws.randrange(25))) for _ in range(2))
            assert self.sides(diff_html(old, new)) == (old, new)
        assert diff_html("one two three", "one 2 three four") == (
            "one <del>two</del><ins>2</ins> three<ins> four</ins>"
        )

    def test_long_and_very_different_texts_are_compared_by_lines_or_as_a_whole(self) -> None:
        lines = "".join(f"line {n} of the text\n" for n in range(MOST_UNITS // 4))
        marked = diff_html(lines, lines.replace("line 7 ", "row 7 "))
        assert "<del>line 7 of the text\n</del><ins>row 7 of the text\n</ins>" in marked
        for old, new in (("a b " * 5000, "b a " * 5000), ("x " * 1400, "x y " * 700), ("a\n" * 9000, "b\n" * 9000)):
            assert self.sides(diff_html(old, new)) == (old, new)


class TestFormulas:
    @pytest.mark.parametrize(
        "source",
        [
            "{" * 30 + "a" + "}" * 30, r"\frac" * 25 + "1" * 26, r"\frac1" * 25 + "2", r"\left(" * 25,
            r"\mathbf" * 25 + "x",
            r"\begin{matrix}" * 25, "a&" * 400, r"a\\" * 400, r"\sqrt{" * 25 + "}" * 25, r"\newline " * 400 + "x",
        ],
    )  # fmt: skip
    def test_one_that_would_take_a_typesetter_seconds_is_shown_as_it_was_written(self, source: str) -> None:
        assert 'class="math' not in markdown_html(f"${source}$")
        assert "<code>" in markdown_html(f"${source}$")

    def test_usual_ones_are_typeset_also_long_ones(self) -> None:
        for source in (r"\frac{1}{2}+" * 60 + "0", r"\text{a}\\" * 50, r"\left(\frac{\sqrt{2}}{\left[3\right]}\right)"):
            assert 'class="math' in markdown_html(f"${source}$")

    def test_there_are_so_many_of_one_text_and_no_more(self) -> None:
        assert markdown_html("$x$ " * (FORMULAS + 50)).count('class="math') == FORMULAS

    @pytest.mark.parametrize(
        "text",
        [
            "\n" * 15_000, "a\n" * 9_000, "\\[\n" * 6_000, "![" * 9_000, "\\begin{align}\n" * 1_400, "[a\n" * 6_000,
            "|a" * 100 + "\n" + "|-" * 100 + "\n" + "|\n" * 9_000,
        ],
    )  # fmt: skip
    def test_a_text_that_keeps_the_reader_busy_is_shown_as_it_was_written(self, text: str) -> None:
        assert markdown_html(text).startswith("<pre>")
        assert html.unescape(markdown_html(text).removeprefix("<pre>").partition("</pre>")[0]) == text[:20_000]
