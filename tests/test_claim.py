"""One process at a time writes a file; a lock whose holder is gone is in nobody's way."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from secondsight.claim import Claim, is_locked
from secondsight.errors import UsageError

_HOLD = """
import sys, time
from pathlib import Path
from secondsight.claim import Claim
held = Claim(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(60)
"""


def test_a_second_claim_is_refused_until_the_first_is_over_however_it_ends(tmp_path) -> None:
    path = tmp_path / "t"
    other = subprocess.Popen([sys.executable, "-c", _HOLD, str(path)], stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None and other.stdout.readline() == "held\n"
    assert is_locked(path)
    with pytest.raises(UsageError, match="another process is recording into it; give another name"):
        Claim(path)
    other.send_signal(signal.SIGKILL)
    other.communicate()
    first = Claim(path)
    with pytest.raises(UsageError, match="another process is recording into it"):
        Claim(path)
    first.close()
    assert not is_locked(path)
    Claim(path).close()
    assert [each.name for each in tmp_path.iterdir()] == ["t"]


def test_a_file_that_is_written_anew_stays_claimed(tmp_path) -> None:
    path, fresh = tmp_path / "t", tmp_path / "fresh"
    claim = Claim(path)
    with fresh.open("wb") as file:
        claim.move(file.fileno())
    fresh.replace(path)
    with pytest.raises(UsageError, match="another process"):
        Claim(path)
    claim.close()
    Claim(path).close()


def test_a_device_is_nobodys(tmp_path) -> None:
    from pathlib import Path

    with_nobody = Claim(Path("/dev/null"))
    Claim(Path("/dev/null")).close()
    with_nobody.close()
    assert not is_locked(tmp_path / "none")
