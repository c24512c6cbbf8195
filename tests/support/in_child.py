"""A test's body in a Python of its own: it may take over a signal, map what it likes, or crash."""

import subprocess
import sys
from collections.abc import Callable
from inspect import getsourcefile
from pathlib import Path

CHILD = """
import importlib.util, os, sys
sys.path.insert(0, sys.argv[3])
spec = importlib.util.spec_from_file_location("bodies", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
sys.exit(0 if getattr(module, sys.argv[2])() else 3)
"""


def in_child(body: Callable[[], bool]) -> int:
    """Run *body*, a function of a test's module; the child's exit code (3: it said no), or less a signal's number."""
    words = [getsourcefile(body), body.__name__, str(Path(__file__).parent.parent)]
    return subprocess.run([sys.executable, "-c", CHILD, *words]).returncode
