"""One name, one thing; tests drive public names; and every package has its place in the architecture page."""

import ast
import re
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "secondsight"


def test_no_class_name_stands_twice():
    """Nor do two that differ by an underscore alone."""
    places: dict[str, list[str]] = defaultdict(list)
    for file in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ClassDef):
                places[node.name.lstrip("_")].append(f"{file.relative_to(SOURCE)}:{node.lineno}")
    assert len(places) > 300, "the source was not found"
    assert {name: where for name, where in places.items() if len(where) > 1} == {}


def test_what_is_raised_is_said_in_one_spelling():
    """``:raises Error: when``, an error's kinds each on a line of its own."""
    fields, others = 0, []
    for file in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and (said := ast.get_docstring(node)):
                fields += len(re.findall(r"^:raises \w+(?:, \w+)*: ", said, flags=re.MULTILINE))
                if re.search(r"\bRaises\b|; raises |(?<!^):raises", said, flags=re.MULTILINE):
                    others.append(f"{file.relative_to(SOURCE)}:{node.lineno}")
    assert fields > 300 and others == []


def test_tests_import_public_names_alone():
    private = []
    for file in sorted((ROOT / "tests").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("secondsight"):
                private += [
                    f"{file.name}:{node.lineno} {each.name}"
                    for each in node.names
                    if re.match("_[^_]", each.name)
                ]
    assert private == []


#: What a named tuple and os call by an underscore, and Numba's one switch for where it may keep what it compiled.
OTHERS_NAMES = {"_asdict", "_fields", "_make", "_replace", "_exit", "_locator_classes"}


def test_tests_drive_public_names_alone() -> None:
    """No ``thing._name`` of another's, and none named in a string that a test replaces."""
    private = []
    for file in sorted((ROOT / "tests").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            name = ""
            if isinstance(node, ast.Attribute) and not (
                isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
            ):
                name = node.attr
            elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith((".setattr", ".delattr")):
                words = [each.value for each in node.args[:2] if isinstance(each, ast.Constant)]
                name = str(words[0]).rpartition(".")[2] if words else ""
            if re.match("_[^_]", name) and name not in OTHERS_NAMES:
                private.append(f"{file.name}:{node.lineno} {name}")
    assert private == []


def test_the_architecture_page_names_every_package():
    page = (ROOT / "docs" / "architecture.md").read_text()
    table = page.partition("| package | what it is | imports |\n")[2].partition("\n\n")[0]
    named = {name for row in table.splitlines()[1:] for name in re.findall(r"`(\w+/?)`", row.split("|")[1])}
    packages = {f"{file.parent.name}/" for file in SOURCE.glob("*/__init__.py")}
    modules = {file.stem for file in SOURCE.glob("*.py") if not file.stem.startswith("__")}
    assert named == packages | modules
