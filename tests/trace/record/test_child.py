"""What is recorded ends with its recorder."""

import subprocess
import sys
import time
from pathlib import Path

RECORDER = """
import subprocess, time
from secondsight.trace.record.child import ends_with_us
child = subprocess.Popen(ends_with_us(["sleep", "600"]))
print(child.pid, flush=True)
time.sleep(600)
"""


def test_a_killed_recorder_leaves_nothing_running():
    with subprocess.Popen([sys.executable, "-c", RECORDER], stdout=subprocess.PIPE, text=True) as recorder:
        child = Path("/proc") / recorder.stdout.readline().strip()
        limit = time.monotonic() + 30
        while (child / "comm").read_text() != "sleep\n" and time.monotonic() < limit:
            time.sleep(0.01)
        recorder.kill()
    limit = time.monotonic() + 30
    while (
        child.exists() and "Z" not in (child / "stat").read_text().split(")")[1] and time.monotonic() < limit
    ):
        time.sleep(0.01)
    assert not child.exists() or "Z" in (child / "stat").read_text().split(")")[1]
