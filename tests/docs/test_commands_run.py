"""Every command line that the documents show is run, or stands below with the reason why it is not.

In a directory of their own, with the files that they name (``support/documents.py``). What needs root, other programs or long runs in the
tier *software*, what needs a booted kernel in the tier *kernel*. ``--pid`` is given a process of ours.
"""

from __future__ import annotations

import io
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import redirect_stderr, redirect_stdout
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

import pytest

from secondsight.cli import main
from secondsight.errors import SecondSightError
from support import command_lines, documents

ROOT = documents.ROOT
FAST, SOFTWARE, KERNEL = "fast", "software", "kernel"
#: Ended as its page says, by an interrupt: after some seconds.
UNTIL_INTERRUPT = "until an interrupt"


class Shown(NamedTuple):
    """A command line and where it stands."""

    page: Path
    line: int
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


class Rule(NamedTuple):
    """What becomes of the command lines that *pattern* matches: the tier in which they run, or why none runs them."""

    pattern: str
    tier: str
    why: str = ""


#: The first that matches counts.
PLACES = (
    # A form to fill in, not a command: `lab score --kept FILE…`.
    Rule("*FILE…*", "", "a form; a whole command of the kind stands elsewhere"),
    Rule("*ARGUMENTS*", "", "a form"),
    Rule("*OPTIONS…*", "", "a form"),
    Rule("*arguments…*", "", "a form"),
    Rule("* -- CMD", "", "a form"),
    Rule("convert IN *", "", "a form"),
    Rule("trace cut ho*", "", "of an hour's recordings, as their page tells how they were made; `trace cut` is run elsewhere"),
    Rule("trace merge host-*", "", "of an hour's recordings; tests/trace/test_merge.py merges small ones"),
    Rule("trace info FILE", "", "a form; `trace info examples/traces/redis-vm.parquet` is run"),
    Rule("trace recover T.recording *", "", "a form; tests/cli/test_trace.py recovers torn recordings"),
    Rule("record pid --pid 4711 -o S", "", "a form"),
    Rule("calibrate --show FILE", "", "a form; tests/cli/test_calibrate.py shows a calibration"),
    Rule("compare --explain FIGURE", "", "a form; `compare --explain \"wasted passes\"` is run"),
    Rule("lab * --kernel PATH/*", "", "a form: a kernel of the reader's own"),
    Rule("rules --diff 6.12 6.15", "", "an example of a profile that is yet to be added"),
    Rule("lab fetch *", "", "fetches kernels from Debian's archive: network; tests/lab/test_fetch.py has an archive of its own"),
    Rule("lab build *", "", "compiles a kernel: network and half an hour; tests/lab/test_build.py builds with a small tree"),
    Rule("lab diff * 7.3+patch *", KERNEL, "where 7.3+patch was built"),
    Rule("lab score --mutants *", "", "changes the source for minutes; tests/lab/test_mutants.py runs small samples"),
    Rule("lab score --kept *", "", "minutes: every rule; tests/lab/test_score.py scores two scenarios"),
    Rule("lab hold *", "", "minutes: every kept answer; tests/lab/test_answers.py holds them"),
    Rule("lab *", KERNEL),
    Rule("calibrate", "", "measures this machine for minutes; tests/predict/test_calibrate.py runs it with a short suite"),
    Rule("record vm *", "", "boots the reader's VM for minutes; tests/trace/record/test_vm.py records a small one"),
    Rule("record *", SOFTWARE, "an emulator, or a minute"),
    Rule("verify * --predicted *", "", "compares with a prediction, which needs a calibration; tests/cli/test_verify.py does"),
    Rule("verify *", SOFTWARE, "looks for ten seconds"),
    Rule("sweep * --scheduler *", "", "a cluster; tests/whatif/test_cluster.py has one of two workers"),
    Rule("sweep *", SOFTWARE, "92 rows, which take a while"),
    Rule("compare fleet *", SOFTWARE, "the directory of that sweep"),
    Rule("compare examples/traces/redis-vm.parquet * --report *", SOFTWARE, "7 s and 15 s"),
    Rule("explain * --vmcore *", "", "a dump; tests/live/test_kernel_outside.py makes one"),
    Rule("explain * --qmp *", "", "a VM with a socket; tests/live/test_kernel_outside.py boots one"),
    Rule("collapse --cgroup *", "", "a memory cgroup of one's own; tests/live/test_kernel_limits.py makes them"),
    Rule("collapse * --certain *", "", "chooses nothing where use is unknown; tests/live/test_kernel_collapse.py"),
    Rule("collapse *", SOFTWARE, "root"),
    Rule("watch *", SOFTWARE, UNTIL_INTERRUPT),
    Rule("top --explain", FAST),
    Rule("top * --mark *", FAST),
    Rule("top * --record *", SOFTWARE, UNTIL_INTERRUPT),
    Rule("top*", SOFTWARE, "reads every process"),
    Rule("host*", SOFTWARE, "reads every process"),
    Rule("export *", SOFTWARE, "reads every process"),
    Rule("*", FAST),
)  # fmt: skip
#: Run as shown, but shorter.
SHORTER = {"--random": "4", "--for": "3s", "--interval": "2"}
SHOWN = [
    Shown(page, line, tuple(words))
    for page in documents.PAGES
    for lines in (command_lines.lines_of, command_lines.inline_of)
    for line, words in lines(page)
]


