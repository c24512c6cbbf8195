"""``python -m secondsight`` is the command."""

import subprocess
import sys

import pytest

from secondsight.cli.commands import overview


@pytest.mark.parametrize(("argv", "code"), [(["--help"], 0), (["nonesuch"], 2)])
def test_the_module_is_the_command(argv, code):
    done = subprocess.run(
        [sys.executable, "-m", "secondsight", *argv], capture_output=True, text=True, check=False
    )
    assert done.returncode == code
    assert done.stdout == (f"{overview()}\n" if code == 0 else "")
    assert done.stderr == (
        "" if code == 0 else "secondsight: No such command 'nonesuch'. (secondsight --help)\n"
    )
