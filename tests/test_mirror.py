"""tests/ mirrors src/, or tests/README.md says which tests drive a module."""

import re
from pathlib import Path

HERE = Path(__file__).resolve().parent
SOURCE = HERE.parent / "src" / "secondsight"
ROW = re.compile(r"^\| (?:`([\w/]+)/`)? ?\| (.+) \| (.+) \|$", re.MULTILINE)


def listed():
    """{module: the test files its row names}, by path below src/secondsight without its suffix."""
    out = {}
    for package, modules, tests in ROW.findall((HERE / "README.md").read_text()):
        for name in re.findall(r"`(\w+)`", modules):
            out[f"{package}/{name}".lstrip("/")] = re.findall(r"`([\w/.]+)`", tests)
    return out


def modules():
    for path in sorted(SOURCE.rglob("*.py")):
        if path.name != "__init__.py":
            yield str(path.relative_to(SOURCE).with_suffix(""))


def has_its_file(module):
    folder, _, name = module.rpartition("/")
    return (HERE / folder / f"test_{name}.py").exists()


def test_every_module_has_its_file_or_its_row():
    rows = listed()
    assert [m for m in modules() if not has_its_file(m) and m not in rows] == []


def test_every_row_is_of_a_module_without_a_file():
    there = set(modules())
    assert [m for m in listed() if m not in there or has_its_file(m)] == []


def test_the_tests_that_rows_name_exist():
    missing = [(m, t) for m, tests in listed().items() for t in tests if not (HERE / t).exists()]
    assert missing == [] and all(listed().values())
