"""The pool with verifiers that hang, crash and exit in earnest: real processes throughout."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spark_kernel.errors import InputError
from spark_kernel.records import ImagePart, ImageRef, Kind, Message, Origin, Parse, Problem, Score, Task, TextPart, View
from spark_kernel.verify import VerifierPool, VerifyRequest, score_request
from spark_kernel.verify import pool as pool_module
from spark_kernel.verify.wire import decode_requests, encode_requests, score_in, score_out
from tests.helpers.verify import HERE, request

SCRIPTED = f"{HERE}:Scripted"
SETTLE_SECONDS = 20.0


def scripted(*scripts: str) -> list[VerifyRequest]:
    return [request(script, verifier=SCRIPTED) for script in scripts]


@pytest.fixture
def pool() -> Iterator[VerifierPool]:
    with VerifierPool(2, 0.4) as pool:
        yield pool


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def gone(*pids: int) -> bool:
    """Whether the processes end; waits for them."""
    end = time.monotonic() + SETTLE_SECONDS
    while any(alive(pid) for pid in pids) and time.monotonic() < end:
        time.sleep(0.02)
    return not any(alive(pid) for pid in pids)


def worker_pids(pool: VerifierPool, count: int = 40) -> set[int]:
    return {int(score.answer or 0) for score in pool.score(scripted(*["pid"] * count))}


@pytest.mark.slow
@pytest.mark.parametrize("script", ["hang", "compute"])
def test_only_the_output_that_hangs_times_out(pool: VerifierPool, script: str) -> None:
    scores = pool.score(scripted("1", "2", script, "3", script, "4"))
    assert [score.parse for score in scores] == [
        Parse.OK, Parse.OK, Parse.TIMEOUT, Parse.OK, Parse.TIMEOUT, Parse.OK,
    ]  # fmt: skip
    assert [score.answer for score in scores if score.parse is Parse.OK] == ["1", "2", "3", "4"]
    assert all((s.reward, s.correct) == (None, None) for s in scores if s.parse is Parse.TIMEOUT)


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("exit 0", "exit code 0"),
        ("exit 7", "exit code 7"),
        ("sysexit", "exit code 3"),
        (f"kill {signal.SIGSEGV}", "SIGSEGV"),
        (f"kill {signal.SIGKILL}", "SIGKILL"),
        ("raise the answer is\nodd", "ValueError: the answer is odd"),
        ("memory", "MemoryError"),
        ("badscore", "without a reward"),
        ("nothing", "NoneType"),
        ("reward nan", "reward nan"),
    ],
)
def test_only_the_output_that_crashes_is_a_crash(pool: VerifierPool, script: str, says: str) -> None:
    scores = pool.score(scripted("1", script, "2", script, "3", "4"))
    assert [score.parse is Parse.CRASH for score in scores] == [False, True, False, True, False, False]
    assert [score.answer for score in scores] == ["1", None, "2", None, "3", "4"]
    assert (scores[1].reward, scores[1].correct) == (None, None)
    assert says in scores[1].reason
    assert "\n" not in scores[1].reason


def test_a_timeout_a_crash_and_an_unparseable_answer_are_three_results(pool: VerifierPool) -> None:
    scores = pool.score([*scripted("hang", "exit 1"), request("no box"), request(r"\boxed{8}"), request(r"\boxed{7}")])
    assert [(s.parse, s.reward, s.correct) for s in scores] == [
        (Parse.TIMEOUT, None, None),
        (Parse.CRASH, None, None),
        (Parse.NONE, 0.0, False),
        (Parse.OK, 0.0, False),
        (Parse.OK, 1.0, True),
    ]


@pytest.mark.slow
def test_mathematics_without_end_is_a_timeout_and_leaves_the_others_alone() -> None:
    with VerifierPool(1, 1.0) as pool:
        outputs = [r"\boxed{9^{9^{9^9}}}", r"\boxed{\prod_{k=1}^{10^8} (k^2+1)}", r"\boxed{x+5-x}"]
        scores = pool.score([request(output, "5", "math") for output in outputs])
    assert [(s.parse, s.correct) for s in scores] == [
        (Parse.OK, False),
        (Parse.TIMEOUT, None),
        (Parse.OK, True),
    ]


def test_the_deadline_counts_processor_time_so_that_waiting_for_it_fails_nobody(pool: VerifierPool) -> None:
    """Twice the deadline by the clock and next to nothing of the processor: as on a machine that others keep busy."""
    scores = pool.score(scripted("sleep 0.9", "1"))
    assert [(score.parse, score.answer) for score in scores] == [(Parse.OK, "sleep 0.9"), (Parse.OK, "1")]


SCRIPTS = st.one_of(
    st.text(max_size=12).filter(lambda text: text.partition(" ")[0] not in SPECIAL),
    st.sampled_from(["raise x", "reward 0.25", "reward 1", "print noise", "nothing"]),
)
SPECIAL = {"hang", "sleep", "compute", "exit", "sysexit", "kill", "raise", "memory", "print", "interrupted", "pid",
           "modules", "mark", "reward", "badscore", "nothing"}  # fmt: skip


@pytest.fixture(scope="module")
def steady_pool() -> Iterator[VerifierPool]:
    with VerifierPool(2, 30.0, 0.25) as pool:
        yield pool


@given(st.lists(SCRIPTS, max_size=60))
@settings(max_examples=40)
def test_the_pool_says_what_the_verifier_says_in_the_same_order(steady_pool: VerifierPool, scripts: list[str]) -> None:
    expected: list[Score | None] = []
    for asked in scripted(*scripts):
        try:
            expected.append(score_request(asked, 0.25))
        except (ValueError, TypeError):
            expected.append(None)
    scores = steady_pool.score(scripted(*scripts))
    assert [None if score.parse is Parse.CRASH else score for score in scores] == expected


def test_progress_is_told_up_to_the_last_output(steady_pool: VerifierPool) -> None:
    seen: list[tuple[int, int]] = []
    steady_pool.score(scripted(*map(str, range(300))), lambda done, count: seen.append((done, count)))
    assert seen[-1] == (300, 300)
    assert seen == sorted(seen)


def test_no_requests_start_no_worker() -> None:
    with VerifierPool(2, 1.0) as pool:
        assert pool.score([]) == []
        assert pool._workers == []


def test_workers_hold_no_torch(steady_pool: VerifierPool) -> None:
    modules = (steady_pool.score(scripted("modules"))[0].answer or "").split()
    steady_pool.score([request(r"\boxed{x}", "y", "math")])
    modules += (steady_pool.score(scripted("modules"))[0].answer or "").split()
    assert "spark_kernel.verify.worker" in modules or "spark_kernel.verify.scoring" in modules
    assert not {"torch", "transformers", "peft"} & set(modules)


def test_ctrl_c_at_the_worker_changes_nothing(pool: VerifierPool) -> None:
    scores = pool.score(scripted("interrupted", "2"))
    assert [score.parse for score in scores] == [Parse.OK, Parse.OK]


def test_workers_are_kept_between_calls_and_gone_after_close() -> None:
    pool = VerifierPool(2, 5.0)
    first, second = worker_pids(pool), worker_pids(pool)
    pids = {worker.pid for worker in pool._workers}
    assert first | second <= pids
    assert len(pids) == 2
    pool.close()
    assert not any(alive(pid) for pid in pids)
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids), "reaped"
    assert pool.score(scripted("again"))[0].answer == "again"
    pool.close()


def test_an_exception_in_the_caller_ends_the_busy_workers_and_leaves_the_pool_usable() -> None:
    class EnoughError(Exception):
        pass

    def stop(done: int, count: int) -> None:
        raise EnoughError

    with VerifierPool(2, 30.0) as pool:
        with pytest.raises(EnoughError):
            pool.score(scripted("1", "hang", "hang", "2", "3", "hang", "4", "5"), stop)
        assert not any(worker.busy for worker in pool._workers)
        assert [s.answer for s in pool.score(scripted("6", "7", "8"))] == ["6", "7", "8"]


def test_a_worker_that_died_while_idle_is_replaced_and_no_output_is_blamed(pool: VerifierPool) -> None:
    pids = worker_pids(pool)
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    assert gone(*pids)
    assert [s.parse for s in pool.score(scripted(*map(str, range(20))))] == [Parse.OK] * 20


def test_the_thread_that_started_the_workers_may_end(pool: VerifierPool) -> None:
    pids: list[set[int]] = []
    thread = threading.Thread(target=lambda: pids.append({*worker_pids(pool), *(w.pid for w in pool._workers)}))
    thread.start()
    thread.join()
    time.sleep(0.1)
    assert worker_pids(pool) <= pids[0]


def test_threads_take_turns(steady_pool: VerifierPool) -> None:
    results: dict[int, list[str | None]] = {}

    def work(number: int) -> None:
        results[number] = [s.answer for s in steady_pool.score(scripted(*(f"{number}-{i}" for i in range(50))))]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {number: [f"{number}-{i}" for i in range(50)] for number in range(4)}


def test_an_unknown_verifier_is_an_input_error_not_a_crash(pool: VerifierPool) -> None:
    with pytest.raises(InputError, match='There is no verifier "maths"'):
        pool.score([request("x", verifier="maths")])
    with pytest.raises(InputError, match="licence server"):
        pool.score([request("x", verifier=f"{HERE}:Unmakeable")])
    assert pool.score(scripted("1"))[0].answer == "1"


def test_meta_that_is_no_json_names_the_problem(pool: VerifierPool) -> None:
    with pytest.raises(InputError, match=r"Problem p1: Problem\.meta\.entry must be a JSON value .*, not <object"):
        pool.score([request("x", meta={"entry": object()})])
    with pytest.raises(InputError, match=r"Problem p1: Problem\.meta\.entry is not valid Unicode text"):
        pool.score([request("x", meta={"entry": "\ud800"})])
    assert pool.score(scripted("1"))[0].answer == "1"


def test_golds_are_checked_under_the_same_deadline(pool: VerifierPool) -> None:
    golds = [("7", "integer"), ("many", "integer"), ("hang", SCRIPTED), ("raise", SCRIPTED), ("7", SCRIPTED)]
    found = pool.check_golds([Problem(f"p{i}", "?", gold, name) for i, (gold, name) in enumerate(golds)])
    assert found[0] is None
    assert found[4] is None
    assert "p1" in (found[1] or "")
    assert "whole number" in (found[1] or "")
    assert "p2" in (found[2] or "")
    assert "deadline" in (found[2] or "")
    assert "p3" in (found[3] or "")
    assert "RuntimeError: no idea" in (found[3] or "")


@pytest.mark.parametrize(("workers", "deadline"), [(0, 1.0), (1, 0.0), (1, float("nan"))])
def test_impossible_settings_are_refused(workers: int, deadline: float) -> None:
    with pytest.raises(InputError, match="at least 1 worker"):
        VerifierPool(workers, deadline)


PARENT = """
import sys
from pathlib import Path
from spark_kernel.verify import VerifierPool
from tests.helpers.verify import HERE, request
pool = VerifierPool(2, 1000.0)
ask = lambda script: request(script, verifier=f"{HERE}:Scripted")
try:
    pool.score([ask("ready"), ask("pid")], None)
    pids = [worker.pid for worker in pool._workers]
    Path(sys.argv[1] + ".tmp").write_text(" ".join(map(str, pids)))
    Path(sys.argv[1] + ".tmp").rename(sys.argv[1])
    pool.score([ask(script) for script in sys.argv[2:]])
