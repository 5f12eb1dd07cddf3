"""The errors that the kernel raises on purpose. Each message is one sentence for a person: what, where, what to do."""

from __future__ import annotations

from collections.abc import Callable


class SparkError(Exception):
    """Base of every error that is meant to be read by a person; the command line shows it without a stack trace."""

    def _render_traceback_(self) -> list[str]:
        """What IPython shows in a notebook: the sentence alone (`%tb` shows the same; `__traceback__` is untouched)."""
        return [f"{type(self).__name__}: {' '.join(str(self).split())}"]


class InputError(SparkError):
    """Bad input: a configuration value, problem file, model folder or argument. Exit code 2."""


class ProblemError(InputError):
    """A problem record that cannot be used; says file, line and reason."""


class ModelError(InputError):
    """A model that cannot be found, loaded or used for this."""


class PhaseError(SparkError):
    """A trainer phase called out of order; says what is due."""


class StaleEngineError(SparkError):
    """An engine asked to sample for a policy version whose weights it does not hold."""


class EngineError(SparkError):
    """An engine that cannot go on, such as one whose servers are all down. The run can be resumed."""


class RunFolderError(SparkError):
    """A run folder that is missing, damaged, newer than this program, full, or written by someone else."""


class RunLockedError(RunFolderError):
    """Another process writes this run; says its pid and host."""


class NonFiniteError(SparkError):
    """A NaN or infinity in loss or gradient, found before the optimizer moved; names the rollouts involved."""


class Stopped(Exception):  # noqa: N818 - not an error: a request that was honoured
    """Raised at a safe point after a stop was asked for. Nothing is lost; the run can be resumed."""


StopCheck = Callable[[], None]
"""Called at safe points; raises `Stopped` when the user asked for a stop."""
