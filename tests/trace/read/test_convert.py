"""Every text reader on its own sample, on damage, and on noise."""

import bz2
import gzip
import io
import json
import lzma
import shutil
import struct
import subprocess
import zlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from secondsight.errors import InputError, SecondSightError, UsageError
from secondsight.trace import Kind, Trace
from secondsight.trace.read.convert import FORMATS, convert

R, W, F = int(Kind.CPU_READ), int(Kind.CPU_WRITE), int(Kind.CPU_FETCH)

LACKEY = b"""==812== Lackey, an example Valgrind tool
==812==
I  0401ab70,3
 S 1fff000778,8
I  0401ab73,5
 L 04222ffc,8
 M 0421c7cc,4
--812-- WARNING: unhandled
I  0401afff,2
"""
PERF = b"""# captured
    812/812    12.345678:     7ffdf1391b0c         68100142 |OP LOAD|LVL L1 hit|SNP None|TLB L1 or L2 hit|LCK No       1a2b3c040
    812/813    12.345679:     7ffdf1391b10         68100144 |OP STORE|LVL L1 hit|SNP None|LCK No       1a2b3c044
    900/900    12.345680123:            0         68100142 |OP LOAD|LVL N/A
    900/900    12.345681: ffffffff81000000         68100142 |OP LOAD|LVL N/A
    900/900    12.345682:     7ffdf1391b10                1 |OP N/A|LVL N/A
"""
VIEW = b"""Output format:
<--record#-> <--instr#->: <---tid---> <record details>
------------------------------------------------------------
           1           0:     2765542 <marker: version 5>
       47445       37770:     2765543 ifetch       5 byte(s) @ 0x0000000000404a7e 48 8b 5c 24 08       mov    0x08(%rsp)[8byte] -> %rbx
       47446       37770:     2765543 read         8 byte(s) @ 0x00007fdf64e2affc by PC 0x0000000000404a7e
       47447       37771:     2765543 ifetch      10 byte(s) @ 0x0000000000404a83 48 b8 00 00 00 00 00 00 mov $0x0
       47447       37771:     2765543                                            00 00
       47448       37772:  W1.T2765544 write        4 byte(s) @ 0x00007fdf64e2b000 by PC 0x0000000000404a88
       47449       37772:  W1.T2765544 pref-r-L1    1 byte(s) @ 0x00007fdf64e2c000 by PC 0x0000000000404a88
       47450       37772:     2765543 <thread 2765543 exited>
View tool results:
          37772 : total instructions
"""
DAMO = json.dumps(
    [
        {
            "kdamond_idx": 0,
            "target_id": 7,
            "snapshots": [
                {
                    "start_time": "100",
                    "end_time": "2,000",
                    "regions": [
                        {"start": "8,192", "end": "16,384", "nr_accesses": {"samples": 3, "percent": None}},
                        {"start": 65536, "end": 69632, "nr_accesses": {"samples": 0}},
                    ],
                }
            ],
        },
        {
            "target_id": 9,
            "snapshots": [
                {
                    "start_time": 0,
                    "end_time": "1 us 500 ns",
                    "regions": [{"start": 0, "end": 1, "nr_accesses": {"samples": 1}}],
                }
            ],
        },
    ],
    indent=4,
).encode()
DAMO_PERF = b"""       kdamond.0  4452 [000] 82820.952659: damon:damon_aggregated: target_id=18446623435582458880 nr_regions=8 8192-16384: 2
       kdamond.0  4452 [000] 82820.952659: damon:damon_aggregated: target_id=18446623435582458880 nr_regions=8 16384-20480: 0 5
kdamond.x xxxx xxxx 82821.000000: damon:damon_aggregated: target_id=1 nr_regions=1 0-0: -1 -1
"""
# Written by damo 3.4.3's own writers, of physical memory (target None) and a process.
DAMO_RAW = b"""base_time_absolute: 16 m 40 s
data source: unknown

monitoring_start:                0 ns
monitoring_end:                100 ms
monitoring_duration:           100 ms
target_id: None
nr_regions: 2
# start_addr     end_addr        length  nr_accesses   age
000000100000-000000103000 (  12.000 KiB)           3     2
000000103000-000000200000 (1012.000 KiB)           0     9

base_time_absolute: 1,000,000,000,000
data source: unknown

monitoring_start:                0
monitoring_end:                100000000
monitoring_duration:           100000000
target_id: 7
nr_regions: 2
# start_addr     end_addr        length  nr_accesses   age
000000100000-000000101000 (        4096)           5     2
"""
DAMO_PADDR = json.dumps(
    [{"target_id": None, "snapshots": [{"start_time": "0", "end_time": "5", "regions": [
        {"start": "4,096", "end": "8,192", "nr_accesses": {"samples": 2, "percent": None}, "age": {"usec": None, "aggr_intervals": "2"},
         "probe_hits": [], "sz_filter_passed": "0 B"}], "total_bytes": "4096", "damos_stats": None, "sample_interval_us": None}],
      "data_source": "unknown"}]
).encode()  # fmt: skip
PINATRACE = b"""0x7f52ac3fe8f1: R 0x7ffc0d2b9f48
0x7f52ac3fe8f4: W       0x7ffc0d2b9f40    8 0xdead
#eof
"""
CSV = b"""ts_us,vaddr,op,pid,n
1,0x7f0000001000,R,12,1
2,0x7f0000002fff,W,13,5

4,0x401000,R,12,1
"""