def place(shown: Shown) -> Rule:
    """What becomes of *shown*."""
    text = " ".join(shown.words)
    return next(rule for rule in PLACES if fnmatchcase(text, rule.pattern))


def of(tier: str) -> list[Shown]:
    """The command lines that run in *tier*, each once."""
    return list({shown.words: shown for shown in reversed(SHOWN) if place(shown).tier == tier}.values())[::-1]


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """The files that every command line starts from."""
    directory = tmp_path_factory.mktemp("documents")
    documents.fill(directory)
    return directory


@pytest.fixture(scope="module")
def target(filled):
    """The id of a process of ours."""
    with documents.process(filled) as child:
        yield child.pid
        child.kill()


@pytest.fixture
def where(filled, tmp_path):
    """The files of one command line, which may write over them."""
    directory = tmp_path / "here"
    shutil.copytree(filled, directory, symlinks=True)
    (directory / "served").unlink()
    (directory / "served").symlink_to(filled / "served")
    return directory


@pytest.fixture
def run(where, target, monkeypatch):
    """Run a command line in the directory of the files; what it prints, and tells on the side. It must succeed."""
    monkeypatch.chdir(where)
    monkeypatch.setenv("XDG_DATA_HOME", str(where / "data"))
    monkeypatch.setenv("COLUMNS", "200")

    def ran(shown: Shown) -> str:
        out, err = io.StringIO(), io.StringIO()
        with pytest.raises(SystemExit) as end, redirect_stdout(out), redirect_stderr(err):
            main(given(shown.words, target, where))
        assert not end.value.code, f"{shown}: {err.getvalue()}"
        return out.getvalue() + err.getvalue()

    return ran


def given(words: tuple[str, ...], target: int, where: Path) -> list[str]:
    """*words* with our process for the page's, our directory for the system's, and the shorter values."""
    made = list(words)
    for at, word in enumerate(words):
        if at and words[at - 1] == "--pid":
            made[at] = str(target)
        elif at and words[at - 1] in SHORTER:
            made[at] = SHORTER[words[at - 1]]
        elif word.startswith("/var/lib/"):
            made[at] = str(where / Path(word).name)
    return made


def test_every_rule_is_needed():
    met = {place(shown) for shown in SHOWN}
    assert [rule.pattern for rule in PLACES if rule not in met] == []
    assert {word for shown in SHOWN for word in shown.words} >= set(SHORTER)


def test_each_command_runs_or_has_a_reason():
    assert [str(shown) for shown in SHOWN if not place(shown).tier and not place(shown).why] == []
    assert len(of(FAST)) > 15 and len(of(SOFTWARE)) > 15 and len(of(KERNEL)) > 10


def written(where: Path, filled: Path) -> list[str]:
    """The files in *where* that were not in *filled*, or are not what they were."""
    return [
        path.name
        for path in where.iterdir()
        if not (old := filled / path.name).exists()
        or (path.is_file() and path.read_bytes() != old.read_bytes())
    ]


def output_of(shown: Shown) -> list[str]:
    """What its page shows behind a command line, in the same block: the lines up to the next command, a blank or an omission."""
    lines = shown.page.read_text().splitlines()[shown.line :]
    first = next(iter(lines), "")
    indent = len(first) - len(first.lstrip())
    said = []
    for line in lines:
        if not line.startswith(" " * max(indent, 4)) or re.match(r"\s*(\$ |secondsight |-[pr] )", line):
            break
        said.append(line.strip())
    return [line for line in said if line != "..."]


@pytest.mark.parametrize("shown", of(FAST), ids=str)
def test_a_command(shown, run, where, filled):
    out = run(shown)
    assert out.strip() or written(where, filled)
    for line in output_of(shown):
        assert line in out


def test_the_demo(run):
    """README's table is what `make demo` prints."""
    recipe = (ROOT / "Makefile").read_text()
    (profiles,) = re.findall(r"^RULES := (.*)$", recipe, re.M)
    (command,) = re.findall(r"/secondsight (replay .*)$", recipe, re.M)
    command = re.sub(r"\$\(RULES:.*?\)", " ".join(f"-r {each}" for each in profiles.split()), command)
    (Path.cwd() / "out").mkdir()
    out = run(Shown(ROOT / "Makefile", 1, tuple(shlex.split(command))))
    assert (Path.cwd() / "out" / "redis-vm.html").exists()
    readme = (ROOT / "README.md").read_text()
    table = readme[readme.index("    collapses ") :].split("\n\n")[0].splitlines()
    rows = [line.split() for line in out.splitlines()]
    assert len(table) == 6 and all(line.split() in rows for line in table)


