"""What a run folder shows, as immutable snapshots of plain values: shared by notebook panels, app and reports.

    view = RunView("runs/demo")
    view.snapshot().state_line                          how the run stands
    view.series().on_policy                             figures over rounds
    view.rollouts([7]).filter(Preset.FOOLED)            outputs, filtered
    view.lineage(task_id, made_round=7)                 a recycled task from its sources to the update

Everything is read from the folder when it is asked for; nothing holds a file open or a lock, so another process may
write the run meanwhile. Errors are `RunFolderError`, one sentence for a person.
"""

from spark_kernel.evaluate.judge_metrics import CalibrationBin
from workbench.views.arms import Arm, ArmPoint, ArmRow
from workbench.views.chains import TRANSITIONS, Alternative, Chain, ChainStep, SelfCorrection, self_correction
from workbench.views.comparison import ComparisonRow, RunPoint, RunsComparison, SettingRow, compare
from workbench.views.funnel import Funnel, FunnelStep
from workbench.views.headline import HeadlineFigure
from workbench.views.judge import JudgeDetail, JudgeLine, judge_of_evaluation, judge_of_round
from workbench.views.lines import Line
from workbench.views.problem_pairs import Outcome, ProblemPair, ProblemPairs, problem_pairs
from workbench.views.recycled import AnswersAt, Lineage, Output, RecycledRow, SourceAnswer
from workbench.views.rollout_detail import RolloutDetail, Sibling, Token
from workbench.views.rollouts import COLUMNS, Preset, RolloutTable
from workbench.views.run_view import RunView
from workbench.views.series import RoundSeries
from workbench.views.snapshot import CheckpointRow, Difference, RunSnapshot
from workbench.views.task_rows import ImageView
from workbench.views.verdicts import Verdict

__all__ = [
    "COLUMNS",
    "TRANSITIONS",
    "Alternative",
    "AnswersAt",
    "Arm",
    "ArmPoint",
    "ArmRow",
    "CalibrationBin",
    "Chain",
    "ChainStep",
    "CheckpointRow",
    "ComparisonRow",
    "Difference",
    "Funnel",
    "FunnelStep",
    "HeadlineFigure",
    "ImageView",
    "JudgeDetail",
    "JudgeLine",
    "Line",
    "Lineage",
    "Outcome",
    "Output",
    "Preset",
    "ProblemPair",
    "ProblemPairs",
    "RecycledRow",
    "RolloutDetail",
    "RolloutTable",
    "RoundSeries",
    "RunPoint",
    "RunSnapshot",
    "RunView",
    "RunsComparison",
    "SelfCorrection",
    "SettingRow",
    "Sibling",
    "SourceAnswer",
    "Token",
    "Verdict",
    "compare",
    "judge_of_evaluation",
    "judge_of_round",
    "problem_pairs",
    "self_correction",
]