def champsim(*records):
    """Records of (ip, stores, loads) as ChampSim's tracers write them."""
    return b"".join(
        struct.pack(
            "<QBB2B4B2Q4Q",
            ip,
            i % 2,
            i % 2,
            1,
            2,
            3,
            4,
            5,
            6,
            *(*stores, 0, 0)[:2],
            *(*loads, 0, 0, 0, 0)[:4],
        )
        for i, (ip, stores, loads) in enumerate(records)
    )


CHAMPSIM = champsim(
    (0x401000, (), (0x7FFE00001008, 0x601000)), (0x401004, (0x7FFE00001000,), ()), (0x401008, (), ())
)


def table(columns, kind=pq.write_table):
    out = io.BytesIO()
    data = pa.table(columns)
    if kind is pq.write_table:
        pq.write_table(data, out)
    else:
        with kind(out, data.schema) as writer:
            writer.write_table(data)
    return out.getvalue()


COLUMNED = {
    "time": pa.array([1, 2, 3], pa.int64()),
    "addr": pa.array([4096, 8192, 4096]),
    "is_write": [False, True, False],
}
PARQUET, ARROW = table(COLUMNED), table(COLUMNED, pa.ipc.new_file)
SAMPLES = {
    "lackey": LACKEY, "perf": PERF, "drmemtrace": VIEW, "damo": DAMO, "damo-perf": DAMO_PERF, "damo-raw": DAMO_RAW,
    "pinatrace": PINATRACE, "csv": CSV, "parquet": PARQUET, "arrow": ARROW, "champsim": CHAMPSIM,
}  # fmt: skip


def run(tmp_path, content, **options):
    source = tmp_path / "in"
    source.write_bytes(content)
    convert(str(source), tmp_path / "out.parquet", **options)
    trace = Trace.open(tmp_path / "out.parquet")
    columns = trace.read()
    return trace, [tuple(row) for row in np.array([columns[c].tolist() for c in columns]).T.tolist()]


def test_lackey(tmp_path):
    trace, rows = run(tmp_path, LACKEY)
    assert rows == [
        (1, 0, 0x0401AB70, F, 1),
        (1, 0, 0x1FFF000778, W, 1),
        (2, 0, 0x0401AB73, F, 1),
        (2, 0, 0x04222FFC, R, 1),
        (2, 0, 0x04223000, R, 1),
        (2, 0, 0x0421C7CC, R, 1),
        (2, 0, 0x0421C7CC, W, 1),
        (3, 0, 0x0401AFFF, F, 1),
        (3, 0, 0x0401B000, F, 1),
    ]
    assert trace.provenance.source == "lackey"
    assert "instructions" in trace.provenance.clock.meaning
    assert "page walks" in trace.provenance.unseen


def test_perf(tmp_path):
    trace, rows = run(tmp_path, PERF)
    assert rows == [(12345678000, 0, 0x7FFDF1391B0C, R, 1), (12345679000, 0, 0x7FFDF1391B10, W, 1)]
    assert [s.name for s in trace.spaces] == ["pid 812", "pid 900"]
    assert trace.provenance.dropped == {
        "samples without a data address": 1,
        "addresses outside the space": 1,
        "samples that are neither load, store nor exec": 1,
    }


def test_what_is_left_out_is_not_counted_as_taken(tmp_path):
    (tmp_path / "in").write_bytes(PERF)
    assert convert(str(tmp_path / "in"), tmp_path / "out.parquet")[1] == 2


