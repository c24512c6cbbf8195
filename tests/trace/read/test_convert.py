"""From what users hold to a trace: formats told apart, damage named, nothing half written."""

import bz2
import re
from typing import get_type_hints

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from secondsight.cli.convert import convert as command
from secondsight.errors import InputError, UsageError
from secondsight.trace.read.convert import FORMATS, convert
from support.foreign_traces import (
    CHAMPSIM,
    CSV,
    DAMO,
    DAMO_PERF,
    DAMO_RAW,
    LACKEY,
    PERF,
    PINATRACE,
    SAMPLES,
    VIEW,
    run,
)


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


def test_the_help_names_every_format():
    """By hand: reading them from the table would make --help import every reader."""
    (option,) = get_type_hints(command, include_extras=True)["format"].__metadata__
    assert set(re.split(r", | or ", option.help.partition(";")[0])) == {known.name for known in FORMATS}
