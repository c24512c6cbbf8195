"""What goes along to the guest: all that its agent imports, or no scenario gets an answer."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

import secondsight
from secondsight.lab.run import agent_files
from support.live_guest import GUESTS, SUPPORT, files

SOURCE = Path(secondsight.__file__).parent
MODULES = {
    ".".join(("secondsight", *path.relative_to(SOURCE).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in SOURCE.rglob("*.py")
}
AGENT = "secondsight.lab.agent"
#: What a guest's Python has beside its own library.
INSTALLED = {"numpy", "msgspec", "drgn"}
STAND_INS = {"numba.py", "writer.py", "recording.py"}
PROGRAMS = sorted(path.name for path in GUESTS.glob("*.py") if path.name not in STAND_INS)


def imports(source: str, everywhere: bool) -> set[str]:
    """The modules that *source* imports when it is imported itself, or *everywhere* in it; not for type checkers."""
    names: set[str] = set()
    todo: list[ast.AST] = [ast.parse(source)]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not everywhere:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        todo.extend(ast.iter_child_nodes(node))
    return names


def test_the_guest_has_all_that_its_agent_imports():
    """What the agent imports anywhere, and what that imports in turn when it is loaded."""
    sent = set(agent_files())
    todo = [name for name in MODULES if name.startswith(AGENT)]
    seen = set(todo)
    while todo:
        name = todo.pop()
        assert f"/app/{MODULES[name].relative_to(SOURCE.parent)}" in sent, name
        for each in imports(MODULES[name].read_text(), everywhere=name.startswith(AGENT)):
            if each in MODULES and each not in seen:
                seen.add(each)
                todo.append(each)
    assert "secondsight.live.read.kmem" in seen


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_guest_has_all_that_its_program_loads(program):
    """What the program and the live readers import anywhere, and what that imports in turn when it is loaded: nothing is missing there."""
    sent = {
        name.removeprefix("/app/"): file if isinstance(file, bytes) else file.read_bytes()
        for name, file in files(program).items()
        if name.endswith(".py")
    }
    seen, todo = {"main"}, ["main"]
    while todo:
        name = todo.pop()
        place = name.replace(".", "/")
        source = sent.get(f"{place}.py", sent.get(f"{place}/__init__.py"))
        if source is None:
            continue
        for each in imports(
            source.decode(), everywhere=name == "main" or name.startswith("secondsight.live")
        ):
            package = each.partition(".")[0]
            there = package in sys.stdlib_module_names or package in INSTALLED or f"{package}.py" in sent
            # A test sends some of tests/support along.
            assert there or package == "secondsight" or (SUPPORT / f"{package}.py").exists(), (
                f"{name}: {each}"
            )
            if each not in seen:
                seen.add(each)
                todo.append(each)
    assert any(name.startswith("secondsight.") for name in seen)
