"""What an experiment file says: arms, seeds, lengths; that every shipped one works; and the page's pieces."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
import yaml

from spark_kernel.errors import InputError
from workbench.experiment.curves import curve_svg, legend_svg
from workbench.experiment.findings import CurvePoint
from workbench.experiment.matching import Match, Point, matched
from workbench.experiment.plan import folder_name, load_experiment, rollouts_of_round, shipped_experiments
from workbench.experiment.running import Laboratory

PLAIN: dict[str, Any] = {
    "title": "T",
    "arms": {"one": {"preset": "policy-only"}, "two": {"preset": "spark"}},
    "reference": "one",
    "settings": {"rounds": 8, "problems.per_round": 10, "recycle": {"judge_quota": 6, "reflection_quota": 4}},
}


def written(folder: Path, **changes: Any) -> str:
    path = folder / "experiment.yaml"
    path.write_text(yaml.safe_dump({**PLAIN, **changes}))
    return str(path)


def test_every_shipped_experiment_can_be_run_and_its_arms_differ() -> None:
    names = shipped_experiments()
    assert {"arms", "kinds", "faithful", "views", "label-noise", "verify-first", "tournament"} <= names.keys()
    for name in names:
        experiment = load_experiment(name)
        configs = {cell.arm: cell.config for cell in experiment.cells if cell.seed == experiment.file.seeds[0]}
        assert len({config.to_yaml() for config in configs.values()}) == len(configs), name
        assert all(config.evaluation.problems >= 300 for config in configs.values())
        assert len({cell.name for cell in experiment.cells}) == len(experiment.cells)


def test_cells_are_arms_with_seeds_each_with_its_own_configuration(tmp_path: Path) -> None:
    changes = {"two": {"preset": "spark", "settings": {"recycle.pairwise": False}}}
    source = written(tmp_path, seeds=[4, 5], arms={**PLAIN["arms"], **changes})
    experiment = load_experiment(source, settings={"verify": {"flip_share": 0.1}})
    assert [cell.name for cell in experiment.cells] == ["one-4", "two-4", "one-5", "two-5"]
    one, two, *_ = (cell.config for cell in experiment.cells)
    assert (one.period.train_reward, two.period.train_reward) == (False, True)
    assert (two.recycle.pairwise, two.recycle.judge_quota, two.seed, two.threads) == (False, 6, 4, 1)
    assert (one.verify.flip_share, one.evaluation.every, one.rounds) == (0.1, 2, 8)


def test_until_rollouts_every_arm_samples_as_much_as_the_one_that_samples_most(tmp_path: Path) -> None:
    experiment = load_experiment(written(tmp_path, until="rollouts"), seeds=[0])
    one, two = (cell.config for cell in experiment.cells)
    assert (two.rounds, one.rounds) == (8, 16)  # 10 tasks a round against 10 + 6 + 4
    assert (two.evaluation.every, one.evaluation.every) == (2, 4)
    spent = [sum(rollouts_of_round(c, n) for n in range(1, c.rounds + 1)) for c in (one, two)]
    assert spent[0] == spent[1] == 8 * 20 * one.rollout.samples


def test_only_some_arms_keep_the_reference(tmp_path: Path) -> None:
    arms = {**PLAIN["arms"], "three": {"preset": "reward-only"}}
    experiment = load_experiment(written(tmp_path, arms=arms), arms=["three"])
    assert list(experiment.file.arms) == ["one", "three"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"reference": "none"}, 'reference = "none" is no arm: one, two'),
        ({"arms": {"one": {}}}, "at least two arms"),
        ({"arms": {"a b": {}, "a-b": {}}, "reference": "a b"}, "the same folder"),
        ({"arms": {"../up": {}, "two": {}}}, "is no name for an arm"),
        ({"seeds": [1, 1]}, "each once"),
        ({"primary": "luck"}, "is no measure: own"),
        ({"until": "tomorrow"}, "rounds or rollouts"),
        ({"match": ["luck"]}, "match.0"),
        ({"nonsense": 1}, 'an entry "nonsense"'),
        ({"settings": {"rounds": 0}}, "rounds = 0"),
        ({"base": "quickstrat"}, 'did you mean "quickstart"'),
    ],
)
def test_what_cannot_be_run_is_refused_in_a_sentence(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        load_experiment(written(tmp_path, **changes))


def test_no_such_experiment_and_no_such_arm(tmp_path: Path) -> None:
    with pytest.raises(InputError, match='did you mean "arms"'):
        load_experiment("army")
    with pytest.raises(InputError, match="There is no experiment file"):
        load_experiment(str(tmp_path / "none.yaml"))
    with pytest.raises(InputError, match='no arm "three": one, two'):
        load_experiment(written(tmp_path), arms=["three"])


@pytest.mark.parametrize(
    ("jobs", "free", "running", "room"),
    [
        (None, 0, 0, True),  # one alone always may
        (2, 100, 1, True),
        (2, 100, 2, False),
        (4, 19, 1, False),  # the one that began a moment ago needs its 10 still
        (4, 21, 1, True),
        (4, 39, 3, False),
        (4, 41, 3, True),
        (None, 100, 2, False),  # two cores
    ],
)
def test_cells_begin_as_far_as_cores_and_memory_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jobs: int | None, free: int, running: int, room: bool
) -> None:
    monkeypatch.setattr("workbench.experiment.running.usable_cores", lambda: 2)
    experiment = load_experiment(written(tmp_path), seeds=[0, 1])
    laboratory = Laboratory(experiment, tmp_path, jobs, memory_free=lambda: free, needed=lambda config: 10)
    assert laboratory.has_room(experiment.cells[-1], experiment.cells[:running]) is room


def test_a_run_that_has_its_first_round_has_taken_its_memory(tmp_path: Path) -> None:
    experiment = load_experiment(written(tmp_path), seeds=[0, 1])
    laboratory = Laboratory(experiment, tmp_path, 4, memory_free=lambda: 11, needed=lambda config: 10)
    first, *_, last = experiment.cells
    assert not laboratory.has_room(last, [first])
    (laboratory.run_of(first) / "rounds" / "000001").mkdir(parents=True)
    assert laboratory.has_room(last, [first])


def point(round: int, rollouts: float) -> Point:
    return Point(round, {Match.ROUNDS: round, Match.ROLLOUTS: rollouts, Match.TOKENS: 0.0, Match.SECONDS: 0.0}, {})


def test_arms_are_matched_by_the_last_evaluation_within_what_both_reached() -> None:
    cheap = [point(n, 100 * n) for n in (0, 2, 4, 6, 8)]
    dear = [point(n, 250 * n) for n in (0, 1, 2, 3)]
    by_rounds, by_rollouts = (matched(cheap, dear, match) for match in (Match.ROUNDS, Match.ROLLOUTS))
    assert by_rounds is not None
    assert by_rollouts is not None
    assert [p.round for p in by_rounds] == [2, 3]
    assert [p.round for p in by_rollouts] == [6, 3]
    assert matched(cheap, [], Match.ROUNDS) is None
    assert matched(cheap, [point(3, 5000)], Match.ROLLOUTS) is None or matched(cheap, [point(3, 5000)], Match.ROUNDS)


def test_curves_are_drawn_where_the_figures_are_and_names_are_escaped() -> None:
    spent = [dict.fromkeys(Match, 10.0 * n) for n in (0, 1, 2)]
    curve = [CurvePoint(n, spent[n], 0.4 + 0.1 * n, 0.3, 0.7, 3) for n in (0, 1, 2)]
    name = "a <b> & c"
    picture = ET.fromstring(curve_svg({name: curve}, ["other", name], Match.ROLLOUTS, "figure"))
    dots = [(float(dot.attrib["cx"]), float(dot.attrib["cy"])) for dot in picture.iter("circle")]
    assert len(dots) == 3
    assert dots[1][0] - dots[0][0] == pytest.approx(dots[2][0] - dots[1][0])
    assert dots[0][1] > dots[1][1] > dots[2][1]  # higher figures stand higher
    (band,) = picture.iter("polygon")
    heights = {float(pair.split(",")[1]) for pair in band.attrib["points"].split()}
    assert min(heights) < dots[2][1] < dots[0][1] < max(heights)
    assert ET.fromstring(legend_svg(["other", name])).findall("text")[1].text == name


def test_folders_of_arms_have_plain_names() -> None:
    assert folder_name("policy-only, 20 % turned") == "policy-only-20-percent-turned"
