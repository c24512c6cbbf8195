"""Our commands, run as a user runs them, and what is told in one line."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

from secondsight.cli import main

SECONDSIGHT = [sys.executable, "-c", "from secondsight.cli import main; main()"]


def run(*argv: object, **how: Any) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own."""
    options = {"capture_output": True, "text": True, "check": False, "timeout": 120} | how
    finished: subprocess.CompletedProcess[str] = subprocess.run([*SECONDSIGHT, *map(str, argv)], **options)
    return finished


def one_line(finished: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    """It ended with *code*, and said why in a line that holds *words*."""
    assert finished.returncode == code, finished.stderr
    assert finished.stderr.startswith("secondsight") and finished.stderr.count("\n") == 1, finished.stderr
    assert all(word in finished.stderr for word in words), finished.stderr


def in_process(capsys: Any, *argv: object) -> tuple[int, str, str]:
    """The command in this process: its exit code, what it printed and what it said on standard error."""
    code: Any = 0
    try:
        main([str(word) for word in argv])
    except SystemExit as end:
        code = end.code or 0
    told = capsys.readouterr()
    assert "Traceback" not in told.err
    return code, told.out, told.err


def printed(capsys: Any, *argv: object) -> str:
    """What the command prints, which succeeds."""
    code, out, err = in_process(capsys, *argv)
    assert code == 0, err
    return out


def refused(capsys: Any, *argv: object, code: int = 2) -> str:
    """The line with which the command refuses what it was asked; it prints nothing."""
    left, out, err = in_process(capsys, *argv)
    assert (left, out) == (code, "") and err.count("\n") == 1 and err.startswith("secondsight"), (
        left,
        out,
        err,
    )
    return err