finally:
    pool.close()
"""


def start_parent(tmp_path: Path, *scripts: str) -> tuple[subprocess.Popen[str], list[int]]:
    """A process whose two workers are busy, and the workers' ids."""
    note, marks = tmp_path / "pids", [script.split(" ", 1)[1] for script in scripts if script.startswith("mark")]
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(note), *scripts], stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    end = time.monotonic() + SETTLE_SECONDS
    while not (note.exists() and all(Path(mark).exists() for mark in marks)):
        assert parent.poll() is None, parent.stderr and parent.stderr.read()
        assert time.monotonic() < end
        time.sleep(0.02)
    return parent, [int(pid) for pid in note.read_text().split()]


@pytest.mark.slow
def test_a_killed_parent_leaves_no_worker_busy_or_idle(tmp_path: Path) -> None:
    parent, pids = start_parent(tmp_path, "compute", f"mark {tmp_path / 'mark'}")
    assert len(pids) == 2
    assert all(alive(pid) for pid in pids)
    parent.kill()
    parent.wait()
    assert gone(*pids)


@pytest.mark.slow
def test_ctrl_c_at_the_parent_leaves_no_worker(tmp_path: Path) -> None:
    parent, pids = start_parent(tmp_path, "compute", f"mark {tmp_path / 'mark'}")
    os.killpg(parent.pid, signal.SIGINT)
    _, errors = parent.communicate(timeout=SETTLE_SECONDS)
    assert parent.returncode in (-signal.SIGINT, 130)
    assert "KeyboardInterrupt" in errors
    assert errors.count("Traceback") == 1, "the workers say nothing"
    assert gone(*pids)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
