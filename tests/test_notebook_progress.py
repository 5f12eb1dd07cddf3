"""Progress in a notebook cell: one bar per piece of work, gone at the end; a line per round. Names of runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from spark_kernel.training.events import Event
from workbench.notebook import progress
from workbench.notebook.naming import unused_run


class Bar:
    """What the listener does to a bar, written down."""

    made: list[Bar]

    def __init__(self, desc: str, **_: object) -> None:
        self.desc, self.n, self.total, self.open, self.texts = desc, 0, None, True, [desc]
        Bar.made.append(self)

    def update(self, n: int) -> None:
        self.n += n
        assert self.total is None or self.n <= self.total

    def reset(self, total: int | None = None) -> None:
        self.n, self.total = 0, total

    def set_description(self, text: str, refresh: bool) -> None:
        self.desc = f"{text}: "
        self.texts.append(text)

    def close(self) -> None:
        self.open = False

    @staticmethod
    def write(text: str) -> None:
        print(text)


@pytest.fixture
def bars(monkeypatch: pytest.MonkeyPatch) -> list[Bar]:
    """The bars that are made."""
    Bar.made = []
    monkeypatch.setattr(progress, "tqdm", Bar)
    return Bar.made


def test_training_has_one_bar_for_all_rounds(bars: list[Bar]) -> None:
    listen = progress.CellProgress()
    listen(Event("run_started", 1, data={"rounds": 2}))
    for round in (1, 2):
        for phase, total in (("roll_out", 40), ("update", 3)):
            listen(Event("phase_started", round, "policy", phase))
            for done in range(1, total + 1):
                listen(Event("progress", round, "policy", phase, done=done, total=total))
            assert (bars[0].n, bars[0].total) == (total, total)
            listen(Event("phase_finished", round, "policy", phase))
    assert len(bars) == 1
    assert bars[0].texts[-1] == "round 2/2 update (policy)"
    assert bars[0].open
    listen(Event("run_finished", 2))
    assert not bars[0].open


def test_a_stop_takes_the_bar_away(bars: list[Bar]) -> None:
    listen = progress.CellProgress()
    listen(Event("run_started", 1, data={"rounds": 2}))
    listen(Event("phase_started", 1, "policy", "roll_out"))
    listen(Event("progress", 1, "policy", "roll_out", done=1, total=5))
    listen(Event("stopped", 1))
    assert [bar.open for bar in bars] == [False]
    assert bars[0].total is None  # a bar that is not full would stay, in red


def test_phases_by_hand_have_a_bar_each(bars: list[Bar]) -> None:
    listen = progress.CellProgress()
    for phase in ("roll_out", "verify"):
        listen(Event("phase_started", 1, "policy", phase))
        listen(Event("progress", 1, "policy", phase, done=1, total=2))
        listen(Event("phase_finished", 1, "policy", phase))
    assert [bar.desc for bar in bars] == ["round 1 roll out (policy)", "round 1 verify (policy)"]
    assert not any(bar.open for bar in bars)


def test_repeating_recorded_updates_shows_too(bars: list[Bar]) -> None:
    listen = progress.CellProgress()
    for done in (1, 2, 3):
        listen(Event("progress", done, phase="replay", done=done, total=3))
    assert [bar.desc for bar in bars] == ["repeating recorded updates"]
    assert not bars[0].open


def test_an_unused_name_is_counted_up(tmp_path: Path) -> None:
    wanted = tmp_path / "demo"
    assert unused_run(wanted) == wanted
    for name in ("demo", "demo-2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text("{}")
    assert unused_run(wanted) == tmp_path / "demo-3"
    (tmp_path / "demo" / "run.json").unlink()  # an empty folder serves
    assert unused_run(wanted) == wanted