def test_drmemtrace(tmp_path):
    trace, rows = run(tmp_path, VIEW)
    assert rows == [
        (37770, 0, 0x404A7E, F, 1),
        (37770, 0, 0x7FDF64E2AFFC, R, 1),
        (37770, 0, 0x7FDF64E2B000, R, 1),
        (37771, 0, 0x404A83, F, 1),
        (37772, 1, 0x7FDF64E2B000, W, 1),
    ]
    assert [s.name for s in trace.spaces] == ["process", "workload 1"]
    assert trace.provenance.dropped == {"prefetches and flushes": 1}


@pytest.mark.parametrize("compress", [bytes, zlib.compress])
def test_damo_puts_targets_into_the_order_of_time(tmp_path, compress):
    trace, rows = run(tmp_path, compress(DAMO))
    assert rows == [(1500, 1, 0, R, 1), (2000, 0, 8192, R, 3), (2000, 0, 12288, R, 3)]
    assert [s.name for s in trace.spaces] == ["target 7", "target 9"]


def test_damo_perf(tmp_path):
    trace, rows = run(tmp_path, DAMO_PERF)
    assert rows == [(82820952659000, 0, 8192, R, 2), (82820952659000, 0, 12288, R, 2)]
    assert trace.provenance.source == "damo-perf"


@pytest.mark.parametrize("compress", [gzip.compress, lzma.compress, zstandard.compress])
def test_compressed_input_is_transparent_and_its_tear_is_named(tmp_path, compress):
    assert run(tmp_path, compress(LACKEY))[1] == run(tmp_path, LACKEY)[1]
    with pytest.raises(InputError, match="damaged or torn"):
        run(tmp_path, compress(LACKEY * 999)[:-20], format="lackey")


def test_several_members_are_one_input(tmp_path):
    halves = LACKEY[:100], LACKEY[100:]
    for compress in (gzip.compress, lzma.compress, zstandard.compress):
        assert len(run(tmp_path, b"".join(map(compress, halves)))[1]) == 9


@pytest.mark.parametrize(
    ("content", "where", "problem"),
    [
        (LACKEY + b" S 1fff00", "line 10, byte 162", "the last line is torn"),
        (LACKEY + b" S 1fff00,8", "line 10, byte 162", "the last line is torn"),
        (LACKEY + b"hello\n" + LACKEY, "line 10, byte 162", "not a line of lackey's"),
        (LACKEY + b" S ,8\n", "line 10", "not a line"),
        (LACKEY + b" S 10000000000000000,8\n", "line 10", "not a line"),
        (LACKEY + b" S 1000,0\n", "line 10", "not a line"),
        (LACKEY + b" S 1000,65537\n", "line 10", "not a line"),
        (LACKEY + b" S 1000,8\r8\n", "line 10", "not a line"),
        (PINATRACE + b"0x1: X 0x2\n", "line 4", "expected '0x7f52"),
        (CHAMPSIM + CHAMPSIM[:30], "byte 192", "the last record is torn: 30 of 64"),
        (CHAMPSIM * 64 + b"\7" * 64, "instruction 192, byte 12288", "no record of ChampSim's"),
        (b"a,b\n1,2\n", "byte 0", "none of lackey"),
        (CSV.replace(b"2fff", b"2fzz"), "row 2, column vaddr", "expected an address"),
        (CSV.replace(b",W,", b",Q,"), "column op", "which of its values are reads"),
        (DAMO_RAW + b"junk\n", "line 23", "raw form"),
        (PERF + b"junk\n", "line 7", "expected a sample"),
        (PERF[:-1], "line 6", "the last line is torn"),
        (VIEW + b"junk\n", "line 14", "expected a record"),
        (
            DAMO_PERF + b"kdamond.0 1 [000] 1.000000: damon:damon_aggregated: target_id=1\n",
            "line 4",
            "expected",
        ),
        (DAMO[:-300], "character", "torn"),
        (DAMO.replace(b'"8,192"', b'"x"'), "character", "not a snapshot of damo's"),
        (DAMO.replace(b'"8,192"', b'"99,192"'), "character", "cannot be"),
        (b"", "byte 0", "empty: no format to recognise"),
        (b"\x7fELF", "byte 0", "none of lackey"),
        (bz2.compress(LACKEY), "byte 0", "none of lackey"),
        (b"I 1" + b"0" * (3 << 20), "byte 0", "over 1 MiB"),
    ],
)
def test_damage_is_named_and_nothing_is_written(tmp_path, content, where, problem):
    options = {"format": "lackey"} if content.startswith(b"I 1") else {}
    with pytest.raises(InputError, match=problem) as caught:
        run(tmp_path, content, **options)
    assert caught.value.where.startswith(where)
    assert [p.name for p in tmp_path.iterdir()] == ["in"]