TEXT = st.text(max_size=30)
"""Any Unicode text. Half of a surrogate pair is refused in a record, and may stand in an output (below)."""
ANY_OUTPUT = st.text(st.characters(), max_size=30)
IMAGES = st.lists(st.builds(ImageRef, TEXT, TEXT), max_size=2).map(tuple)
PROBLEMS = st.builds(
    Problem, TEXT, TEXT, TEXT, TEXT, images=IMAGES, meta=st.dictionaries(st.text(max_size=5), JSON, max_size=3)
)
PARTS = st.lists(st.builds(TextPart, TEXT) | st.builds(ImagePart, st.integers(0, 5)), max_size=3).map(tuple)
TASKS = st.builds(
    Task,
    id=TEXT,
    kind=st.sampled_from(Kind),
    origin=st.sampled_from(Origin),
    problem_id=TEXT,
    messages=st.lists(st.builds(Message, st.sampled_from(["user", "system"]), PARTS), max_size=2).map(tuple),
    label=TEXT,
    verifier=TEXT,
    template_id=TEXT,
    round=st.integers(0, 10**6),
    images=IMAGES,
    view=st.none() | st.sampled_from(View),
    sources=st.lists(TEXT, max_size=2).map(tuple),
    source_policy_version=st.none() | st.integers(0, 99),
    source_correct=st.lists(st.booleans(), max_size=2).map(tuple),
    source_group_mixed=st.none() | st.booleans(),
    gold_position=st.none() | st.sampled_from("AB"),
    label_map=st.none() | st.just({"A": "No", "B": "Yes"}),
)


