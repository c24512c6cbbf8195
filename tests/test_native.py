"""Compiled functions are kept where that is possible, and work where it is not."""

import os
import subprocess
import sys
from pathlib import Path

from numba.core import caching

import secondsight
from secondsight.native import NATIVE, native


def doubled(x):
    return 2 * x


def test_where_nothing_can_be_written_functions_are_compiled_all_the_same(monkeypatch):
    monkeypatch.setattr(caching.CacheImpl, "_locator_classes", [])
    assert native(doubled)(21) == 42


def test_every_file_with_compiled_code_is_in_the_stamp():
    here = Path(secondsight.__file__).parent
    compiled = [
        path.relative_to(here)
        for path in here.rglob("*.py")
        # Who only listens to the compiler compiles nothing.
        if "secondsight.native import" in path.read_text().replace("secondsight.native import on_compile", "")
    ]
    assert len(compiled) > 20
    assert {path.parts[0] for path in compiled} <= set(NATIVE)


SLOW_TO_COMPILE = """
import sys
sys.path.insert(0, sys.argv[1])
from secondsight.native import native, on_compile
import compiled_by_two

compiled = []
print("ready", flush=True)
sys.stdin.readline()
with on_compile(lambda: compiled.append(1)):
    assert compiled_by_two.total(40) == 780 * 16
print(len(compiled))
"""


def test_of_processes_that_want_a_function_at_once_one_compiles_it(tmp_path):
    body = "\n".join("    for i in range(n): a += i" for _ in range(16))
    (tmp_path / "compiled_by_two.py").write_text(
        f"from secondsight.native import native\n@native\ndef total(n):\n    a = 0\n{body}\n    return a\n"
    )
    command = [sys.executable, "-c", SLOW_TO_COMPILE, str(tmp_path)]
    together = [
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "kept")},
        )
        for _ in range(3)
    ]
    for process in together:
        assert process.stdout.readline() == "ready\n"
    for process in together:
        process.stdin.write("go\n")
        process.stdin.flush()
    assert sorted(int(process.communicate()[0]) for process in together) == [0, 0, 1]