def test_the_figures_of_the_tutorial(run):
    """What its sentences say of the recording, and of the curve over max_ptes_none."""
    page = (ROOT / "docs" / "tutorial.md").read_text()
    mine = [shown for shown in of(FAST) if shown.page.name == "tutorial.md"]
    info = run(next(shown for shown in mine if shown.words[:2] == ("trace", "info")))
    accesses, blocks = re.findall(r"([\d,]+) accesses to [\d,]+ pages in (\d+) blocks", info)[0]
    assert f"{int(accesses.replace(',', '')) // 10**6:,} million accesses to {blocks} blocks of 2 MiB" in page
    out = run(next(shown for shown in mine if "--vary" in shown.words))
    curve = {
        line.split(" at ")[0]: dict(zip(line.split("=")[1].split(), values, strict=True))
        for line, under in zip(out.splitlines(), out.splitlines()[1:], strict=False)
        if " at max_ptes_none =" in line
        for values in [re.split(r"  +", under.strip())[1:]]
    }
    assert curve["bloat"]["448"] == "7.9 MiB" and "up to 448 the bloat stays below 8 MiB" in page
    assert round(float(curve["coverage"]["448"].split()[0])) == 17 and "17 % of the accesses" in page
    assert curve["coverage"]["511"] == "90.5 %" and curve["bloat"]["511"] == "21.2 MiB"
    assert "at 511 it is 90 %, for 21 MiB" in page


@pytest.mark.software
@pytest.mark.skipif(os.geteuid() != 0, reason="others' processes take root")
@pytest.mark.parametrize("shown", [s for s in of(SOFTWARE) if place(s).why != UNTIL_INTERRUPT], ids=str)
def test_a_command_with_other_programs(shown, run, where, filled):
    if shown.words[0] == "record" and shown.words[1] == "run" and not shutil.which("qemu-x86_64"):
        pytest.skip("no qemu-user on this machine")
    if "--vm" in shown.words:
        pytest.skip("no VM of that name here")
    if shown.words[:2] == ("compare", "fleet"):
        run(next(each for each in SHOWN if each.words[0] == "sweep"))
    assert run(shown).strip() or written(where, filled)


@pytest.mark.software
@pytest.mark.skipif(os.geteuid() != 0, reason="others' processes take root")
@pytest.mark.parametrize("shown", [s for s in of(SOFTWARE) if place(s).why == UNTIL_INTERRUPT], ids=str)
def test_a_command_until_an_interrupt(shown, where, target):
    if "--append" not in shown.words:
        for kept in where.glob("host.parquet*"):
            kept.unlink()
    else:
        documents.host_recordings.record(where / "host.parquet")
    child = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "from secondsight.cli import main; main()",
            *given(shown.words, target, where),
        ],
        cwd=where,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    watchdog = threading.Timer(60, child.kill)
    watchdog.start()
    time.sleep(8)
    child.send_signal(signal.SIGINT)
    out, err = child.communicate()
    watchdog.cancel()
    assert child.returncode in (0, 130) and "Traceback" not in err, err
    assert "decisions in" in out + err or (where / "host.parquet").exists(), out + err


@pytest.mark.kernel
@pytest.mark.parametrize("shown", of(KERNEL), ids=str)
def test_a_command_of_the_lab(shown, run, monkeypatch):
    from secondsight.lab import kernels

    names = (
        list(shown.words[2:4])
        if shown.words[1] == "diff"
        else [shown.words[shown.words.index("--kernel") + 1]]
    )
    for name in names:
        try:
            kernels.resolve(name)
        except SecondSightError as error:
            pytest.skip(f"{name}: {error}")
    # The patch's own kinds of difference want more than four scenarios to be seen: without the file that demands them.
    words = [w for w in shown.words if w != "--expect" and "expect" not in w]
    out = run(shown._replace(words=tuple(words)))
    assert out
    if "contrib/kernel/guest_faults.py" in words:
        shows = (ROOT / "docs" / "kernel-developers.md").read_text()
        counted = [
            line.partition("; the pass took")[0] for line in out.splitlines() if "; the pass took" in line
        ]
        assert len(counted) == 3 and all(f"    {line}\n" in shows for line in counted), out


def test_what_is_no_command_of_ours_is_there():
    """The targets of make, the tests and the benchmarks that the pages name."""
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.M))
    seen = 0
    for page in documents.PAGES:
        for line, text in command_lines.others_of(page):
            words = [word for word in shlex.split(text, comments=True) if "=" not in word]
            if words[0] == "make":
                assert words[1] in targets, f"{page.name}:{line}"
            for word in words[1:]:
                if word.startswith(("bench/", "tests/")):
                    assert (ROOT / word).exists(), f"{page.name}:{line}"
            seen += 1
    assert seen > 4
