"""What goes along to the guest: all that its agent imports, or no scenario gets an answer."""

from __future__ import annotations

import ast
from pathlib import Path

import secondsight
from secondsight.lab.run import agent_files

SOURCE = Path(secondsight.__file__).parent
MODULES = {
    ".".join(("secondsight", *path.relative_to(SOURCE).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in SOURCE.rglob("*.py")
}
AGENT = "secondsight.lab.agent"


def imports(path: Path, everywhere: bool) -> set[str]:
    """The modules of ours that the module at *path* imports when it is imported itself, or *everywhere* in it; not for type checkers."""
    names: set[str] = set()
    todo: list[ast.AST] = [ast.parse(path.read_text())]
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
    return {name for name in names if name.startswith("secondsight.")}


def test_the_guest_has_all_that_its_agent_imports():
    """What the agent imports anywhere, and what that imports in turn when it is loaded."""
    sent = set(agent_files())
    todo = [name for name in MODULES if name.startswith(AGENT)]
    seen = set(todo)
    while todo:
        name = todo.pop()
        assert f"/app/{MODULES[name].relative_to(SOURCE.parent)}" in sent, name
        for each in imports(MODULES[name], everywhere=name.startswith(AGENT)):
            if each in MODULES and each not in seen:
                seen.add(each)
                todo.append(each)
    assert "secondsight.live.read.kmem" in seen
