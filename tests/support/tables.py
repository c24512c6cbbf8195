"""Tables of foreign columns, turned into traces."""

import pyarrow.parquet as pq

from secondsight.trace import Kind, Trace
from secondsight.trace.read.column_mapping import parse
from secondsight.trace.read.convert import convert

R, W, F = int(Kind.CPU_READ), int(Kind.CPU_WRITE), int(Kind.CPU_FETCH)


def converted(tmp_path, content, columns="", name="in", **options):
    """(rows as tuples, the trace, the mapping that was told)."""
    source, said = tmp_path / name, []
    if isinstance(content, bytes):
        source.write_bytes(content)
    elif content is not None:
        pq.write_table(content, source)
    convert(str(source), tmp_path / "out.parquet", columns=parse(columns), say=said.append, **options)
    trace = Trace.open(tmp_path / "out.parquet")
    columns = trace.read()
    return list(zip(*(columns[c].tolist() for c in columns), strict=True)), trace, said[0]
