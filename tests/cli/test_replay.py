"""The replay command: its table, its pictures, its refusals."""

import json
import re
import xml.etree.ElementTree as ET
from typing import get_args

import pytest

from secondsight.cli import main
from secondsight.glossary import NOTIFIER_METHODS
from secondsight.mm.mmu_notifier import Op
from secondsight.trace import Provenance, Space, TraceWriter
from support.events import GR, GW, trace


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A VM of two blocks for 60 s: the guest uses page 0 of the first all the time, the second only at 1 s."""
    rows = [(s, 0, 4, 0, GR) for s in range(0, 60, 5)] + [(1, 0, 9, 3, GW)]
    columns = trace(sorted(rows), ["vm"]).columns
    path = tmp_path_factory.mktemp("traces") / "vm.parquet"
    with TraceWriter(path, Provenance(source="test", spaces=[Space(id=0, name="vm", type="vm")])) as out:
        out.append(*(columns[name] for name in ("time", "space", "address", "kind")))
    return str(path)


def run(capsys, *argv):
    """(exit code, what was printed, what was complained)."""
    try:
        main(["replay", *argv])
        code = 0
    except SystemExit as leaving:
        code = leaving.code or 0
    out, err = capsys.readouterr()
    return code, out, err


def line(out, title):
    row = next(text for text in out.splitlines() if text.startswith(title))
    return re.split(r"\s{2,}|(?<=\d) (?=\d)", row.strip())[1:]


def test_the_table_has_a_column_for_each_rules(recorded, capsys):
    code, out, _ = run(capsys, recorded, "-r", "thp-base", "-r", "6.1", "-r", "7.2", "--map", "none")
    assert code == 0
    assert re.search(r"^collapses +0 +2 +1$", out, re.M)
    assert re.search(r"^blocks left small +2 +0 +1$", out, re.M)
    assert re.search(r"^ lack_referenced_page +2 +0 +1$", out, re.M)
    assert "Debian 12's kernel" in out
    assert "no channel saw any page in use" in out


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_what_the_trace_leaves_out_is_told(recorded, tmp_path, capsys, form):
    columns = trace([(1, 0, 4, 0, GR)], ["vm"]).columns
    path = tmp_path / "part.parquet"
    origin = Provenance(
        source="record-pid", spaces=[Space(id=0, name="vm", type="vm")], dropped={"pages unnamed": 9}
    )
    with TraceWriter(path, origin) as out:
        out.append(*(columns[name] for name in ("time", "space", "address", "kind")))
    for trace_of, told in ((str(path), True), (recorded, False)):
        code, said, _ = run(capsys, trace_of, "-r", "7.2", "--map", "none", *form)
        assert code == 0
        assert ("90% of what was seen was left out" in " ".join(said.split())) == told
        assert ("was running when the recording began" in " ".join(said.split())) == told


def test_the_maps_addresses_are_those_that_maps_of_a_process_has(recorded, capsys):
    for words, address in ((["--as", "process"], "0x800000"), ([], "8 MiB")):
        _, out, _ = run(capsys, recorded, "-r", "7.2", *words)
        assert re.search(rf"^ *{address} ", out, re.M)


TITLES = re.compile(r"^ ?([a-z_@0-9][\w@, -]*?) {2,}[\d.,% ]+")


@pytest.mark.parametrize(
    "argv",
    [
        ["-r", "thp-base", "-r", "2.6.38", "-r", "6.1", "-r", "7.3"],
        ["-r", "7.3", "--knob", "hugepages-64kB=always", "--tlb"],
        ["-r", "6.1", "--as", "process", "--empty"],
        ["-r", "6.1", "--time-scale", "0.1"],
    ],
)
def test_every_row_and_every_word_is_explained_below_the_table(recorded, capsys, argv):
    code, out, err = run(capsys, recorded, *argv, "--map", "none")
    assert code == 0, err
    _, table, meanings = re.split(r"\n\n+", out, maxsplit=3)[:3]
    rows = [title[1] for text in table.splitlines() if (title := TITLES.match(text))]
    assert rows[0] == "collapses" and rows[-1] == "full scans" and len(rows) > 8
    # A meaning of its own: the row's name again, two spaces, and a sentence.
    for row in rows:
        assert re.search(rf"^{re.escape(row)} {{2,}}[A-Za-z]\S*( \S+){{3,}}", meanings, re.M), row
    assert "the kernel's answer, as its tracepoint" not in meanings.lower()
    for word in ("channel", "accessed bit", "isolate", "zap", "scan", "secondary MMU", "MMU[- ]notifier"):
        used = len(re.findall(rf"\b{word}s?\b", meanings))
        assert used == 0 or re.search(rf"^{word.replace('[- ]', ' ')} {{2,}}", meanings, re.M), word
    assert ("unasked" in table) == bool(re.search("^unasked {2,}No booted kernel", meanings, re.M))


def test_every_method_of_a_notifier_has_a_meaning():
    assert set(NOTIFIER_METHODS) == set(get_args(Op))


def test_the_map_of_the_last_rules(recorded, capsys):
    _, out, _ = run(capsys, recorded, "-r", "6.1", "-r", "thp-base")
    assert "thp-base (unasked): which channel saw use" in out
    cells = [text for text in out.splitlines() if "··" in text]
    # One page of 512 young for the guest all the time, nothing for the primary page table; two blocks.
    assert cells[0].split() == ["8", "MiB", "······", "······", "░░░░░░", "······"]
    assert len(cells) == 2


def test_json(recorded, capsys):
    _, out, _ = run(capsys, recorded, "-r", "6.1", "--json")
    decoded = json.loads(out)
    assert decoded["configurations"][0]["total"]["collapses"] == 2
    assert decoded["provenance"]["trace"]["source"] == "test"


@pytest.mark.parametrize("suffix", ["svg", "html"])
def test_pictures(recorded, capsys, tmp_path, suffix):
    path = tmp_path / f"p.{suffix}"
    assert run(capsys, recorded, "-r", "6.1", "-r", "7.2", "--map", "none", "--picture", str(path))[0] == 0
    text = path.read_text()
    # Four panels each, and the attempts that 7.2 refuses.
    assert text.count("data:image/png;base64,") == 9
    drawing = text[text.index("<svg") : text.index("</svg>") + 6]
    assert ET.fromstring(drawing).tag.endswith("svg")


def test_too_short_a_trace_is_told(recorded, capsys):
    _, out, _ = run(capsys, recorded, "-r", "6.1", "--map", "none", "--time-scale", "0.1")
    assert "khugepaged woke only 1 time in 5.5 s" in out


@pytest.mark.parametrize(
    ("argv", "complaint"),
    [
        (["-r", "5.4"], "no kernel profile is called '5.4'"),
        (["--as", "guest"], "--as 'guest': one of trace, process, vm"),
        (["--mmu", "tlb"], "--mmu 'tlb': one of npt"),
        (["--knob", "max_ptes_none=512"], "max_ptes_none=512: must be 0 to 511"),
        (["--knob", "nr=1"], "--knob 'nr=1': write NAME=NUMBER"),
        (["--picture", "a.png"], "must end in .svg or .html"),
        (["--map", "5.4"], "--map 5.4: one of"),
        (["--time-scale", "0"], "time scale 0"),
        (["--time-scale", "1e30"], "time scale 1e+30: khugepaged, every 10 s of its clock, would wake 5"),
        (["--picture", "/nowhere/a.svg", "-r", "6.1"], "cannot be written"),
    ],
)
def test_wrong_requests_are_one_line(recorded, capsys, argv, complaint):
    code, _, err = run(capsys, recorded, *argv)
    assert code == 2
    assert complaint in err
    assert len(err.strip().splitlines()) == 1


def test_no_such_trace(capsys):
    code, _, err = run(capsys, "nowhere.parquet")
    assert (code, err.strip()) == (2, "secondsight: nowhere.parquet: no such file")