def test_an_empty_input_of_a_named_format_is_an_empty_trace(tmp_path):
    for known in FORMATS:
        if known.mapped:  # no head, no columns
            with pytest.raises(InputError):
                run(tmp_path, b"", format=known.name)
            continue
        trace, rows = run(tmp_path, b"", format=known.name)
        assert rows == [] and trace.provenance.source == known.name


def test_requests_that_cannot_be(tmp_path):
    with pytest.raises(UsageError, match="no format 'elf'; there are lackey"):
        run(tmp_path, LACKEY, format="elf")
    with pytest.raises(InputError, match="no such file"):
        convert(str(tmp_path / "none"), tmp_path / "out.parquet")
    with pytest.raises(UsageError, match="cannot be written"):
        run(tmp_path, LACKEY) and convert(str(tmp_path / "in"), tmp_path / "no" / "out.parquet")


def test_each_sample_is_recognised_by_its_own_format_alone():
    for name, sample in SAMPLES.items():
        assert [f.name for f in FORMATS if f.detects(sample[:4096])] == [name]


AWK = r"""
function hex(s, i, v) { v = 0; for (i = 1; i <= length(s); i++) v = v * 16 + index("0123456789abcdef", substr(s, i, 1)) - 1; return v }
/^(I | [LSM]) / {
    split($2, a, ","); low = hex(substr(a[1], length(a[1]) - 2)); pages = 1 + int((low + a[2] - 1) / 4096)
    if ($1 == "I") fetch += pages; if ($1 == "L" || $1 == "M") read += pages; if ($1 == "S" || $1 == "M") write += pages
}
END { print read + 0, write + 0, fetch + 0 }
"""


@pytest.mark.skipif(shutil.which("awk") is None, reason="no awk")
@pytest.mark.parametrize("quantum", [0, 50])
def test_lackey_against_an_independent_count(tmp_path, quantum):
    rng = np.random.default_rng(3)
    lines = [LACKEY]
    for op, address, size in zip(
        rng.choice(["I ", " L", " S", " M"], 20_000),
        rng.integers(0, 1 << 38, 20_000).tolist(),
        rng.choice([1, 2, 4, 8, 16, 32, 64, 512], 20_000).tolist(),
        strict=True,
    ):
        lines.append(f"{op} {address:08x},{size}\n".encode())
    _, rows = run(tmp_path, b"".join(lines), quantum=quantum)
    counted = {R: 0, W: 0, F: 0}
    for _, _, _, kind, count in rows:
        counted[kind] += count
    said = subprocess.run(["awk", AWK, tmp_path / "in"], capture_output=True, check=True, text=True).stdout
    assert said.split() == [str(counted[R]), str(counted[W]), str(counted[F])]


@pytest.mark.parametrize("name", SAMPLES)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_text_brings_more_than_an_input_error(tmp_path, name, data):
    text = bytearray(SAMPLES[name])
    for _ in range(data.draw(st.integers(0, 4))):
        at = data.draw(st.integers(0, len(text)))
        piece = data.draw(
            st.one_of(st.binary(max_size=8), st.sampled_from([b"\n", b",", b"-", b"9" * 25, b"}", b"0x"]))
        )
        text[at : at + data.draw(st.integers(0, 8))] = piece
    try:
        run(tmp_path, bytes(text), format=name)
    except InputError as error:
        assert error.where


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        # As editors, Windows and course pages leave them.
        (b" L 10,4\r\n", [(1, 0, 16, R, 1)]),
        (b" L 10,4\n S 2000,8\n", [(1, 0, 16, R, 1), (2, 0, 0x2000, W, 1)]),
        (b" L 10,4 \n S 18,4\n\n", [(1, 0, 16, R, 1), (2, 0, 24, W, 1)]),
        (b"L 10,4\nM 18,4\n \n", [(1, 0, 16, R, 1), (2, 0, 24, R, 1), (2, 0, 24, W, 1)]),
        (b"\xef\xbb\xbfI 400,3\r\n\tS\t18,4\r\n\r\n", [(1, 0, 0x400, F, 1), (1, 0, 24, W, 1)]),
        # Two recordings put together end to end.
        (b"==1== one\nI  400,3\n==2== two\nI  500,3\n", [(1, 0, 0x400, F, 1), (2, 0, 0x500, F, 1)]),
    ],
)
def test_lackey_as_people_hold_it(tmp_path, content, expected):
    trace, rows = run(tmp_path, content)
    assert rows == expected
    counted = b"I" not in content
    assert (
        "accesses" in trace.provenance.clock.meaning,
        "instruction fetches" in trace.provenance.unseen,
    ) == (counted, counted)


