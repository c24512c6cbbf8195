"""Traces as others write them, a small one of each format; and one converted."""

import io
import json
import struct

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from secondsight.trace import Kind, Trace
from secondsight.trace.read.convert import convert

F, R, W = (int(kind) for kind in (Kind.CPU_FETCH, Kind.CPU_READ, Kind.CPU_WRITE))

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
