"""The units, by systemd's own reading of them, and by the command lines that they run."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

UNITS = Path(__file__).resolve().parents[2] / "contrib" / "systemd"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")
def test_systemd_has_nothing_to_say(tmp_path):
    # The program is where this Python is, not where a package would put it.
    for unit in UNITS.iterdir():
        (tmp_path / unit.name).write_text(
            unit.read_text().replace("/usr/bin/secondsight", f"{sys.executable} -m secondsight")
        )
    (tmp_path / "secondsight-collapse@.service").rename(tmp_path / "secondsight-collapse@a-b.service")
    names = [str(each) for each in sorted(tmp_path.iterdir())]
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", *names], capture_output=True, text=True)
    ours = [line for line in done.stderr.splitlines() if "secondsight" in line]
    assert ours == []


def test_the_options_that_they_use_are_there():
    import typer

    from secondsight.cli import collapse, export

    for unit, module in (("secondsight-export.service", export), ("secondsight-collapse@.service", collapse)):
        line = re.search(r"^ExecStart=(.*)$", (UNITS / unit).read_text(), re.M)[1]
        words = shlex.split(line)
        known = {name for option in typer.main.get_command(module.app).params for name in option.opts}
        assert {word for word in words if word.startswith("--")} <= known
