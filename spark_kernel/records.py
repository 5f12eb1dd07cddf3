"""The records that flow between the stages of a round: the ground floor, standard library only.

A solve task, a judgement and a reflection are the same thing to the machine: messages, a label, a verifier,
and where they came from. A round is therefore one short story told twice (docs/algorithm.md):

    tasks -> sample n outputs each -> score each -> update;   recycle(outputs, scores) -> new tasks -> ...

Every record is frozen. A stage never changes a record; it returns new ones (`dataclasses.replace`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from spark_kernel.exclusion_reasons import ExclusionReason as ExclusionReason


class Kind(StrEnum):
    """What a task asks of the model."""

    SOLVE = "solve"
    """Answer the problem."""
    POINTWISE = "pointwise"
    """Say whether one candidate answer is correct."""
    PAIRWISE = "pairwise"
    """Say which of two candidates is correct."""
    REFLECTION = "reflection"
    """Look at an earlier answer and give a final one."""

    @property
    def judges(self) -> bool:
        """Whether the output is a verdict rather than an answer to the problem."""
        return self in (Kind.POINTWISE, Kind.PAIRWISE)


class Origin(StrEnum):
    """What a task was made from."""

    PROBLEM = "problem"
    """Straight from the problem source (every solve task)."""
    SOLVE = "solve"
    """Recycled from the outputs of a solve task."""
    REFLECTION = "reflection"
    """Recycled from the outputs of a reflection task ("re-evaluation")."""


class View(StrEnum):
    """How much of a candidate response a judge or reflection prompt shows."""

    ANSWER = "answer"
    """Only the extracted final answer."""
    FULL = "full"
    """The whole response."""


class Parse(StrEnum):
    """What became of reading an output."""

    OK = "ok"
    NONE = "none"
    """No answer or verdict found."""
    AMBIGUOUS = "ambiguous"
    """Several verdicts that disagree."""
    TIMEOUT = "timeout"
    """The verifier ran past its deadline: reward is null."""
    CRASH = "crash"
    """The verifier died or raised: reward is null."""


class Period(StrEnum):
    """The two halves of a round (algorithm.md section 2)."""

    POLICY = "policy"
    REWARD = "reward"
    JOINT = "joint"
    """The single update of a `joint` round, over the groups of both halves."""


@dataclass(frozen=True, slots=True)
class ImageRef:
    """An image by content. `path` is relative to the run folder once a run owns the image, absolute before."""

    sha256: str
    path: str


@dataclass(frozen=True, slots=True)
class TextPart:
    """A piece of message text."""

    text: str


@dataclass(frozen=True, slots=True)
class ImagePart:
    """The place of an image in a message; `index` points into the task's `images`."""

    index: int


@dataclass(frozen=True, slots=True)
class Message:
    """One chat message: a role and its parts in reading order."""

    role: str
    parts: tuple[TextPart | ImagePart, ...]

    @classmethod
    def of(cls, role: str, text: str) -> Message:
        """A message of plain text."""
        return cls(role, (TextPart(text),))

    @property
    def text(self) -> str:
        """The text parts, joined; images leave no trace."""
        return "".join(part.text for part in self.parts if isinstance(part, TextPart))

    def to_chat(self) -> dict[str, Any]:
        """The message as a chat template reads it: a string, or a list of parts where there is an image."""
        if all(isinstance(part, TextPart) for part in self.parts):
            return {"role": self.role, "content": self.text}
        content = [
            {"type": "text", "text": part.text} if isinstance(part, TextPart) else {"type": "image"}
            for part in self.parts
        ]
        return {"role": self.role, "content": content}


@dataclass(frozen=True, slots=True)
class Problem:
    """Something with an answer that a verifier can check.

    `question` may hold one `<image>` mark per image to say where the images stand; otherwise they come first.
    `verifier` is a registered name (`spark_kernel.verify`). `meta` holds JSON values only, for example the
    entry that a reasoning-gym scorer needs.
    """

    id: str
    question: str
    gold: str
    verifier: str
    images: tuple[ImageRef, ...] = ()
    meta: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Task:
    """One prompt for the model, with the label its outputs are scored against.

    `label`: the gold answer (solve, reflection), "Yes"/"No" (pointwise) or "A"/"B" (pairwise).
    `label_map`: where a judge is asked for other words, what each means: {"A": "No", "B": "Yes"}, {"first": "A", ...}.
    `gold_position`: pairwise only, "A" or "B": where the correct candidate stands.
    `sources`: ids of the rollouts the task was made from, in the order they are shown.
    `source_policy_version`: the policy version that wrote those rollouts.
    `source_correct`: whether each source was correct, in the order of `sources`.
    `round`: the round (1, 2, ...) in which the task was made.
    """

    id: str
    kind: Kind
    origin: Origin
    problem_id: str
    messages: tuple[Message, ...]
    label: str
    verifier: str
    template_id: str
    round: int
    images: tuple[ImageRef, ...] = ()
    view: View | None = None
    sources: tuple[str, ...] = ()
    source_policy_version: int | None = None
    source_correct: tuple[bool, ...] = ()
    source_group_mixed: bool | None = None
    gold_position: str | None = None
    label_map: Mapping[str, str] | None = None


FLIPPED = "Turned round by verify.flip_share"
"""How the reason of a score begins whose verdict was turned round on purpose (`verify.label_noise`)."""


@dataclass(frozen=True, slots=True)
class Score:
    """A verifier's finding. `reward` and `correct` are None exactly when parse is TIMEOUT or CRASH.

    `answer` is the answer or verdict as it was read from the output, None if none was found. For a verdict it is
    the verdict's meaning ("Yes", "No", "A", "B"), with any letter map already applied.
    `reason` is one sentence for a person.
    """

    reward: float | None
    correct: bool | None
    parse: Parse
    answer: str | None = None
    reason: str = ""

    @property
    def flipped(self) -> bool:
        """Whether reward and `correct` are the opposite of what the verifier found, by `verify.flip_share`."""
        return self.reason.startswith(FLIPPED)


