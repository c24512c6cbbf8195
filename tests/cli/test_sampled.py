"""``replay`` and ``compare`` over samples: ranges, the map, and what is refused in one line."""

import json
import os

import pytest

from secondsight.cli import main
from secondsight.trace import Space
from support.samples import BASE, BLOCK, provenance, write


@pytest.fixture
def samples(tmp_path):
    """Four blocks: used in every interval, not used, not known, and not known of half its pages."""
    rows = [
        {"time": look, "block": block, "present": 512, "primary_used": used * bool(look), "primary_unused": unused * bool(look),
         "secondary_unused": 512 * bool(look), "primary_clear": clear, "secondary_clear": 512}
        for look in range(4)
        for block, used, unused, clear in ((0, 512, 0, 512), (1, 0, 512, 512), (2, 0, 0, 512), (7, 256, 0, 512))
    ]  # fmt: skip
    return write(tmp_path / "s.parquet", rows, provenance(seen=("primary", "secondary")))


def run(capsys, *argv, code=0):
    with pytest.raises(SystemExit) as end:
        main([str(word) for word in argv])
    captured = capsys.readouterr()
    assert end.value.code == code, captured.err
    return captured.out if not code else captured.err


def test_replay_prints_ranges_a_map_and_what_stays_open(samples, capsys):
    printed = run(capsys, "replay", samples, "-r", "7.2", "--time-scale", "20")
    assert "samples of 4 blocks of 2 MiB over 3.0 s (60 s of khugepaged's time)" in printed
    assert "uses (a page in an interval): 2,304 … 4,608" in printed
    assert (
        f"in use: 2 blocks hold 90 % of the known uses: 0x{BASE:x}..0x{BASE + BLOCK:x}, 0x{BASE + 7 * BLOCK:x}.."
        in printed
    )
    assert "of 2 blocks it is not wholly known" in printed
    line = next(line for line in printed.splitlines() if line.startswith("khugepaged under 7.2"))
    assert line.split()[3:6] == ["3", "of", "4"] and "2 … 3" in line
    assert "what each channel called used" in printed and "?" in printed


def test_compare_keeps_everything_as_json(samples, tmp_path, capsys):
    path = tmp_path / "c.json"
    printed = run(capsys, "compare", samples, "-p", "ingens", "-p", "never", "--time-scale", "20", "-o", path)
    kept = json.loads(path.read_text())
    assert (
        json.loads(
            run(capsys, "compare", samples, "-p", "ingens", "-p", "never", "--time-scale", "20", "--json")
        )
        == kept
    )
    assert [row["decisions"] for row in kept["rows"]] == [["huge", "small", "open", "huge"], ["small"] * 4]
    assert kept["hot"]["blocks"] == [BASE, BASE + 7 * BLOCK]
    assert kept["provenance"]["interval"] == 10**9 and "ingens under 7.2" in printed


def test_a_picture_of_the_channels(samples, tmp_path, capsys):
    for name in ("p.svg", "p.html"):
        run(capsys, "replay", samples, "-r", "7.2", "--picture", tmp_path / name, "--map", "none")
        text = (tmp_path / name).read_text()
        assert "PRIMARY" in text and "SECONDARY" in text and "REFERENCED" not in text


@pytest.mark.parametrize(
    ("argv", "what"),
    [
        (["replay", "--tlb"], "no TLB can be modelled"),
        (["replay", "--empty"], "does without it"),
        (["replay", "--map", "7.2"], "samples have one map"),
        (["compare", "--tlb"], "no TLB can be modelled"),
        (["compare", "--cpu-time", "3"], "page walks, which samples do not hold"),
        (["compare", "-p", "oracle"], "still to come"),
        (["compare", "-p", "pcc"], "page walks"),
        (["compare", "--report", "r.html"], "does without it"),
        (["compare", "--vary", "max_ptes_none=0,511"], "does without it"),
        (["trace", "cut", "-o", "cut.parquet"], "holds samples of blocks"),
    ],
)
def test_what_samples_cannot_feed_is_refused_in_one_line(samples, tmp_path, capsys, monkeypatch, argv, what):
    monkeypatch.chdir(tmp_path)
    words = [*argv[:2], samples, *argv[2:]] if argv[0] == "trace" else [argv[0], samples, *argv[1:]]
    with pytest.raises(SystemExit) as end:
        main([str(word) for word in words])
    message = capsys.readouterr().err
    assert end.value.code in (1, 2) and what in message and message.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["s.parquet"]


def test_names_of_others_reach_no_terminal_raw(tmp_path, capsys):
    rows = [{"time": look, "block": 0, "present": 512} for look in range(2)]
    spaces = [Space(id=0, name="\x1b]0;title\x07[bold]")]
    path = write(
        tmp_path / "s.parquet", rows, provenance(spaces=spaces, notes=["\x1b[31m"], memory="\x1b[31m")
    )
    for argv in (["trace", "info"], ["replay", "-r", "7.2"], ["compare", "-p", "never"]):
        printed = run(capsys, *argv, path) if argv[0] == "trace" else run(capsys, argv[0], path, *argv[1:])
        assert "\x1b" not in printed and "\x07" not in printed


def test_the_table_gives_reasons_as_ranges_and_addresses_as_maps_does(tmp_path, capsys):
    rows = [
        {"time": look, "block": block, "present": 512, "primary_unused": unused * bool(look), "primary_clear": 512}
        for look in range(2)
        for block, unused in ((0, 512), (1, 0))
    ]  # fmt: skip
    path = write(tmp_path / "s.parquet", rows, provenance(seen=("primary",)))
    printed = run(capsys, "replay", path, "-r", "7.2", "--time-scale", "40")
    assert "left small, by khugepaged's last answer" in printed
    assert "lack_referenced_page 0 … 2" in printed
    assert f"0x{BASE:x} " in printed and "MiB ░" not in printed
    row = next(line for line in printed.splitlines() if line.startswith("khugepaged under 7.2"))
    assert " - " in row, "wasted passes are not known"


@pytest.mark.parametrize("name", ["known", "huge", "wasted", "refused", "unvisited"])
def test_the_names_of_samples_figures_are_explained(capsys, name):
    assert f"({name}, count, " in run(capsys, "compare", "--explain", name)


@pytest.mark.parametrize("reader", ["compare", "verify"])
def test_results_of_samples_are_refused_for_what_they_are(samples, tmp_path, capsys, reader):
    made = tmp_path / "c.json"
    run(capsys, "compare", samples, "-p", "never", "-o", made)
    before = tmp_path / "before.json"
    run(capsys, "verify", "--pid", os.getpid(), "--for", "1ms", "--save", before)
    words = {
        "compare": ["compare", made],
        "verify": ["verify", "--pid", os.getpid(), "--before", before, "--predicted", made],
    }
    told = run(capsys, *words[reader], code=2)
    assert "results of samples" in told and "schema version" not in told and told.count("\n") == 1
