"""The line that says how far the work is."""

import sys

import pytest

from secondsight import native
from secondsight.cli.options import Progress


@pytest.fixture
def compiled():
    """A function that is compiled anew, and not kept."""
    from numba import njit

    return njit(lambda x: x + 1)


@pytest.mark.parametrize("terminal", [True, False])
def test_compiling_is_told_once_on_a_terminal(terminal, compiled, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    with Progress("replayed", compiles=True):
        compiled(1), compiled(1.0)
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("compiling") == terminal
    # And nothing is left of it, nor heard afterwards.
    assert captured.err.endswith("\r\x1b[K") == terminal
    compiled(1j)
    assert capsys.readouterr().err == ""


def test_what_is_compiled_already_says_nothing(compiled):
    heard = []
    compiled(1)
    with native.on_compile(lambda: heard.append(1)):
        compiled(2)
        assert heard == []
        compiled(2.0)
    assert heard == [1]