@dataclass(frozen=True, slots=True)
class Rollout:
    """One sampled output of a task.

    `token_ids` [T] end with the end-of-sequence token unless `truncated`; `logprobs` [T] are the sampler's own
    log-probabilities of those tokens at the sampling temperature. `seconds` is this output's share of the
    sampling time. `advantage` is None until verified, and for a rollout without a reward.
    """

    id: str
    task_id: str
    index: int
    policy_version: int
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    text: str
    truncated: bool
    seconds: float = 0.0
    score: Score | None = None
    advantage: float | None = None

    @property
    def answer(self) -> str | None:
        """The answer or verdict the verifier read, None before verification or where there was none."""
        return self.score.answer if self.score else None


@dataclass(frozen=True, slots=True)
class Group:
    """A task and the n rollouts sampled for it [G]: the unit of advantage, recycling and minibatching."""

    task: Task
    rollouts: tuple[Rollout, ...]

    @property
    def rewards(self) -> tuple[float | None, ...]:
        """The reward of each rollout [G]; None where there is none."""
        return tuple(r.score.reward if r.score else None for r in self.rollouts)

    @property
    def scored(self) -> tuple[Rollout, ...]:
        """The rollouts that have a reward."""
        return tuple(r for r in self.rollouts if r.score is not None and r.score.reward is not None)

    @property
    def correct(self) -> tuple[Rollout, ...]:
        """The rollouts verified as correct."""
        return tuple(r for r in self.rollouts if r.score is not None and r.score.correct is True)

    @property
    def wrong(self) -> tuple[Rollout, ...]:
        """The rollouts verified as wrong; a timeout or crash is neither correct nor wrong."""
        return tuple(r for r in self.rollouts if r.score is not None and r.score.correct is False)

    @property
    def is_mixed(self) -> bool:
        """Whether the group holds at least one correct and one wrong rollout."""
        return bool(self.correct) and bool(self.wrong)

    def with_rollouts(self, rollouts: tuple[Rollout, ...]) -> Group:
        """The same task with these rollouts."""
        return replace(self, rollouts=rollouts)


@dataclass(frozen=True, slots=True)
class Exclusion:
    """One thing that was left out, where, and why.

    `stage` names the stage that left it out ("problems", "recycle", "queue", "update", "verify").
    `kind` is the task kind concerned, where there is one. `subject_id` is the problem, task or rollout id.
    """

    round: int
    stage: str
    reason: ExclusionReason
    subject_id: str
    kind: Kind | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Recycled:
    """What recycling made of some groups: new tasks, and every opportunity that did not become one."""

    tasks: tuple[Task, ...] = ()
    exclusions: tuple[Exclusion, ...] = ()
    balance_before: Mapping[str, int] = field(default_factory=dict)
    """Pointwise label counts ("Yes", "No") before balancing."""
    balance_after: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class KindStats:
    """One line of a round's report: the on-policy figures of one kind and origin in one period.

    Counts: `n` rollouts with a reward, `groups`, `missing` rollouts without a reward. Rates lie in [0, 1]; a figure
    without observations is None. `reward_low`, `reward_high`: 95 % interval of the mean reward, clustered by problem
    (None for a single problem). `truncated` and `length_mean` (tokens per output) are over all rollouts.
    """

    period: Period
    kind: Kind
    origin: Origin
    n: int
    groups: int
    missing: int
    reward_mean: float | None
    reward_low: float | None
    reward_high: float | None
    accuracy: float | None
    unparseable: float | None
    truncated: float | None
    length_mean: float | None
    all_correct: float | None
    mixed: float | None
    all_wrong: float | None
    zero_variance: float | None
    judge: Mapping[str, float] | None = None
    """Judge figures (`evaluate.judge_metrics`), undefined ones left out; None for kinds that do not judge."""


@dataclass(frozen=True, slots=True)
class UpdateStats:
    """What one period's update did, as the learner reports it.

    `optimizer_steps` real steps taken; `loss_tokens` tokens in the normaliser over all steps; `sequences` rollouts
    trained on. Means are over loss tokens. `by_kind` maps a kind to its own figures (loss, kl, entropy, clip_share,
    loss_tokens). `learning_rate` is that of the last step. `notes` are one-line remarks for the report, such as a
    fast path that could not be used.
    """

    period: Period
    optimizer_steps: int
    sequences: int
    loss_tokens: int
    loss: float
    kl: float
    entropy: float
    clip_share: float
    ratio_mean: float
    grad_norm: float
    learning_rate: float
    seconds: float
    by_kind: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    sampler_mismatch: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RoundReport:
    """Everything a round has to say for itself; written as rounds/NNNNNN/report.json."""

    round: int
    policy_version: int
    kinds: tuple[KindStats, ...]
    updates: tuple[UpdateStats, ...]
    seconds_by_phase: Mapping[str, float]
    recycled: Mapping[str, int]
    """Recycled tasks made this round, by "kind/origin"."""
    exclusions: Mapping[str, int]
    """Exclusions of this round by "stage/reason"."""
    queue_length: int
    balance_before: Mapping[str, int] = field(default_factory=dict)
    balance_after: Mapping[str, int] = field(default_factory=dict)
    shortcut: Mapping[str, float] = field(default_factory=dict)
    """By kind, how well a rule does that knows only where candidates come from (`evaluate.shortcut`)."""
    notes: tuple[str, ...] = ()