@given(st.lists(st.builds(VerifyRequest, ANY_OUTPUT, PROBLEMS, TASKS), max_size=4), st.integers(1, 3))
@settings(max_examples=30)
def test_requests_arrive_as_they_were_sent(requests: list[VerifyRequest], times: int) -> None:
    sent = requests * times
    line = encode_requests(sent, 1.0)
    assert line.count(b"\n") == 1
    message = json.loads(line)
    assert decode_requests(message) == sent
    assert len(message["problems"]) <= len(requests), "a problem travels once however many outputs it has"


def test_lone_surrogates_and_control_characters_survive() -> None:
    text = "\ud800 \x00 \n \r \u2028 ✓"
    [back] = decode_requests(json.loads(encode_requests([request(text)], 1.0)))
    assert back.output == text
    score = Score(0.5, False, Parse.OK, text, text)
    assert score_in(json.loads(json.dumps(score_out(score)))) == score


def test_a_worker_is_replaced_after_its_share_of_outputs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "WORKER_LIFE", 4)
    with VerifierPool(1, 5.0) as pool:
        batches = [worker_pids(pool, 2) for _ in range(4)]
        assert batches[0] == batches[1]
        assert batches[2] == batches[3]
        assert batches[0] != batches[2]
        assert gone(*batches[0])
