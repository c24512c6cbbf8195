"""Stands in for ``secondsight.trace.recording`` in the lab's guest, which has no pyarrow: ``Recording.last`` is what was recorded."""

from secondsight.trace.writer import TraceWriter


class Recording(TraceWriter):
    last = None
