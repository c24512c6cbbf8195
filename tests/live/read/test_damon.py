"""A kdamond set up in a sysfs of plain files, and taken down whatever happens; its tracepoint's lines."""

import pytest

from secondsight.errors import MissingDependency
from secondsight.live.read.damon import Damon, evenly, spans
from secondsight.live.read.tracefs import parse_line
from secondsight.live.read.vma import parse_maps

CONTEXT = "0/contexts/0"
SPANS = [(0x1000, 0x3000), (0x8000, 0x9000)]
LINE = (
    b"       kdamond.0-77    [000] .....    82.877315: damon_aggregated: target_id=0 nr_regions=17 "
    b"140731667070976-140731668037632: 3 12"
)


@pytest.fixture
def folder(tmp_path):
    """The files as the kernel has them once one kdamond with one context and one target is there."""
    for name, value in {
        "nr_kdamonds": "0",
        "0/state": "off",
        "0/pid": "77",
        "0/contexts/nr_contexts": "0",
        f"{CONTEXT}/avail_operations": "vaddr\nfvaddr\npaddr",
        f"{CONTEXT}/operations": "",
        f"{CONTEXT}/monitoring_attrs/intervals/sample_us": "5000",
        f"{CONTEXT}/monitoring_attrs/intervals/aggr_us": "100000",
        f"{CONTEXT}/monitoring_attrs/intervals/update_us": "1000000",
        f"{CONTEXT}/monitoring_attrs/nr_regions/min": "10",
        f"{CONTEXT}/monitoring_attrs/nr_regions/max": "1000",
        f"{CONTEXT}/targets/nr_targets": "0",
        f"{CONTEXT}/targets/0/regions/nr_regions": "0",
        **{f"{CONTEXT}/targets/0/regions/{i}/{edge}": "0" for i in range(3) for edge in ("start", "end")},
        f"{CONTEXT}/targets/0/pid_target": "0",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(value)
    return tmp_path


def held(folder):
    return {str(p.relative_to(folder)): p.read_text().strip() for p in folder.rglob("*") if p.is_file()}


def test_it_is_set_up_and_taken_down(folder):
    with Damon.open(4242, SPANS, 1.0, folder):
        now = held(folder)
        assert now["nr_kdamonds"] == "1" and now["0/state"] == "on"
        assert now[f"{CONTEXT}/operations"] == "vaddr" and now[f"{CONTEXT}/targets/0/pid_target"] == "4242"
        intervals = [
            now[f"{CONTEXT}/monitoring_attrs/intervals/{n}_us"] for n in ("sample", "aggr", "update")
        ]
        assert intervals == ["25000", "500000", "1000000"]
        regions = f"{CONTEXT}/targets/0/regions"
        edges = [[int(now[f"{regions}/{i}/{edge}"]) for edge in ("start", "end")] for i in range(3)]
        assert now[f"{regions}/nr_regions"] == "3"
        assert edges == [[0x1000, 0x2000], [0x2000, 0x3000], [0x8000, 0x9000]]
    assert held(folder)["nr_kdamonds"] == "0" and held(folder)["0/state"] == "off"


@pytest.mark.parametrize(("interval", "sample", "aggregation"), [(0.001, 1000, 1000), (60, 25_000, 500_000)])
def test_intervals_stay_sensible(folder, interval, sample, aggregation):
    with Damon.open(1, SPANS, interval, folder):
        now = held(folder)
    intervals = f"{CONTEXT}/monitoring_attrs/intervals"
    assert (int(now[f"{intervals}/sample_us"]), int(now[f"{intervals}/aggr_us"])) == (sample, aggregation)


def test_spans_are_what_may_be_accessed_with_the_smallest_gaps_taken_in():
    lines = (
        "1000-2000 rw-p",
        "2000-3000 r--p",
        "4000-5000 rw-p",
        "5000-9000 ---p",
        "a000-b000 rw-p",
        "f000-10000 rw-p",
    )
    text = "".join(f"{line} 00000000 00:00 0\n" for line in lines)
    vmas = parse_maps(text.encode(), "maps")
    assert spans(vmas) == [(0x1000, 0x3000), (0x4000, 0x5000), (0xA000, 0xB000), (0xF000, 0x10000)]
    assert spans(vmas, 3) == [(0x1000, 0x5000), (0xA000, 0xB000), (0xF000, 0x10000)]
    assert spans(vmas, 1) == [(0x1000, 0x10000)] and spans([]) == []


def test_even_parts_are_whole_pages_and_cover_the_spans():
    many = [(0x1000, 0x1000 + (1 << 30)), (1 << 40, (1 << 40) + 0x5000)]
    parts = evenly(many)
    assert 100 <= len(parts) <= 102
    sizes = {end - start for start, end in parts}
    assert not any(size % 4096 for size in sizes) and len(sizes) <= 3
    covered = []
    for start, end in parts:
        if covered and covered[-1][1] == start:
            covered[-1] = (covered[-1][0], end)
        else:
            covered.append((start, end))
    assert covered == many and evenly([]) == []


def test_somebody_elses_is_left_alone(folder):
    (folder / "nr_kdamonds").write_text("2")
    before = held(folder)
    with pytest.raises(MissingDependency, match="2 in use by someone else"):
        Damon.open(1, SPANS, 1.0, folder)
    assert held(folder) == before


def test_without_monitoring_of_processes_nothing_is_left(folder):
    (folder / CONTEXT / "avail_operations").write_text("paddr")
    with pytest.raises(MissingDependency, match="CONFIG_DAMON_VADDR"):
        Damon.open(1, SPANS, 1.0, folder)
    assert held(folder)["nr_kdamonds"] == "0"


def test_a_start_that_fails_or_is_interrupted_leaves_nothing(folder, monkeypatch):
    (folder / CONTEXT / "targets/0/pid_target").unlink()
    (folder / CONTEXT / "targets/0/pid_target").mkdir()
    with pytest.raises(MissingDependency, match="pid_target"):
        Damon.open(1, SPANS, 1.0, folder)
    assert held(folder)["nr_kdamonds"] == "0"

    def interrupted(self, name):
        assert held(folder)["nr_kdamonds"] == "1"
        raise KeyboardInterrupt

    real = Damon.read_file
    monkeypatch.setattr(
        Damon, "read_file", lambda self, name: real(self, name) if name[0] == "n" else interrupted(self, name)
    )
    with pytest.raises(KeyboardInterrupt):
        Damon.open(1, SPANS, 1.0, folder)
    assert held(folder)["nr_kdamonds"] == "0"


def test_one_that_is_still_stopping_is_waited_for(folder, monkeypatch):
    damon = Damon.open(1, SPANS, 1.0, folder)
    real, refused = Damon.write_file, []

    def write(self, name, value):
        if name == "0/state" or len(refused) < 2:
            refused.append(name)
            raise MissingDependency("busy")
        real(self, name, value)

    monkeypatch.setattr(Damon, "write_file", write)
    damon.close()
    assert refused == ["0/state", "nr_kdamonds"] and held(folder)["nr_kdamonds"] == "0"


def test_no_damon(tmp_path):
    with pytest.raises(MissingDependency, match="CONFIG_DAMON_SYSFS"):
        Damon.open(1, SPANS, 1.0, tmp_path)


def test_lines_of_its_own_kdamond_become_regions(folder):
    with Damon.open(1, SPANS, 1.0, folder) as damon:
        events = [
            parse_line(line)
            for line in (
                LINE,
                LINE.replace(b"kdamond.0-77", b"kdamond.1-78"),
                LINE.replace(b": 3 12", b": 0 12"),
                LINE.replace(b": 3 12", b": 3"),
                LINE.replace(b"target_id=0 ", b"target_id=x "),
            )
        ]
        regions = damon.take(events)
    assert [tuple(region) for region in regions] == [
        (82_877_315_000, 0, 140731667070976, 140731668037632, 3)
    ] * 2
