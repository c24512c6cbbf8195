"""Bytes in: compressed or not, one member or several, line ends, marks and encodings."""

import gzip
import hashlib
import lzma
import random

import pytest
import zstandard

from secondsight.errors import InputError
from secondsight.trace.read.text import ByteStream
from support.foreign_traces import (
    LACKEY,
    SAMPLES,
    run,
)


@pytest.mark.parametrize("compress", [gzip.compress, lzma.compress, zstandard.compress])
def test_compressed_input_is_transparent_and_its_tear_is_named(tmp_path, compress):
    assert run(tmp_path, compress(LACKEY))[1] == run(tmp_path, LACKEY)[1]
    with pytest.raises(InputError, match="damaged or torn"):
        run(tmp_path, compress(LACKEY * 999)[:-20], format="lackey")


def test_what_is_read_ahead_comes_in_order_and_its_damage_is_placed(tmp_path):
    text = random.Random(1).randbytes(30 << 20)
    (whole := tmp_path / "whole.gz").write_bytes(gzip.compress(text, 1))
    stream = ByteStream(str(whole))
    assert b"".join(stream.ahead(1 << 20)) == text and stream.offset == len(text)
    assert stream.input_hash == hashlib.sha256(text).hexdigest()
    (torn := tmp_path / "torn.gz").write_bytes(whole.read_bytes()[: 20 << 20])
    got = b""
    with pytest.raises(InputError, match="damaged or torn") as told:
        for block in ByteStream(str(torn)).ahead(1 << 20):
            got += block
    assert text.startswith(got) and told.value.where == f"byte {len(got)} of the decompressed data"


def test_several_members_are_one_input(tmp_path):
    halves = LACKEY[:100], LACKEY[100:]
    for compress in (gzip.compress, lzma.compress, zstandard.compress):
        assert len(run(tmp_path, b"".join(map(compress, halves)))[1]) == 9


@pytest.mark.parametrize("compress", [gzip.compress, lzma.compress, zstandard.compress])
def test_what_follows_a_compressed_stream_is_refused(tmp_path, compress):
    for junk in (b"junk", b"\1" * 5000):
        with pytest.raises(InputError, match=r"byte \d+ of the decompressed data: .* damaged or torn"):
            run(tmp_path, compress(LACKEY) + junk, format="lackey")


def test_padding_between_and_after_xz_streams_is_none_of_it(tmp_path):
    padded = b"".join(lzma.compress(part) + bytes(4096) for part in (LACKEY[:100], LACKEY[100:]))
    assert run(tmp_path, padded)[1] == run(tmp_path, LACKEY)[1]


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