def test_lackey_that_was_not_asked_for_memory(tmp_path):
    text = b"==1== Lackey, an example Valgrind tool\n==1== Counted 1 call to main()\n"
    with pytest.raises(
        SecondSightError, match=r"no accesses in it: was lackey given --trace-mem=yes\?"
    ) as caught:
        run(tmp_path, text)
    assert caught.value.exit_code == 1
    assert [p.name for p in tmp_path.iterdir()] == ["in"]


def test_utf16_is_refused_with_the_way_out(tmp_path):
    with pytest.raises(InputError, match="UTF-16 text; make it UTF-8"):
        run(tmp_path, LACKEY.decode().encode("utf-16"))


@pytest.mark.parametrize(
    "name", ["perf", "drmemtrace", "damo-perf", "damo-raw", "pinatrace", "csv", "lackey"]
)
def test_crlf_a_byte_order_mark_and_an_empty_last_line_change_nothing(tmp_path, name):
    plain = run(tmp_path, SAMPLES[name])[1]
    assert (
        run(tmp_path, b"\xef\xbb\xbf" + SAMPLES[name].replace(b"\n", b"\r\n") + b"\r\n", format=name)[1]
        == plain
    )


def test_damo_of_physical_memory(tmp_path):
    script = (
        b"kdamond.x xxxx xxxx 1.000001: damon:damon_aggregated: target_id=None nr_regions=1 4096-8192: 3 0\n"
    )
    for content, count in ((script, 3), (DAMO_PADDR, 2)):
        trace, rows = run(tmp_path, content)
        assert [row[2:] for row in rows] == [(4096, R, count)]
        assert [s.name for s in trace.spaces] == ["physical memory"]
        assert any("physical" in note for note in trace.provenance.notes)


def test_damo_raw_form(tmp_path):
    trace, rows = run(tmp_path, DAMO_RAW)
    end = 1_000_100_000_000
    assert rows == [*((end, 0, 0x100000 + 4096 * i, R, 3) for i in range(3)), (end, 1, 0x100000, R, 5)]
    assert [s.name for s in trace.spaces] == ["physical memory", "target 7"]


@pytest.mark.parametrize(
    ("was", "becomes", "says"),
    [
        (b"3     2", b",     2", "line 10, byte .*a line of damo's raw form"),
        (
            b"000000100000-000000103000",
            b"000000100000-7f0000103000",
            "line 10.*an accessed region of 130,048 GiB",
        ),
    ],
)
def test_damo_raw_lines_that_cannot_be_read_are_named(tmp_path, was, becomes, says):
    with pytest.raises(InputError, match=says):
        run(tmp_path, DAMO_RAW.replace(was, becomes, 1))


def test_pinatrace(tmp_path):
    trace, rows = run(tmp_path, PINATRACE + PINATRACE)
    assert rows == [(1 + 2 * i + w, 0, 0x7FFC0D2B9F48 - 8 * w, (R, W)[w], 1) for i in (0, 1) for w in (0, 1)]
    assert "accesses, one ns each" in trace.provenance.clock.meaning


@pytest.mark.parametrize("compress", [bytes, lzma.compress, gzip.compress])
def test_champsim(tmp_path, compress):
    trace, rows = run(tmp_path, compress(CHAMPSIM))
    assert rows == [
        (0, 0, 0x401000, F, 1), (0, 0, 0x7FFE00001008, R, 1), (0, 0, 0x601000, R, 1),
        (1, 0, 0x401004, F, 1), (1, 0, 0x7FFE00001000, W, 1), (2, 0, 0x401008, F, 1),
    ]  # fmt: skip
    assert "window of 3 instructions" in trace.provenance.notes[0]
    assert "--time-scale" in trace.provenance.notes[0]


def test_champsim_against_an_independent_count(tmp_path):
    rng = np.random.default_rng(5)
    records = [
        (
            int(ip),
            rng.integers(0, 3, rng.integers(0, 3)).tolist(),
            rng.integers(0, 1 << 47, rng.integers(0, 5)).tolist(),
        )
        for ip in rng.integers(1, 1 << 47, 70_000)
    ]  # more than are spread at once
    trace, rows = run(tmp_path, champsim(*records))
    kinds = np.array(rows, np.uint64)[:, 3]
    counted = [int((kinds == k).sum()) for k in (F, R, W)]
    assert counted == [
        len(records),
        sum(sum(a != 0 for a in r[2]) for r in records),
        sum(sum(a != 0 for a in r[1]) for r in records),
    ]
    assert trace.span == (0, len(records) - 1)
