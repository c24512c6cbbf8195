"""What was found, for people: a table, files to work on, one self-contained page. It takes results and imports no engine."""

from secondsight.report.answer import answer
from secondsight.report.metrics import METRICS, explain
from secondsight.report.page import render, write
from secondsight.report.schema import Results, decode, encode

__all__ = ["METRICS", "Results", "answer", "decode", "encode", "explain", "render", "write"]
