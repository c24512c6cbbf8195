"""What is published: the sdist, the wheel that is made of it, and that wheel in an environment that never saw the source tree."""

import ast
import email
import importlib.metadata
import os
import re
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.wheel

ROOT = Path(__file__).parents[1]
#: where an import's name is not its distribution's
DISTRIBUTIONS = {"qemu": "qemu.qmp", "prometheus_client": "prometheus-client"}


def tracked(under="."):
    """The files of the repository under a folder, those that are new and not ignored included; skips where this is no clone."""
    if not (ROOT / ".git").exists():
        pytest.skip("no clone: what belongs to the repository is not known")
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", under]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    return {name for name in done.stdout.decode().split("\0") if name and (ROOT / name).exists()}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """(the sdist, the wheel made of it)."""
    pytest.importorskip("build", reason="python -m build is not installed: pip install -e '.[dev]'")
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", out, ROOT]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (sdist,), (wheel,) = out.glob("*.tar.gz"), out.glob("*.whl")
    return sdist, wheel


@pytest.fixture(scope="module")
def metadata(built):
    with zipfile.ZipFile(built[1]) as wheel:
        (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
        return email.message_from_bytes(wheel.read(name))


def test_the_sdist_is_the_repository(built):
    with tarfile.open(built[0]) as sdist:
        held = {name.partition("/")[2] for name in sdist.getnames() if not sdist.getmember(name).isdir()}
    assert held - tracked() == {"PKG-INFO"}
    assert {name for name in tracked() - held if not name.startswith(".")} == set()
    assert built[0].stat().st_size < 20e6


def test_the_wheel_is_the_package_and_nothing_else(built):
    with zipfile.ZipFile(built[1]) as wheel:
        names = set(wheel.namelist())
    package = {name for name in names if not re.match(r"secondsight-[\w.]+\.dist-info/", name)}
    assert package == {name.removeprefix("src/") for name in tracked("src/secondsight")}
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert built[1].stat().st_size < 5e6


def test_what_it_says_of_itself(metadata):
    import secondsight

    assert metadata["Name"] == "secondsight"
    assert metadata["Version"] == secondsight.__version__
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["License-Expression"] == "GPL-2.0-or-later"
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert set(metadata.get_all("Provides-Extra")) >= {"live", "lab", "export", "top", "cluster"}


def test_what_it_imports_it_asks_for(metadata):
    asked = {
        re.match(r"[\w.-]+", line)[0].lower().replace("_", "-") for line in metadata.get_all("Requires-Dist")
    }
    # What one of those brings by itself: numba its llvmlite, typer its click.
    brought = {"llvmlite": "numba", "click": "typer"}
    for path in (ROOT / "src/secondsight").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_bytes())):
            names = (
                [alias.name for alias in node.names] if isinstance(node, ast.Import)
                else [node.module] if isinstance(node, ast.ImportFrom) and node.module and not node.level else []
            )  # fmt: skip
            for name in {each.split(".")[0] for each in names} - sys.stdlib_module_names - {"secondsight"}:
                wanted = DISTRIBUTIONS.get(name, name).lower().replace("_", "-")
                assert brought.get(wanted, wanted) in asked, f"{path}: {name}"


def test_the_readme_is_rendered(built):
    pytest.importorskip("twine", reason="twine is not installed: pip install -e '.[dev]'")
    done = subprocess.run(
        [sys.executable, "-m", "twine", "check", "--strict", *built], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    from readme_renderer import markdown

    page = markdown.render((ROOT / "README.md").read_text())
    assert page is not None
    # A heading or a table that is not one stays as its signs.
    text = re.sub(r"<pre.*?</pre>", "", page, flags=re.S)
    assert re.search(r"<h1[^>]*>SecondSight", page) and "<table>" in page
    assert not re.search(r"^\s*(#+ |\|[- |]+\|$)|\*\*\w|\]\(", text, re.M)


@pytest.fixture(scope="module")
def installed(built, tmp_path_factory):
    """The ``bin`` of an environment that holds the wheel, and beside it the dependencies that are installed here."""
    home = tmp_path_factory.mktemp("fresh")
    venv.create(home / "env", with_pip=False)
    python = home / "env/bin/python"
    site = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    pip = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        python,
        "install",
        "-q",
        "--no-deps",
        "--no-index",
        built[1],
    ]
    done = subprocess.run(pip, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    # A line of a .pth names a folder; the .pth in it, of an editable install, is not read.
    ours = importlib.metadata.distribution("numpy").locate_file("")
    (Path(site) / "dependencies.pth").write_text(f"{ours}\n")
    return home / "env/bin"


def run(installed, *words):
    # Neither the working directory nor a variable leads to the source tree.
    known = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        [installed / words[0], *words[1:]], capture_output=True, text=True, cwd=installed.parent, env=known
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_runs_from_the_wheel(installed, tmp_path):
    where = run(installed, "python", "-c", "import secondsight; print(secondsight.__file__)")
    assert Path(where.strip()).is_relative_to(installed.parent)
    assert "secondsight 0" in run(installed, "secondsight", "--version")
    assert "compare" in run(installed, "secondsight", "--help")
    assert "7.2" in run(installed, "secondsight", "rules")
    assert "resident" in run(installed, "secondsight", "top", "--once", "--columns", "pid,name,resident")
    # The page's parts, the scenarios' schema and the tables of policies are files of the package, or found by its metadata.
    assert "khugepaged:" in run(installed, "secondsight", "compare", "--policies")
    recording, page = tmp_path / "host.parquet", tmp_path / "host.html"
    run(installed, "secondsight", "top", "--record", recording, "--once", "--columns", "pid,resident")
    run(installed, "secondsight", "report", recording, "-o", page)
    assert "<style>:root" in page.read_text()


def test_every_module_can_be_imported(installed):
    # The agent's and the examples of a guest run there alone.
    program = """
import importlib, pkgutil, secondsight
for each in pkgutil.walk_packages(secondsight.__path__, "secondsight."):
    if ".agent" not in each.name and not each.name.endswith("__main__"):
        importlib.import_module(each.name)
        print(each.name)
"""
    assert len(run(installed, "python", "-c", program).split()) > 250
