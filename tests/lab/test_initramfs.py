"""What a script for the guest brings along: all that it imports, found without running it."""

import importlib.metadata
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from secondsight.errors import MissingDependency
from secondsight.lab import initramfs
from secondsight.lab.run import agent_files

ROOT = Path(__file__).parents[2]
GUESTS = ROOT / "tests/support/guests"
SCRIPTS = [GUESTS / f"{name}.py" for name in ("fix", "outside", "verdicts")] + [
    ROOT / "bench/live_kernel_memory_guest.py"
]

# As the guest's Python: what went along, NumPy and the like, nothing else of ours. Of the script, only its imports run.
IMPORT_ALL = """
import ast, pathlib, sys
for folder in sys.argv[2:]:
    sys.path.append(folder)
main = pathlib.Path(sys.argv[1], "main.py")
tree = ast.parse(main.read_text())
tree.body = [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
sys.path.insert(0, sys.argv[1])
exec(compile(tree, main, "exec"), {})
ours = [module for name, module in sys.modules.items() if name.split(".")[0] == "secondsight"]
assert ours and all(module.__file__.startswith(sys.argv[1]) for module in ours), ours
"""


def laid_out(files, folder):
    """*files* as the guest finds them, under *folder*."""
    for path, content in files.items():
        there = folder / path.removeprefix("/app/")
        there.parent.mkdir(parents=True, exist_ok=True)
        there.write_bytes(content.read_bytes() if isinstance(content, Path) else content)
    return folder


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_guest_finds_all_that_its_script_imports(script, tmp_path):
    pytest.importorskip("drgn")
    beside = {f"/app/{path.name}": path for path in GUESTS.parent.glob("*.py")}
    app = laid_out(
        {**beside, **agent_files(), **initramfs.program(script), "/app/numba.py": GUESTS / "numba.py"},
        tmp_path,
    )
    site = {str(Path(__import__(name).__file__).parents[1]) for name in initramfs.PACKAGES}
    # -I -S: neither this installation's packages nor this folder, as in the guest.
    ran = subprocess.run(
        [sys.executable, "-I", "-S", "-c", IMPORT_ALL, str(app), *site],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr


def test_imports_are_followed_but_for_the_type_checkers(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import os\n"
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    from secondsight.lab import bochs\n"
        "else:\n    import secondsight.lab.wire\n"
        "def later():\n    from secondsight.bits import pte, pagemap as renamed\n"
        "from secondsight.errors import MissingDependency\n"
    )
    files = initramfs.program(script)
    assert sorted(files) == [
        "/app/main.py",
        "/app/secondsight/__init__.py",
        "/app/secondsight/bits/__init__.py",
        "/app/secondsight/bits/pagemap.py",
        "/app/secondsight/bits/pte.py",
        "/app/secondsight/errors.py",
        "/app/secondsight/geometry.py",
        "/app/secondsight/lab/__init__.py",
        "/app/secondsight/lab/wire.py",
    ]


def test_what_is_imported_by_an_import_is_brought_too(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("import secondsight.live.judge.view\n")
    files = initramfs.program(script)
    assert "/app/secondsight/native.py" in files and "/app/secondsight/geometry.py" in files


def test_a_module_that_is_not_there_is_named(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("import secondsight.nonesuch\n")
    with pytest.raises(MissingDependency, match=r"secondsight\.nonesuch"):
        initramfs.program(script)


def test_a_package_of_the_guests_that_is_not_installed_is_named_with_its_extra(tmp_path, monkeypatch):
    def distribution(name):
        if name == "drgn":
            raise importlib.metadata.PackageNotFoundError(name)

    still = tmp_path / "busybox"
    still.write_bytes(Path(sys.executable).read_bytes())
    monkeypatch.setattr(importlib.metadata, "distribution", distribution)
    monkeypatch.setattr(shutil, "which", lambda name: str(still))
    monkeypatch.setattr(initramfs.elf, "needed", lambda data: [])
    with pytest.raises(MissingDependency, match=r"needs drgn.*secondsight\[lab\]"):
        initramfs.ready()
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(MissingDependency, match="busybox-static"):
        initramfs.ready()


def test_an_archive_appears_whole_or_not_at_all(tmp_path, monkeypatch):
    """Written to the end it is there under its name; stopped in the middle nothing is left."""

    class Torn(initramfs.cpio.Writer):
        def close(self):
            raise KeyboardInterrupt

    class Modules:
        checks = False
        release = "9.9"

        def load_order(self, *names):
            return {"kvm": b"\x7fELF module"}

    with monkeypatch.context() as torn:
        torn.setattr(initramfs.cpio, "Writer", Torn)
        with pytest.raises(KeyboardInterrupt):
            initramfs.module_base(tmp_path, Modules(), lambda text: None)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]
    path = initramfs.module_base(tmp_path, Modules(), lambda text: None)
    assert {each.name for each in tmp_path.iterdir()} == {
        ".lock",
        path.name,
    } and b"kvm.ko" in path.read_bytes()
