"""The fuzzer itself runs: a few mutations of every reader, none of which finds anything."""

import subprocess
import sys
from pathlib import Path

FUZZ = Path(__file__).with_name("fuzz.py")


def test_every_reader_is_mutated_a_little(tmp_path):
    ended = subprocess.run(
        [sys.executable, str(FUZZ), "--runs", "60", "--seed", "7"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert not list(tmp_path.glob("fuzz-*"))
