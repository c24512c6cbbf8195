"""Every verb, on names that hold escape sequences: none reaches the terminal raw; JSON, CSV and pages hold them whole or escaped."""

import csv
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from secondsight.cli import main
from secondsight.cli.commands import COMMANDS
from secondsight.trace import Provenance, Space, TraceWriter
from support.events import GR, trace

HOSTILE = "a\x1b]0;title\x07[bold]\x9b31m\u202e\nb"
#: what may stand in an answer beside text
ALLOWED = "\n"
TARGET = """
import ctypes, mmap, os, sys
name = sys.argv[1]
ctypes.CDLL(None).prctl(15, b"\\x1b[31mred\\n<b>", 0, 0, 0)  # PR_SET_NAME
fd = os.memfd_create(name)
os.ftruncate(fd, 4 << 21)
memory = mmap.mmap(fd, 4 << 21)
memory[:] = b"1" * (4 << 21)
print("ready", flush=True)
sys.stdin.read()
"""


def raw(text):
    """The characters of *text* that a terminal would obey."""
    return sorted({each for each in text if not each.isprintable() and each not in ALLOWED})


def run(capsys, *argv):
    code = 0
    try:
        main([str(word) for word in argv])
    except SystemExit as end:
        code = end.code or 0
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture(scope="module")
def process():
    with subprocess.Popen(
        [sys.executable, "-c", TARGET, HOSTILE.replace("\n", "")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as child:
        child.stdout.readline()
        yield child.pid
        child.kill()


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A trace whose provenance, space and file are called so."""
    columns = trace([(second, 0, 4, 0, GR) for second in range(60)], ["vm"]).columns
    path = tmp_path_factory.mktemp("traces") / f"{HOSTILE}.parquet"
    provenance = Provenance(
        source=HOSTILE, command=[HOSTILE], spaces=[Space(id=0, name=HOSTILE, type="vm")], unseen=[HOSTILE], tool=HOSTILE,
        notes=[HOSTILE], dropped={HOSTILE: 3},
    )  # fmt: skip
    with TraceWriter(path, provenance) as out:
        out.append(*(columns[name] for name in ("time", "space", "address", "kind")))
    return path


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    "words", [(HOSTILE,), (f"--{HOSTILE}",), (f"{HOSTILE}.parquet", HOSTILE), ("--json", HOSTILE)]
)
def test_a_wrong_word_is_told_escaped(command, words, capsys):
    code, out, err = run(capsys, command, *words)
    assert not raw(out) and not raw(err)
    # A line of doctor's or of a listing is one of ours; what was refused is told in one.
    assert code == 0 or err.count("\n") <= 1 or "--help" in err


@pytest.mark.skipif(
    not Path("/sys/kernel/mm/transparent_hugepage/enabled").exists(), reason="this kernel has no THP"
)
class TestProcess:
    @pytest.mark.parametrize("words", [("explain", "--all"), ("explain",), ("collapse", "--dry-run")])
    def test_verbs_that_read_it(self, process, words, capsys):
        verb, *rest = words
        code, out, err = run(capsys, verb, "--pid", process, "--procfs", *rest)
        assert code == 0, err
        assert not raw(out) and not raw(err)
        if verb == "explain":
            assert "\\x1b[31mred" in out and "\\x1b]0;title\\x07" in out

    def test_a_snapshot_of_it(self, process, tmp_path, capsys):
        path = tmp_path / "s.npz"
        code, out, err = run(capsys, "snapshot", "--pid", process, "-o", path, "--procfs")
        assert code == 0 and not raw(out) and "\\x1b[31mred" in out, err
        page = tmp_path / "page.html"
        code, out, _ = run(capsys, "explain", path, "--json", "--report", page)
        answer = json.loads(out)
        assert code == 0 and any("\x1b]0;title\x07" in mapping["name"] for mapping in answer["mappings"])
        assert answer["name"].startswith("\x1b[31mred")
        assert not raw(page.read_text())

    @pytest.mark.skipif(os.geteuid() != 0, reason="tracing needs root")
    def test_watching_it(self, process, capsys):
        _, out, err = run(capsys, "watch", "--pid", process, "--for", "300ms")
        assert not raw(out) and not raw(err)

    def test_recording_it(self, process, tmp_path, capsys):
        _, out, err = run(capsys, "record", "pid", process, "-o", tmp_path / "t.parquet", "--for", "300ms",
                          "--interval", "0.1", "--procfs", "--no-damon")  # fmt: skip
        assert not raw(out) and not raw(err)


def test_a_trace_is_looked_into(recorded, tmp_path, capsys):
    code, out, err = run(capsys, "trace", "info", recorded)
    assert code == 0 and not raw(out) and not raw(err)
    assert out.count("\\x1b]0;title\\x07[bold]\\x9b31m\\u202e\\nb") >= 6
    _, out, _ = run(capsys, "trace", "info", recorded, "--json")
    assert json.loads(out)["provenance"]["notes"] == [HOSTILE]
    for verb in ("cut", "recover"):
        code, out, err = run(capsys, "trace", verb, recorded, "-o", tmp_path / f"{verb}{HOSTILE}.parquet")
        assert code == 0 and not raw(out) and not raw(err)


def test_a_trace_is_replayed_and_compared(recorded, tmp_path, capsys):
    code, out, err = run(capsys, "replay", recorded, "-r", "6.1")
    assert code == 0 and not raw(out) and not raw(err)
    table = tmp_path / "t.csv"
    code, out, err = run(
        capsys, "compare", recorded, "-p", "never", "-p", "khugepaged", "-r", "6.1", "--csv", table
    )
    assert code == 0 and not raw(out) and not raw(err)
    head, _, rest = table.read_text().partition("\n")
    assert head.startswith("# ") and json.loads(head[2:])
    rows = list(csv.DictReader(io.StringIO(rest)))
    assert [row["policy"] for row in rows] == ["never", "khugepaged"]


def test_a_scenario_is_run(tmp_path, capsys):
    text = Path("examples/scenarios/guest-only-npt.toml")
    text = (Path(__file__).parents[2] / text).read_text()
    escaped = json.dumps(HOSTILE)
    text = re.sub(r"^title = .*$", lambda _: f"title = {escaped}", text, flags=re.M)
    path = tmp_path / f"{HOSTILE}.toml"
    path.write_text(text)
    for verb in ("run", "check"):
        code, out, err = run(capsys, "scenario", verb, path)
        assert code in (0, 1) and not raw(out) and not raw(err)


def test_what_cannot_be_read_is_told_escaped(tmp_path, capsys):
    path = tmp_path / HOSTILE
    path.write_bytes(b"\x1b[31m nothing that anyone reads \x1b[0m\n" * 3)
    for words in (
        ("trace", "info", path), ("replay", path), ("compare", path), ("explain", path), ("scenario", "run", path),
        ("convert", path, "-o", tmp_path / "o.parquet", "--format", "lackey"), ("sweep", path, "-o", tmp_path / "o"),
    ):  # fmt: skip
        code, out, err = run(capsys, *words)
        assert code != 0 and not raw(out) and not raw(err), words
        assert err.count("\n") == 1, err
