"""The event columns; readers and recorders of real access traces.

``Trace.open(path).batches()`` walks a trace; ``TraceWriter`` writes one; the format is described in
``docs/trace-format.md``.
"""

from __future__ import annotations

from secondsight.trace.format import Batch, Trace
from secondsight.trace.kinds import Access, Kind, Origin, Verb
from secondsight.trace.provenance import Clock, Provenance, Space
from secondsight.trace.recording import Recording, recover
from secondsight.trace.writer import TraceWriter

__all__ = [
    "Access",
    "Batch",
    "Clock",
    "Kind",
    "Origin",
    "Provenance",
    "Recording",
    "Space",
    "Trace",
    "TraceWriter",
    "Verb",
    "recover",
]
