"""The errors a user can meet, and the exit code each one means.

Every refusal is one line that says what is wrong, where, and how to mend it. The command line prints
that line and leaves with the class's ``exit_code``; nothing of ours ever shows a traceback for bad input.
"""

from __future__ import annotations


class SecondSightError(Exception):
    """Base of every error this package raises on purpose; ``exit_code`` 1 is a failure."""

    exit_code = 1

    def lines(self) -> list[str]:
        """What is told: one line, whatever line ends are in the names in it."""
        return [str(self)]


class UsageError(SecondSightError):
    """The request itself is wrong (an option, a limit, a verb, a name); exit code 2."""

    exit_code = 2


class InputError(UsageError):
    """A file's content is wrong; the text names the file and the position in it; exit code 2."""

    def __init__(self, source: str, where: str, problem: str) -> None:
        """*source*: file or stream name; *where*: ``line 3``, ``byte 128``, ``steps[2].pages``; *problem*: what and the mend."""
        self.source, self.where, self.problem = source, where, problem
        super().__init__(f"{source}: {where}: {problem}" if where else f"{source}: {problem}")


class MissingDependency(SecondSightError):
    """A program, a Python package, a kernel feature or a permission that the verb needs is not there."""


class TargetGone(SecondSightError):
    """The process that was being read or collapsed has exited."""
